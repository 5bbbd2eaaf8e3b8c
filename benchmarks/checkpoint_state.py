"""The state in the measured checkpoints: a model of large tensors with the state of AdamW."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from descend.states import joined, leaves

LAYER = 4_000_000
"""About how many parameters a tensor holds."""

State = Mapping[str, Any]


def state_of(parameters: int) -> dict[str, Any]:
    """A model's parameters with the state of AdamW, in the form of their `state_dict()`s.

    Args:
        parameters: how many, at least 1; they are in tensors of about `LAYER`.
    """
    count = max(1, round(parameters / LAYER))
    sizes = [parameters * (i + 1) // count - parameters * i // count for i in range(count)]

    def values() -> list[torch.Tensor]:
        return [torch.empty(size).uniform_(-1, 1) for size in sizes]

    groups = torch.optim.AdamW([torch.zeros(1) for _ in sizes]).state_dict()["param_groups"]
    averages = enumerate(zip(values(), values(), strict=True))
    return {
        "model": {f"layers.{i}.weight": tensor for i, tensor in enumerate(values())},
        "optimizer": {
            "state": {
                i: {"step": torch.tensor(1000.0), "exp_avg": mean, "exp_avg_sq": square}
                for i, (mean, square) in averages
            },
            "param_groups": groups,
        },
    }


def named_tensors(state: State) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a state, with the keys that lead to it.

    Args:
        state: what `state_of` returned.

    Example:
        >>> [name for name, tensor in named_tensors(state_of(9))][0]
        'model.layers.0.weight'
    """
    return (
        (joined(place), leaf) for place, leaf in leaves(state) if isinstance(leaf, torch.Tensor)
    )
