"""The names that people give the parts of a torch file, and ours for them."""

from collections.abc import Mapping
from typing import Any

import torch

# Ours -> theirs. The first that is there counts.
NAMES = {
    "model": ("model", "model_state_dict", "state_dict", "model_state", "net", "network",
              "weights"),
    "optimizer": ("optimizer", "optimizer_state_dict", "optim", "optimizer_state",
                  "optim_state_dict"),
    "scheduler": ("scheduler", "scheduler_state_dict", "lr_scheduler", "lr_scheduler_state_dict",
                  "schedule"),
    "scaler": ("scaler", "grad_scaler", "MixedPrecision", "native_amp_scaling_state"),
}  # fmt: skip
LIGHTNING = {"optimizer_states": "optimizer", "lr_schedulers": "scheduler"}
ANY = "_state_dict"  # any other NAME_state_dict is NAME


def under_our_names(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Give the parts of a torch file our names; a state_dict alone is a part.

    Example:
        >>> under_our_names({"net": {"w": torch.zeros(1)}, "ema_state_dict": {}, "epoch": 3})
        {'model': {'w': tensor([0.])}, 'epoch': 3, 'ema': {}}
    """
    of_module = [
        isinstance(value, torch.Tensor) or str(name).endswith("_extra_state")
        for name, value in content.items()
    ]
    if hasattr(content, "_metadata") or (of_module and all(of_module)):
        return {"model": content}
    if content.keys() >= {"state", "param_groups"}:
        return {"optimizer": content}
    state = dict(content)
    for ours, theirs in NAMES.items():
        found = next((name for name in theirs if isinstance(state.get(name), Mapping)), None)
        if found is not None and ours not in state:
            state[ours] = state.pop(found)
    for listed, our in LIGHTNING.items():
        if isinstance(state.get(listed), list):
            parts = state.pop(listed)
            names = [our] if len(parts) == 1 else [f"{our}_{i}" for i in range(len(parts))]
            state |= dict(zip(names, parts, strict=True))
    for name in [name for name in state if isinstance(name, str) and name.endswith(ANY)]:
        short = name.removesuffix(ANY)
        if short and short not in state:
            state[short] = state.pop(name)
    # In the order of the file, but for these first
    return {name: state[name] for name in [*(n for n in NAMES if n in state), *state]}
