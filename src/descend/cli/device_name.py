"""The option --device of `descend train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from descend.errors import TaskError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """The device of a name, if this machine has it.

    Raises:
        TaskError: it has none of that name; what it has is named.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    import torch

    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        numbers = range(torch.accelerator.device_count())
        devices += [kind.type, *(f"{kind.type}:{number}" for number in numbers)]
    if name.lower() not in devices:
        raise TaskError(
            f"--device {name}: this machine, with this torch, has no such device; allowed: "
            f"{', '.join(devices)}"
        )
    return torch.device(name.lower())
