"""Weight decay as flags: a kernel without decay does not multiply by zero."""

from descend.engine.hyperparameters import Options
from descend.engine.rule import Flags


def decayed(options: Options) -> Flags:
    """`decayed`: whether the group pulls its parameters towards zero."""
    return {"decayed": bool(options["weight_decay"] != 0)}


def coupled_or_decoupled(options: Options) -> Flags:
    """`coupled`: through the gradient; `decoupled`: the parameter itself shrinks; or neither."""
    decays, apart = options["weight_decay"] != 0, options["decoupled_weight_decay"]
    return {"coupled": bool(decays and not apart), "decoupled": bool(decays and apart)}
