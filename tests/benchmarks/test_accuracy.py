"""No optimizer is less exact than torch's; `python benchmarks/accuracy.py` shows the figures."""

import pytest
import torch

import accuracy
from accuracy import DTYPES, MEASURES, Accuracy, measure, settings

SETTINGS = settings()
EVERY = pytest.mark.parametrize(
    ("name", "options"),
    SETTINGS,
    ids=[f"{name}-{'rich' if options else 'defaults'}" for name, options in SETTINGS],
)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])


def assert_as_exact_as_torch(found):
    for what in MEASURES:
        behind = found.behind(what)
        best = found.best_torch(what)
        assert behind is None or behind <= 1, (
            f"{found.name} {found.options}, {what} error: descend {found.errors['descend'][what]}, "
            f"{best} {found.errors[best][what]}"
        )


@EVERY
@DTYPE
def test_as_exact_as_torch_after_100_steps(name, options, dtype):
    assert_as_exact_as_torch(measure(name, options, dtype, steps=100, seeds=3))


@pytest.mark.slow
@EVERY
@DTYPE
def test_as_exact_as_torch_after_1000_steps(name, options, dtype):
    assert_as_exact_as_torch(measure(name, options, dtype))


def test_one_more_rounding_in_each_step_is_noticed(monkeypatch):
    class Rougher(torch.optim.Adam):
        """It rounds what it takes away from a parameter to a coarser grid."""

        def step(self):
            (param,) = self.param_groups[0]["params"]
            super().step()
            with torch.no_grad():
                param.copy_((param * 3) / 3)

    forms = {"descend": Rougher, "torch default": torch.optim.Adam}
    monkeypatch.setattr(accuracy, "contenders", lambda name: forms)
    with pytest.raises(AssertionError, match=r"^adam {}, rms error: descend"):
        assert_as_exact_as_torch(measure("adam", {}, torch.float32, steps=100, seeds=3))


def test_the_noise_is_the_wider_range_and_torchs_best_is_what_counts():
    found = Accuracy(
        "adam",
        {},
        torch.float32,
        {
            "descend": {"rms": [4.0, 5.0, 6.0]},
            "torch default": {"rms": [9.0, 9.0, 9.0]},
            "torch fused": {"rms": [3.0, 3.5, 4.0]},
        },
    )
    assert found.best_torch("rms") == "torch fused"
    assert found.behind("rms") == 0.75
    alone = Accuracy("lion", {}, torch.float32, {"descend": {"rms": [1.0]}})
    assert alone.behind("rms") is None
