"""The optimizers, one file each, and the catalogue of them."""

from descend.optimizers.adagrad import Adagrad as Adagrad
from descend.optimizers.adam import Adam as Adam
from descend.optimizers.adamw import AdamW as AdamW
from descend.optimizers.grouping import param_groups as param_groups
from descend.optimizers.optimizer import Optimizer as Optimizer
from descend.optimizers.rmsprop import RMSprop as RMSprop
from descend.optimizers.sgd import SGD as SGD

CATALOGUE: dict[str, type[Optimizer]] = {
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
"""Every optimizer by its name in lower case; tests, `descend train` and `descend bench` walk it."""
