"""What `import descend` costs, and what is left when a heavy library is missing."""

import subprocess
import sys

import pytest


def python(code):
    """What a fresh interpreter prints; warnings go to the output too."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_import_loads_nothing_heavy():
    heavy = ["numba", "llvmlite", "triton", "matplotlib", "optuna", "rich", "click", "safetensors"]
    loaded = python(
        "import torch, sys; before = set(sys.modules); import descend; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert not set(heavy) & set(loaded)
    assert "descend" in loaded


WITHOUT = """
import importlib.util, warnings
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else found(name, *rest)
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch, descend
from descend import engine
weights = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with engine.forced_backend({backend!r}):
        for weight in weights:
            weight.grad = torch.ones(4)
            optimizer = descend.SGD([weight], lr=0.25)
            optimizer.step()
            optimizer.step()
print(len(caught), optimizer.explain()[0]["backend"], weights[0][0].item())
for warning in caught:
    print(warning.message)
"""


@pytest.mark.parametrize(
    ("missing", "backend", "said"),
    [
        (
            "numba",
            "cpu",
            "descend: Numba is not installed, so steps on the CPU take the slower eager path; "
            "pip install numba",
        ),
        (
            "triton",
            "gpu",
            "descend: Triton is not installed, so steps on the GPU take the slower eager path; "
            "pip install triton",
        ),
    ],
)
def test_without_a_compiler_everything_works_and_it_is_said_once(missing, backend, said):
    first, second = python(WITHOUT.format(missing=missing, backend=backend)).splitlines()
    assert first == "1 eager 0.5"
    assert second == said
