"""Parameter groups from a model: plain lists of dicts, for descend's optimizers and torch's.

selection     selectors: name patterns, modules, module types, tensors, predicates
ordered_rules groups from an ordered list of rules
refining      groups split further: how one builder works on the groups of another
weight_decay  no decay for biases and norms
matrices      hidden matrices to an optimizer of matrices, all else to AdamW
layer_decay   lr decaying from the output to the input, layer by layer
freezing      parameters that do not learn, and learn again
"""

from descend.grouping.freezing import freeze as freeze
from descend.grouping.freezing import unfreeze as unfreeze
from descend.grouping.layer_decay import (
    param_groups_layer_decay as param_groups_layer_decay,
)
from descend.grouping.matrices import param_groups_matrices as param_groups_matrices
from descend.grouping.ordered_rules import param_groups as param_groups
from descend.grouping.weight_decay import (
    param_groups_weight_decay as param_groups_weight_decay,
)
from descend.spelling import suggest as _suggest

_suggest(globals())
