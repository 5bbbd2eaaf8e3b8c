"""The names of `torch.optim.optimizer`: the base class, and hooks around every optimizer's step.

    from descend.optimizer import Optimizer, register_optimizer_step_post_hook

The hooks are torch's own, so they see the steps of both.
"""

# ruff: noqa: PLC0414 - every name is passed on
from torch.optim.optimizer import Args as Args
from torch.optim.optimizer import DeviceDict as DeviceDict
from torch.optim.optimizer import DeviceDtypeDict as DeviceDtypeDict
from torch.optim.optimizer import GlobalOptimizerPostHook as GlobalOptimizerPostHook
from torch.optim.optimizer import GlobalOptimizerPreHook as GlobalOptimizerPreHook
from torch.optim.optimizer import Kwargs as Kwargs
from torch.optim.optimizer import ParamsT as ParamsT
from torch.optim.optimizer import StateDict as StateDict
from torch.optim.optimizer import (
    register_optimizer_step_post_hook as register_optimizer_step_post_hook,
)
from torch.optim.optimizer import (
    register_optimizer_step_pre_hook as register_optimizer_step_pre_hook,
)
from torch.optim.optimizer import required as required

from descend.base.base_class import Optimizer as Optimizer
