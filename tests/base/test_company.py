"""Those who take an optimizer for torch's: scalers, schedulers, trainers, checkpoints."""

import copy
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import descend
from base.test_base_class import params, with_gradients
from children import python
from descend.errors import ConflictError
from descend.optimizers import CATALOGUE


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("own_step", [False, True])
def test_grad_scaler(own_step, fused):
    """A subclass's own step knows nothing of scales: it gets gradients that are unscaled."""

    class Own(descend.SGD):
        def step(self, closure=None):
            self.seen = [group["params"][0].grad.clone() for group in self.param_groups]
            return super().step(closure)

    made = params((2,))
    optimizer = (Own if own_step else descend.SGD)(made, lr=0.5, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((made[0] * 3).sum()).backward()
    start = made[0].tolist()
    scaler.step(optimizer)
    scaler.update()
    assert made[0].tolist() == [value - 1.5 for value in start]
    if own_step:
        assert optimizer.seen[0].tolist() == [3.0, 3.0]
    made[0].grad = torch.full((2,), torch.inf)
    scaler.step(optimizer)
    scaler.update()
    assert made[0].tolist() == [value - 1.5 for value in start]


def test_schedulers_warn_of_a_wrong_order_when_torchs_do():
    def warned(make, steps_first):
        optimizer = make(with_gradients((2,)))
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if steps_first:
                optimizer.step()
            schedule.step()
            schedule.step()
        return [str(one.message)[:60] for one in caught]

    for steps_first in (True, False):
        assert warned(descend.SGD, steps_first) == warned(torch.optim.SGD, steps_first)
    assert warned(descend.SGD, True) == []
    assert len(warned(descend.SGD, False)) == 1


class Wrapper:
    """What Lightning's wrapper does: it becomes a subclass of the optimizer that it wraps."""

    def __init__(self, optimizer):
        self.__class__ = type(
            "Lightning" + type(optimizer).__name__, (type(self), type(optimizer)), {}
        )
        self.__dict__.update({k: v for k, v in vars(optimizer).items() if k != "step"})
        self._optimizer = optimizer

    def step(self, closure=None):
        return self._optimizer.step(closure)


def test_a_wrapper_that_becomes_a_subclass():
    made = with_gradients((2,))
    optimizer = descend.AdamW(made)
    wrapper = Wrapper(optimizer)
    assert isinstance(wrapper, descend.AdamW)
    before = made[0].tolist()
    wrapper.step()
    assert made[0].tolist() != before
    assert wrapper.state is optimizer.state
    assert wrapper.state_dict()["state"].keys() == {0}
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    wrapper.zero_grad()
    scaler.scale((made[0] * 3).sum()).backward()
    scaler.step(wrapper)  # whose step does not pass on what the scaler sets
    assert made[0].grad.tolist() == [3.0, 3.0]


FUSED_IN_TORCH = ("adagrad", "adam", "adamw", "sgd")


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("name", FUSED_IN_TORCH)
def test_the_step_unscales_where_torchs_does(name, fused):
    """Lightning and Accelerate read it: between backward pass and step they clip and count."""
    both = [
        make(params((2,)), fused=fused)
        for make in (CATALOGUE[name], getattr(torch.optim, CATALOGUE[name].__name__))
    ]
    mine, theirs = (getattr(one, "_step_supports_amp_scaling", False) for one in both)
    assert mine is theirs is bool(fused)


def test_a_subclasss_own_step_does_not_unscale():
    class Own(descend.SGD):
        def step(self, closure=None):
            return super().step(closure)

    class Heir(Own):
        pass

    class Knows(Own):
        _step_supports_amp_scaling = True

    class Plain(descend.Adam):
        pass

    made = [cls(params((2,)), lr=1.0, fused=True) for cls in (Own, Heir, Knows, Plain)]
    assert [one._step_supports_amp_scaling for one in made] == [False, False, True, True]
    assert copy.deepcopy(made[3])._step_supports_amp_scaling is True


@pytest.mark.parametrize("name", sorted(CATALOGUE.keys() & {"sgd", "adam", "adamw", "rmsprop"}))
def test_distributed_checkpoint_fills_and_reads_the_state(name):
    """It makes the state by a step with lr 0 and zero gradients, called as step(closure=None).

    In torch that step counts (P72, test_init_state.py), so torch's takes part without.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns of deprecations of its own
        from torch.distributed.checkpoint import state_dict as checkpoint

    def model_and_optimizer(make):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        return model, make(model.parameters(), lr=0.25)

    def run(make):
        model, optimizer = model_and_optimizer(make)
        if make is CATALOGUE[name]:
            checkpoint.get_optimizer_state_dict(model, optimizer)
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
        # A copy: torch's own load would alias the state that it is given (P1).
        saved = copy.deepcopy(checkpoint.get_optimizer_state_dict(model, optimizer))
        other_model, other = model_and_optimizer(make)
        other_model.load_state_dict(model.state_dict())
        checkpoint.set_optimizer_state_dict(other_model, other, saved)
        for one in (model, other_model):
            one.zero_grad()
            one(torch.ones(4, 3)).sum().backward()
        optimizer.step()
        other.step()
        for param, expected in zip(other_model.parameters(), model.parameters(), strict=True):
            assert torch.equal(param, expected)
        return optimizer.state_dict()["state"], list(model.parameters())

    torch.testing.assert_close(
        run(CATALOGUE[name]), run(getattr(torch.optim, CATALOGUE[name].__name__))
    )


@pytest.mark.skipif(
    not hasattr(torch.optim, "swap_in_optimizer_params_and_state"), reason="torch 2.13 has it"
)
def test_torchs_swapping_in_of_parameters_and_state():
    def run(make):
        made = with_gradients((2,), (3,))
        optimizer = make(made, lr=0.25)
        optimizer.step()
        other = {str(index): param.detach().clone() for index, param in enumerate(made)}
        for param in other.values():
            param.grad = torch.full_like(param, 2.0)
        saved = copy.deepcopy(optimizer.state_dict())
        saved["param_groups"][0]["lr"] = 0.5
        kept = [param.tolist() for param in made]
        with torch.optim.swap_in_optimizer_params_and_state(optimizer, other, saved):
            optimizer.step()
        assert [param.tolist() for param in made] == kept
        optimizer.step()
        return [*other.values(), *made], saved["state"]

    (mine, my_state), (theirs, their_state) = run(descend.Adam), run(torch.optim.Adam)
    for value, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(value.detach(), expected.detach())
    for index, entry in their_state.items():
        for key, expected in entry.items():
            torch.testing.assert_close(my_state[index][key], expected)


@pytest.mark.skipif(
    not hasattr(torch.optim, "swap_in_optimizer_params_and_state"), reason="torch 2.13 has it"
)
def test_a_step_is_traced_with_swapped_in_fakes():
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree as pytree

    def traced(make):
        made = with_gradients((2,), (3,))
        optimizer = make(made, lr=0.25, momentum=0.5)
        optimizer.step()
        before = [param.tolist() for param in made]
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            fakes = {str(index): mode.from_tensor(param) for index, param in enumerate(made)}
            grads = {str(index): mode.from_tensor(param.grad) for index, param in enumerate(made)}
            saved = pytree.tree_map_only(torch.Tensor, mode.from_tensor, optimizer.state_dict())

        def step(fakes, grads, saved):
            for name, fake in fakes.items():
                fake.grad = grads[name]
            with torch.optim.swap_in_optimizer_params_and_state(optimizer, fakes, saved):
                optimizer.step()
            return fakes, saved

        graph = make_fx(step)(fakes, grads, saved)
        assert [param.tolist() for param in made] == before
        real = {str(index): param.detach().clone() for index, param in enumerate(made)}
        grads = {str(index): param.grad for index, param in enumerate(made)}
        out, _ = graph(real, grads, copy.deepcopy(optimizer.state_dict()))
        return list(out.values())

    torch.testing.assert_close(traced(descend.SGD), traced(torch.optim.SGD))


def test_the_classes_are_no_subclasses_of_torchs_own():
    """What asks for torch's very class says no: a row of docs/differences.md."""
    for cls in CATALOGUE.values():
        theirs = getattr(torch.optim, cls.__name__, None)
        assert theirs is None or not issubclass(cls, theirs)
        assert issubclass(cls, torch.optim.Optimizer)
    made = descend.lr_scheduler.ReduceLROnPlateau(descend.SGD(params((2,))))
    assert isinstance(made, torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert type(made) is not torch.optim.lr_scheduler.ReduceLROnPlateau


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_an_optimizer_of_a_few_parameters_refuses_to_clip_by_their_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns of deprecations of its own
        from torch.distributed.optim import _apply_optimizer_in_backward as apply
        from torch.distributed.optim.optimizer import _LocalOptimizer as on_a_worker

    class Remote:
        def local_value(self):
            return params((2,))[0]

    for options in ({"clip_norm": 1.0}, {"skip_nonfinite": True}):
        with pytest.raises(ConflictError, match=r"steps in the backward pass has one; leave it"):
            apply(descend.AdamW, params((2,)), {"lr": 0.1, **options})
        with pytest.raises(ConflictError, match=r"DistributedOptimizer has those of its worker;"):
            on_a_worker(descend.AdamW, [Remote()], lr=0.1, **options)
    on_a_worker(descend.AdamW, [Remote()], lr=0.1, clip_value=1.0)
    made = params((2,), (3,))
    apply(descend.SGD, made, {"lr": 0.5, "clip_value": 0.25})
    start = [param.tolist() for param in made]
    sum(param.sum() for param in made).backward()
    after = [[value - 0.125 for value in values] for values in start]
    assert [param.tolist() for param in made] == after


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_sharded_parameters_and_sharded_state():
    """FSDP's DTensors through torch.distributed.checkpoint, and ZeroRedundancyOptimizer."""
    names = ["adagrad", "adamw", "nadam", "sgd"]
    done = python(Path(__file__).with_name("sharded.py"), *names)
    assert done.stdout.split() == names


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_clipping_on_two_ranks(tmp_path):
    """Each rank holds half of the gradients; the norm, and what is not finite, is that of all."""
    script = Path(__file__).with_name("two_ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(script.parent.parent), *sys.path)),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=200)[1] for rank in ranks]
    done = [(tmp_path / f"done {rank}").exists() for rank in range(2)]
    assert all(done), "\n".join(text[-3000:] for text in errors)
