"""Packages with the optimizers that torch lacks: who stands beside descend's there.

They are imported only where they are measured. A test has each take the steps of descend's. Where
they change gradients in place (schedulefree does), later steps meet those: they take the same time.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch


def _begun(count: float) -> float:
    """ADOPT's limit where its first step, which moves nothing, does not count."""
    return float((count - 1) ** 0.25)


PACKAGES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "ademamix": ("pytorch_optimizer", "AdEMAMix", {"alpha": 2.0}),
    "adopt": ("pytorch_optimizer", "ADOPT", {"clip_lambda": _begun}),
    "lamb": ("pytorch_optimizer", "Lamb", {"adam_debias": True}),
    "lion": ("pytorch_optimizer", "Lion", {}),
    "mars": ("pytorch_optimizer", "MARS", {"optimize_1d": True}),
    "prodigy": ("prodigyopt", "Prodigy", {}),
    "schedulefreeadamw": ("schedulefree", "AdamWScheduleFree", {}),
    "schedulefreesgd": ("schedulefree", "SGDScheduleFree", {}),
    "soap": ("pytorch_optimizer", "SOAP", {}),
    "stableadamw": ("pytorch_optimizer", "StableAdamW", {}),
}
"""By the name of a case: the package, its class, and the options that make its defaults descend's.
"""


def missing(name: str) -> str | None:
    """Return the package that would stand beside a case, if it is not installed.

    Args:
        name: The case's; any.
    """
    package, *_ = PACKAGES.get(name, (None,))
    return package if package and find_spec(package) is None else None


def make(name: str, parameters: Sequence[torch.Tensor], **options: Any) -> torch.optim.Optimizer:
    """Make a published optimizer that is ready to step.

    Args:
        name: The case's, one of `PACKAGES` whose package is not `missing`.
        parameters: What it is for.
        options: Those that are called the same there and here.
    """
    package, kind, own = PACKAGES[name]
    optimizer: Any = getattr(import_module(package), kind)(parameters, **{**own, **options})
    if hasattr(optimizer, "train"):  # a schedule-free one steps only while it trains
        optimizer.train()
    return optimizer  # type: ignore[no-any-return]
