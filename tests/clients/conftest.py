"""Real clients: what they say for themselves is theirs, and nothing leaves this machine."""

import os
import warnings

# Before any of them is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import pytest

LIGHTNING = [
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
    "ignore:The '.*_dataloader' does not have many workers:UserWarning",
    "ignore:You defined a `validation_step` but have no:UserWarning",
]

OWN_WARNINGS = {
    "test_fastai": ["ignore:numpy.core is deprecated:DeprecationWarning"],
    "test_higher": ["ignore:Differentiable RMSprop:UserWarning"],
    "test_lightning": LIGHTNING,
    "test_trainer_parity": LIGHTNING,
}
"""The clients' own warnings, by the module of their tests."""


def pytest_collection_modifyitems(items):
    for item in items:
        for warning in OWN_WARNINGS.get(item.path.stem, ()) if "clients" in item.path.parts else ():
            item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def client():
    """Import a client where a test first asks for it: each takes seconds."""

    def imported(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations of their own
            return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed")

    return imported


@pytest.fixture
def accelerate(client):
    """Accelerate without the state that it keeps in the process; the HF Trainer leaves one, too."""
    accelerate = client("accelerate")

    def forget():
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()

    forget()
    yield accelerate
    forget()
