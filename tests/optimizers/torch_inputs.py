"""Write torch's own list of optimizer inputs to a file: `python torch_inputs.py FILE`.

A process of its own, because the import of torch's test tools locks settings of torch.backends.
"""

import sys
import types
import unittest
import warnings

import torch


def main(path):
    # torch's test tools derive a class from this library's; the lists have nothing to do with it.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase
    sys.modules.setdefault("expecttest", stand_in)
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

    found = {}
    for info in optim_db:
        inputs = [(one.desc, one.kwargs) for one in info.optim_inputs_func("cpu", torch.float32)]
        errors = [
            (
                one.optimizer_error_input.desc,
                one.optimizer_error_input.params,
                one.optimizer_error_input.kwargs,
                one.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR,
                one.error_type,
            )
            for one in info.optim_error_inputs_func("cpu", torch.float32)
        ]
        found[info.optim_cls.__name__] = (inputs, errors)
    torch.save(found, path)


if __name__ == "__main__":
    main(sys.argv[1])
