"""Every public name of torch.optim and its modules is here, or in the table of differences."""

import importlib
import types
from pathlib import Path

import pytest
import torch

HOMES = {
    "torch.optim": "descend",
    "torch.optim.lr_scheduler": "descend.lr_scheduler",
    "torch.optim.optimizer": "descend.optimizer",
    "torch.optim.swa_utils": "descend.swa_utils",
}
OLD = {
    "torch.optim.lr_scheduler": ["_LRScheduler"]
}  # private by its name, used by many all the same
DIFFERENCES = (Path(__file__).parents[1] / "docs/differences.md").read_text("utf-8")


def own_names(home):
    """What a module says is public, and whatever else is defined in it without an underscore."""
    module = importlib.import_module(home)
    names = {name for name in dir(module) if not name.startswith("_")}
    imported = {
        name
        for name in names
        if isinstance(value := getattr(module, name), types.ModuleType)
        or getattr(value, "__module__", home) not in (home, "builtins", "collections.abc", "types")
        or f"import {name}" in Path(module.__file__).read_text("utf-8")
        or value in (True, False)
    }
    from_elsewhere = {"Callable", "Hashable", "Iterable", "Sequence", "Counter", "inf", "cast"}
    return sorted(
        names - imported - from_elsewhere
        | set(getattr(module, "__all__", ()))
        | set(OLD.get(home, ()))
    )


@pytest.mark.parametrize(
    ("home", "name"), [(home, name) for home in HOMES for name in own_names(home)]
)
def test_every_public_name_of_torch_is_here_or_in_the_table(home, name):
    here = importlib.import_module(HOMES[home])
    assert hasattr(here, name) or f"`{name}`" in DIFFERENCES


def test_the_walk_finds_what_there_is():
    assert {"AdamW", "Optimizer", "lr_scheduler"} <= set(own_names("torch.optim"))
    assert {"ParamsT", "StateDict", "required"} <= set(own_names("torch.optim.optimizer"))
    assert "EPOCH_DEPRECATION_WARNING" in own_names("torch.optim.lr_scheduler")
    assert not {"math", "Tensor", "Any"} & set(own_names("torch.optim.lr_scheduler"))


def test_names_that_are_torchs_own_are_the_same_things():
    import descend.lr_scheduler
    import descend.optimizer

    assert descend.optimizer.Optimizer is descend.Optimizer
    hook = (
        torch.optim.optimizer.register_optimizer_step_post_hook
        if hasattr(torch.optim, "optimizer")
        else importlib.import_module("torch.optim.optimizer").register_optimizer_step_post_hook
    )
    assert descend.optimizer.register_optimizer_step_post_hook is hook
    assert issubclass(descend.lr_scheduler._LRScheduler, torch.optim.lr_scheduler.LRScheduler)


@pytest.mark.skipif(
    not hasattr(torch.optim, "swap_in_optimizer_params_and_state"), reason="torch 2.13 has it first"
)
def test_torchs_swap_of_parameters_and_state_takes_descends_optimizers():
    import copy

    import descend

    param = torch.nn.Parameter(torch.ones(3))
    optimizer = descend.AdamW([param], lr=0.1)
    param.grad = torch.ones(3)
    optimizer.step()
    held, state = param.detach().clone(), copy.deepcopy(optimizer.state_dict())
    other = torch.nn.Parameter(param.detach().clone())
    other.grad = torch.full((3,), 2.0)
    with torch.optim.swap_in_optimizer_params_and_state(optimizer, {"param": other}, state):
        optimizer.step()
    assert torch.equal(param, held)
    assert (other < held).all()
    assert optimizer.state[param]["step"] == 1
