"""What every optimizer of torch refuses, as torch's own tests list it.

From `get_error_inputs_for_all_optims` in torch.testing._internal.common_optimizers, which cannot
be imported without torch's test dependencies.
"""

import torch
from torch.nn import Parameter

ONE, TWO = Parameter(torch.ones(1, 1)), Parameter(torch.ones(1, 1))

# What is tried: parameters, options, the kind of exception that torch raises. Of a parameter that
# a group holds twice torch only warns; here it is the ValueError that it is between groups.
ERROR_INPUTS = {
    "invalid param type": (ONE, {}, TypeError),
    "a param group cannot have duplicate parameters": ([ONE, ONE], {}, ValueError),
    "duplicate parameters should not occur across param groups either": (
        [{"params": ONE}, {"params": ONE}],
        {},
        ValueError,
    ),
    "Tensor lr must be 1-element": ([ONE], {"lr": torch.tensor([0.001, 0.001])}, ValueError),
    "all optimizer params should be with/without names": ([("weight", ONE), TWO], {}, ValueError),
    "all optimizer param groups should be with/without names.": (
        [{"params": [ONE], "lr": 1e-2}, {"params": [("weight", TWO)]}],
        {},
        ValueError,
    ),
}
