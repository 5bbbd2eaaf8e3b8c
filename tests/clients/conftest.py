"""Real clients: what they say for themselves is theirs, and nothing leaves this machine."""

import os
import warnings

# Before any of them is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import pytest

OWN_WARNINGS = {
    "test_fastai": ["ignore:numpy.core is deprecated:DeprecationWarning"],
    "test_higher": ["ignore:Differentiable RMSprop:UserWarning"],
    "test_lightning": [
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
        "ignore:The 'train_dataloader' does not have many workers:UserWarning",
    ],
}
"""The clients' own warnings, by the module of their tests."""


PENDING = (
    "test_a_group_that_is_unfrozen_in_the_middle_of_a_curve",
    "test_schedules_before_and_after_prepare",
    "test_schedules_by_epoch_with_partial_fit",
    "test_schedules_by_batch",
    "test_lookahead_resumed_from_its_own_checkpoint",
)
"""Those that wait for what is being mended in the schedulers."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.startswith(PENDING) and "clients" in item.path.parts:
            item.add_marker(pytest.mark.xfail(strict=False))
        for warning in OWN_WARNINGS.get(item.path.stem, ()) if "clients" in item.path.parts else ():
            item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def client(request):
    """Import a client where a test first asks for it: each takes seconds."""

    def imported(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations of their own
            return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed")

    return imported
