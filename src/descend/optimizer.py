"""The names of `torch.optim.optimizer`: the base class, and hooks around every optimizer's step.

    from descend.optimizer import Optimizer, register_optimizer_step_post_hook

The hooks are torch's own, so they see the steps of both.
"""

from torch.optim.optimizer import (
    Args,
    DeviceDict,
    DeviceDtypeDict,
    GlobalOptimizerPostHook,
    GlobalOptimizerPreHook,
    Kwargs,
    ParamsT,
    StateDict,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
    required,
)

from descend.base.base_class import Optimizer

__all__ = [
    "Args",
    "DeviceDict",
    "DeviceDtypeDict",
    "GlobalOptimizerPostHook",
    "GlobalOptimizerPreHook",
    "Kwargs",
    "Optimizer",
    "ParamsT",
    "StateDict",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
    "required",
]
