"""Stand-ins for descend's optimizers, so that these tests are about the measuring alone."""

import pytest
import torch


def stand_in(base):
    """A subclass of a torch optimizer that takes `clip_norm`, as descend's do."""

    class StandIn(base):
        def __init__(self, params, clip_norm=None, **options):
            super().__init__(params, **options)
            self.clip_norm = clip_norm

    StandIn.__name__ = base.__name__
    return StandIn


class Unheard(torch.optim.SGD):
    """An optimizer that torch does not have."""


@pytest.fixture
def catalogue(monkeypatch):
    """Replace the catalogue by stand-ins."""
    import descend.optimizers

    bases = torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop
    found = {base.__name__.lower(): stand_in(base) for base in bases}
    found["unheard"] = Unheard
    monkeypatch.setattr(descend.optimizers, "CATALOGUE", found, raising=False)
    return found
