"""Schedulers: what drives the hyperparameters of an optimizer, descend's or torch's.

    from descend.lr_scheduler import CosineAnnealingLR
    scheduler = CosineAnnealingLR(optimizer, T_max=100)

The names, arguments and defaults are torch's; `Scheduler` takes any schedule of
`descend.schedules` for any hyperparameter. The value is a pure function of the step, so no order of
building, loading and stepping can break it.

    driver.py           one hyperparameter, and the schedulers that drive it together
    group_values.py     where a hyperparameter stands in a group, and who has written it
    scheduler_base.py   LRScheduler: the step, the base, the state
    scheduler_state.py  the state of a scheduler, and what of it is refused
    torch_style.py      a subclass with a get_lr of its own, as torch's have
    early_step.py       whether a scheduler is stepped before its optimizer
    scheduler.py        Scheduler
    the others          torch's classes, as rows over the same
"""

from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING as EPOCH_DEPRECATION_WARNING

from descend.lr_scheduler.cyclic import CyclicLR as CyclicLR
from descend.lr_scheduler.factors import ConstantLR as ConstantLR
from descend.lr_scheduler.factors import CosineAnnealingLR as CosineAnnealingLR
from descend.lr_scheduler.factors import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from descend.lr_scheduler.factors import ExponentialLR as ExponentialLR
from descend.lr_scheduler.factors import LinearLR as LinearLR
from descend.lr_scheduler.factors import MultiStepLR as MultiStepLR
from descend.lr_scheduler.factors import PolynomialLR as PolynomialLR
from descend.lr_scheduler.factors import StepLR as StepLR
from descend.lr_scheduler.lambdas import LambdaLR as LambdaLR
from descend.lr_scheduler.lambdas import MultiplicativeLR as MultiplicativeLR
from descend.lr_scheduler.one_cycle import OneCycleLR as OneCycleLR
from descend.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
from descend.lr_scheduler.scheduler import Scheduler as Scheduler
from descend.lr_scheduler.scheduler_base import LRScheduler as LRScheduler
from descend.lr_scheduler.scheduler_base import _LRScheduler as _LRScheduler
from descend.lr_scheduler.sequential import ChainedScheduler as ChainedScheduler
from descend.lr_scheduler.sequential import SequentialLR as SequentialLR
from descend.spelling import suggest as _suggest

_suggest(globals())
