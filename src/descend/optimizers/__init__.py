"""The optimizers, one file each, and the catalogue of them."""

from descend.base import origin
from descend.base.base_class import Optimizer as Optimizer
from descend.optimizers.adadelta import Adadelta as Adadelta
from descend.optimizers.adafactor import Adafactor as Adafactor
from descend.optimizers.adagrad import Adagrad as Adagrad
from descend.optimizers.adam import Adam as Adam
from descend.optimizers.adamax import Adamax as Adamax
from descend.optimizers.adamw import AdamW as AdamW
from descend.optimizers.ademamix import AdEMAMix as AdEMAMix
from descend.optimizers.adopt import ADOPT as ADOPT
from descend.optimizers.asgd import ASGD as ASGD
from descend.optimizers.lamb import LAMB as LAMB
from descend.optimizers.lbfgs import LBFGS as LBFGS
from descend.optimizers.lion import Lion as Lion
from descend.optimizers.mars import MARS as MARS
from descend.optimizers.muon import Muon as Muon
from descend.optimizers.nadam import NAdam as NAdam
from descend.optimizers.optimizer_file import load_optimizer as load_optimizer
from descend.optimizers.prodigy import Prodigy as Prodigy
from descend.optimizers.radam import RAdam as RAdam
from descend.optimizers.rmsprop import RMSprop as RMSprop
from descend.optimizers.rprop import Rprop as Rprop
from descend.optimizers.schedule_free_adamw import ScheduleFreeAdamW as ScheduleFreeAdamW
from descend.optimizers.schedule_free_sgd import ScheduleFreeSGD as ScheduleFreeSGD
from descend.optimizers.sgd import SGD as SGD
from descend.optimizers.soap import SOAP as SOAP
from descend.optimizers.sparse_adam import SparseAdam as SparseAdam
from descend.optimizers.stableadamw import StableAdamW as StableAdamW
from descend.spelling import suggest as _suggest

CATALOGUE: dict[str, type[Optimizer]] = {
    name.lower(): value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
}
"""Every optimizer by its name in lower case; tests, `descend train` and `descend bench` walk it."""

origin.KNOWN.extend(CATALOGUE.values())

_suggest(globals())
