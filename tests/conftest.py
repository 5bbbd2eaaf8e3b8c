"""What every test shares: the backend fixture and the Hypothesis profiles."""

import importlib.util
import os
import signal
import sys

# Before anything imports triton: its interpreter runs the GPU kernels on the CPU. Set it to 0 by
# hand, on a machine with a GPU, to run the same tests on compiled kernels.
os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy
import pytest
import torch
from hypothesis import HealthCheck, settings

# The backend fixture is the same for every example of a test, so its scope does no harm. An example
# may be the one that compiles a kernel, so it has no deadline.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "explore", settings.get_profile("ci"), derandomize=False, max_examples=500
)
settings.load_profile("ci")  # `pytest --hypothesis-profile=explore` looks further

# Two workers share two cores: torch's OpenMP threads would wait for each other by spinning.
torch.set_num_threads(1)

# A shell without job control starts what runs in the background with Ctrl-C ignored, and children
# inherit that: the tests that interrupt them would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"


def pytest_collection_modifyitems(config, items):
    """Leave out what is slow unless `-m` says what to run; skip what needs a GPU where none is."""
    if not config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(params=["eager", "cpu", "gpu"])
def backend(request):
    """Run the test once on each backend: every optimizer step inside it is forced there."""
    if request.param == "gpu" and importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from descend.engine import forced_backend

    # The interpreter computes with NumPy, which warns of the NaNs that a GPU makes in silence.
    silent = {"invalid": "ignore", "over": "ignore", "divide": "ignore"}
    with (
        forced_backend(request.param),
        numpy.errstate(**silent if request.param == "gpu" and INTERPRETED else {}),
    ):
        yield request.param


@pytest.fixture(autouse=True)
def no_seed_yet():
    """Let no test's Trainer take the seed that another test called `seed_everything` with."""
    from descend.checkpoint import randomness

    before = randomness._last_seed
    yield
    randomness._last_seed = before


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Work in an empty folder; what the test puts on the path of modules goes with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def device(backend):
    """Where the tensors of a test live: on the GPU only for compiled GPU kernels."""
    return "cuda" if backend == "gpu" and not INTERPRETED else "cpu"
