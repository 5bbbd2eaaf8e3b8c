"""Schedulers: what drives the hyperparameters of an optimizer, descend's or torch's.

    from descend.lr_scheduler import CosineAnnealingLR
    scheduler = CosineAnnealingLR(optimizer, T_max=100)

The names, arguments and defaults are torch's; `Scheduler` takes any schedule of
`descend.schedules` for any hyperparameter. The value is a pure function of the step, so no order of
building, loading and stepping can break it.

    base.py         what all share: the step, the base, the state
    state.py        what a state holds, and what of it is refused
    own_get_lr.py   a subclass with a get_lr of its own, as torch's have
    order.py        whether a scheduler is stepped before its optimizer
    track.py        one hyperparameter, and the schedulers that drive it together
    slot.py         where a hyperparameter stands in a group
    checks.py       what their arguments may be
    scheduler.py    Scheduler
    the others      torch's classes
"""

from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING as EPOCH_DEPRECATION_WARNING

from descend.lr_scheduler.base import LRScheduler as LRScheduler
from descend.lr_scheduler.base import _LRScheduler as _LRScheduler
from descend.lr_scheduler.cosine import CosineAnnealingLR as CosineAnnealingLR
from descend.lr_scheduler.cosine import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from descend.lr_scheduler.cyclic import CyclicLR as CyclicLR
from descend.lr_scheduler.lambdas import LambdaLR as LambdaLR
from descend.lr_scheduler.lambdas import MultiplicativeLR as MultiplicativeLR
from descend.lr_scheduler.one_cycle import OneCycleLR as OneCycleLR
from descend.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
from descend.lr_scheduler.ramps import ConstantLR as ConstantLR
from descend.lr_scheduler.ramps import ExponentialLR as ExponentialLR
from descend.lr_scheduler.ramps import LinearLR as LinearLR
from descend.lr_scheduler.ramps import PolynomialLR as PolynomialLR
from descend.lr_scheduler.scheduler import Scheduler as Scheduler
from descend.lr_scheduler.sequential import ChainedScheduler as ChainedScheduler
from descend.lr_scheduler.sequential import SequentialLR as SequentialLR
from descend.lr_scheduler.steps import MultiStepLR as MultiStepLR
from descend.lr_scheduler.steps import StepLR as StepLR
from descend.spelling import suggest as _suggest

_suggest(globals())
