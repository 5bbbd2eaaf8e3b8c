"""Defects that a review once found, each with the test that keeps it away."""

import copy
import gc
import math
import sys
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import Parameter

import descend
from children import python
from descend.engine import cpu, kernel_threads, step_inputs
from descend.engine.vocabulary import sqrt as root  # noqa: F401 - hidden below
from descend.errors import HyperparameterError, StateError
from descend.rules import Rule, RuleError, maximum, minimum, sqrt  # noqa: F401 - hidden below


def stepped(cls, params, steps=1, **options):
    optimizer = cls(params, **options)
    for _ in range(steps):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    return optimizer


def test_no_plan_keeps_a_gradient_alive(backend):
    param = Parameter(torch.ones(4))
    optimizer = descend.Adam([param], lr=0.1)
    param.grad = torch.ones(4)
    first = weakref.ref(param.grad)
    optimizer.step()
    optimizer.zero_grad()
    gc.collect()
    assert first() is None


def test_moved_momentum_is_not_thrown_away():
    param = Parameter(torch.ones(3, device="meta"))  # stands for any other device
    flags = {"heavy": True, "decayed": False, "nesterov": False}
    part = step_inputs.Part("SGD", 0, None, descend.SGD.rule, flags)
    member = step_inputs.Member(part, 0, 0, param, param.detach())
    step_inputs.admit({"momentum": 0.9}, {"momentum_buffer": torch.ones(3)}, member)
    assert member.new["momentum_buffer"].device == param.device
    assert not member.first


def test_two_models_with_the_same_names_keep_all_their_state():
    models = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    named = [pair for model in models for pair in model.named_parameters()]
    optimizer = stepped_named(named)
    other = descend.SGD(named, lr=0.1, momentum=0.9)
    other.load_state_dict(optimizer.state_dict())
    assert len(other.state) == 4


def stepped_named(named):
    optimizer = descend.SGD(named, lr=0.1, momentum=0.9)
    for _, param in named:
        param.grad = torch.ones_like(param)
    optimizer.step()
    return optimizer


def test_groups_do_not_share_a_tensor_lr():
    groups = [{"params": [Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = descend.Adam(groups, lr=torch.tensor(0.1))
    saved = optimizer.state_dict()
    saved["param_groups"][1]["lr"] = torch.tensor(0.2)
    optimizer.load_state_dict(saved)
    torch.testing.assert_close(
        [group["lr"].item() for group in optimizer.param_groups], [0.1, 0.2], rtol=1e-6, atol=0
    )


def test_state_dicts_swapped_between_parameters_are_noticed(backend):
    first, second = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = descend.SGD([first, second], lr=1.0, momentum=0.5)
    first.grad, second.grad = torch.ones(2), torch.full((2,), 3.0)
    optimizer.step()
    mine, theirs = optimizer.state[first], optimizer.state[second]
    optimizer.state.clear()
    optimizer.state[second], optimizer.state[first] = mine, theirs
    optimizer.step()
    assert first.tolist() == [1 - 1 - (0.5 * 3 + 1)] * 2
    assert second.tolist() == [1 - 3 - (0.5 * 1 + 3)] * 2


def test_a_refused_constructor_leaves_the_groups_as_they_were():
    good, bad = {"params": [Parameter(torch.ones(1))]}, {"params": [], "lr": -1.0}
    before = dict(good)
    with pytest.raises(descend.errors.HyperparameterError):
        descend.SGD([good, bad], lr=5.0)
    assert good == before


def test_a_refused_group_leaves_its_generator_whole():
    optimizer = descend.SGD([Parameter(torch.ones(1))], lr=0.1)
    model = torch.nn.Linear(2, 2)
    params = model.parameters()
    with pytest.raises(descend.errors.HyperparameterError):
        optimizer.add_param_group({"params": params, "lr": -1.0})
    optimizer.add_param_group({"params": params, "lr": 1.0})
    assert len(optimizer.param_groups[1]["params"]) == 2


def test_what_a_user_keeps_in_the_state_is_loaded():
    param = Parameter(torch.ones(2))
    optimizer = stepped(descend.Adam, [param])
    optimizer.state[param]["ema"] = torch.full((2,), 7.0)
    other = descend.Adam([Parameter(torch.ones(2))])
    other.load_state_dict(optimizer.state_dict())
    (entry,) = other.state.values()
    assert entry["ema"].tolist() == [7.0, 7.0]
    assert entry["ema"] is not optimizer.state[param]["ema"]


def test_a_state_saved_before_momentum_was_turned_on_is_loaded():
    param = Parameter(torch.ones(2))
    optimizer = stepped(descend.RMSprop, [param])
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.load_state_dict(optimizer.state_dict())
    param.grad = torch.ones(2)
    optimizer.step()
    assert "momentum_buffer" in optimizer.state[param]


@pytest.mark.parametrize("attributes", [{"grad_scale": 2.0}, {"found_inf": 0.0}])
def test_a_scaler_may_set_either_attribute_alone(attributes):
    param = Parameter(torch.ones(2))
    optimizer = descend.SGD([param], lr=1.0)
    for name, value in attributes.items():
        setattr(optimizer, name, torch.tensor(value))
    param.grad = torch.full((2,), 2.0)
    optimizer.step()
    assert param.tolist() == [1.0 - 2.0 / attributes.get("grad_scale", 1.0)] * 2


def test_a_step_that_a_scaler_skips_is_counted():
    param = Parameter(torch.ones(2))
    optimizer = descend.SGD([param], lr=1.0)
    optimizer.found_inf = torch.tensor(1.0)
    param.grad = torch.ones(2)
    optimizer.step()
    assert param.tolist() == [1.0, 1.0]
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("key", ["no_weight_decay", "max_weight_decay", "max_momentum", "lr_scale"])
def test_keys_of_the_users_own_are_no_misspellings(key):
    group = {"params": [Parameter(torch.ones(1))], key: 1.0}
    optimizer = descend.SGD([group], lr=0.1, momentum=0.9)
    assert optimizer.param_groups[0][key] == 1.0


def test_a_parameter_that_never_gets_a_gradient_may_be_of_any_dtype():
    quantized = torch.ones(3, dtype=torch.uint8)
    optimizer = stepped(descend.SGD, [Parameter(torch.ones(3))])
    optimizer.add_param_group({"params": [quantized]})
    optimizer.step()
    assert quantized.tolist() == [1, 1, 1]


def test_torchs_own_pickled_form_is_taken():
    param = Parameter(torch.ones(2))
    optimizer = stepped(descend.SGD, [param], lr=0.1)
    other = descend.SGD.__new__(descend.SGD)
    other.__setstate__(
        {name: getattr(optimizer, name) for name in ("defaults", "state", "param_groups")}
    )
    called = []
    other.register_step_pre_hook(lambda *_: called.append(1))
    other.step()
    assert called == [1]


def test_a_subclass_with_a_step_of_its_own_runs_hooks():
    class Mine(descend.SGD):
        def step(self, closure=None):
            return "mine"

    optimizer = Mine([Parameter(torch.ones(1))], lr=0.1)
    called = []
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    assert optimizer.step() == "mine"
    assert called == [1]


def test_a_negative_lr_filled_into_its_tensor_is_refused():
    param = Parameter(torch.ones(2))
    optimizer = stepped(descend.Adam, [param], lr=torch.tensor(0.1))
    optimizer.param_groups[0]["lr"].fill_(-1.0)
    before = param.tolist()
    with pytest.raises(descend.errors.HyperparameterError, match=r"lr=tensor\(-1.0\) in group 0"):
        optimizer.step()
    assert param.tolist() == before


def test_released_memory_is_refused():
    param = Parameter(torch.ones(2))
    optimizer = stepped(descend.Adam, [param])
    param.grad.untyped_storage().resize_(0)
    with pytest.raises(descend.errors.GradientError, match="memory of the gradient has been rel"):
        optimizer.step()


@pytest.mark.parametrize("size", [0, 8])
@pytest.mark.parametrize("what", ["parameter", "values", "indices", "state"])
@pytest.mark.parametrize("name", ["SparseAdam", "Adagrad", "SGD"])
def test_memory_that_was_lost_is_refused_with_sparse_gradients_too(name, what, size):
    first, param = (Parameter(torch.ones(20, 20)) for _ in range(2))
    if name == "SGD" and what == "state":
        pytest.skip("plain SGD has none")
    optimizer = getattr(descend, name)([first, param], lr=0.1)
    first.grad, param.grad = (torch.ones(20, 20).to_sparse(1) for _ in range(2))
    optimizer.step()
    optimizer.step()
    lost = {
        "parameter": lambda: param,
        "values": param.grad._values,
        "indices": param.grad._indices,
        "state": lambda: next(v for v in optimizer.state[param].values() if v.dim() == 2),
    }[what]()
    before = first.detach().clone()
    lost.untyped_storage().resize_(size)
    how = "cut off by a smaller storage" if size else "released"
    with pytest.raises(descend.errors.DescendError, match=f"memory.* {how}"):
        optimizer.step()
    assert torch.equal(first, before)


def test_a_rule_without_source_takes_the_eager_path(monkeypatch):
    scope = {}
    exec("def update(param, grad, *, lr):\n    return (param - grad * lr,)", scope)
    update = scope["update"]
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        rule = Rule(update, lambda o, step: {"lr": o["lr"]}, counts_steps=False)

    class Bare(descend.SGD):
        pass

    monkeypatch.setattr(Bare, "rule", rule)
    param = Parameter(torch.ones(2))
    optimizer = stepped(Bare, [param], lr=0.5)
    assert optimizer.explain()[0]["backend"] == "eager"
    assert param.tolist() == [0.5, 0.5]


def test_no_thread_is_left_inside_a_kernel_by_an_exception():
    """An exception on the calling thread waits for the others."""
    running, finished = [], []

    def work():
        running.append(1)
        if len(running) == 1:
            raise TimeoutError("delivered in the middle")
        for _ in range(200_000):
            pass
        finished.append(1)

    with pytest.raises(TimeoutError):
        kernel_threads.together(work, 3)
    assert len(running) == 3
    assert len(finished) == 2


def test_fewer_threads_do_it_where_no_more_are_to_be_had(monkeypatch):
    class Refused:
        def __init__(self, **_):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(kernel_threads, "Thread", Refused)
    monkeypatch.setattr(kernel_threads, "_started", 0)
    calls = []
    kernel_threads.together(lambda: calls.append(1), 4)
    assert calls == [1]


INTERRUPTED = """
import os, signal, threading, time
import torch, descend
torch.set_num_threads(2)
params = [torch.nn.Parameter(torch.zeros(6_000_000)) for _ in range(2)]
optimizer = descend.SGD(params, lr=1.0, clip_norm=1e9)
for param in params:
    param.grad = torch.ones_like(param)
optimizer.step()
caught = 0
for attempt in range(30):
    try:
        threading.Timer(0.001 + 0.0004 * attempt, os.kill, (os.getpid(), signal.SIGINT)).start()
        for _ in range(3):
            optimizer.step()
        time.sleep(0.02)
    except KeyboardInterrupt:
        caught += 1
    before = [param.detach().clone() for param in params]
    assert all(float(param.min()) == float(param.max()) for param in params), "torn"
    time.sleep(0.005)
    assert all(torch.equal(a, b) for a, b in zip(before, params)), "still running"
print(caught)
"""


def test_ctrl_c_during_clipping_leaves_nothing_running():
    done = python("-c", INTERRUPTED, timeout=120)
    assert int(done.stdout) > 10


def test_the_cached_check_depends_on_its_source():
    from descend.engine import native

    text = native.text_of("compiled_check.py", "memory_access.py")
    assert "def check(at: int)" in text
    assert "def loader(" in text


def test_numba_settings_get_kernels_of_their_own(monkeypatch):
    from descend.engine import native

    native._environment.cache_clear()
    plain = native._environment()
    monkeypatch.setenv("NUMBA_OPT", "0")
    native._environment.cache_clear()
    assert native._environment() != plain
    monkeypatch.undo()
    native._environment.cache_clear()


def test_sgd_without_new_state_is_one_uninterruptible_call():
    param = Parameter(torch.ones(8))
    optimizer = stepped(descend.SGD, [param], steps=3, lr=0.1, momentum=0.9)
    plan = optimizer._stepper._plan
    assert not plan.new
    assert [type(batch) for batch in plan.batches] == [cpu.CpuBatch]
    assert plan.batches[0].atomic


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_of_whatever_kind_give_the_same_bits(monkeypatch, count):
    def run():
        param = Parameter(torch.linspace(-1, 1, 200_000))
        optimizer = descend.AdamW([param], lr=0.1, clip_norm=1.0)
        for step in range(5):
            param.grad = torch.cos(param.detach() * (step + 1))
            optimizer.step()
        return param.detach()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        torchs = run()
        calls = []
        monkeypatch.setattr(kernel_threads, "_forked", True)
        together = kernel_threads.together
        monkeypatch.setattr(
            kernel_threads, "together", lambda work, n: (calls.append(n), together(work, n))
        )
        own = run()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torchs, own)
    assert calls == ([] if count == 1 else [count] * 10)  # five norms and five steps


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP is Linux's")
def test_torchs_own_threads_are_found():
    assert kernel_threads._torchs() is not None


def shadowing():
    def sqrt(x):  # noqa: F811
        return x * 0

    def update(param, grad, *, lr):
        return (param - sqrt(lr) * grad,)

    return update


def hiding(param, grad, *, root):  # noqa: F811
    return (param - root(grad),)


@pytest.mark.parametrize("update", [shadowing(), hiding], ids=["around", "argument"])
def test_a_variable_that_hides_a_word_is_not_taken_for_the_word(update):
    """A kernel would have computed a square root where the eager step does not."""
    with pytest.raises(RuleError, match=r"(sqrt|root) is a variable of the function here, or"):
        Rule(update)


def bounded(param, grad, *, largest):
    return (minimum(maximum(param - grad, -largest), largest),)


class Bounded(descend.Optimizer):
    rule = Rule(bounded)

    def __init__(self, params, largest):
        super().__init__(params, {"largest": largest})


def test_bounds_beyond_the_range_of_float32(backend):
    param = Parameter(torch.tensor([1.0, -3e38, 3e38]))
    optimizer = Bounded([param], largest=1e300)
    param.grad = torch.tensor([0.5, 3e38, -3e38])
    optimizer.step()
    assert param.tolist() == [0.5, -math.inf, math.inf]


@pytest.mark.parametrize("cls", [descend.SGD, descend.Adagrad, descend.Lion, descend.Adadelta])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_fraction_is_a_number_on_every_path(cls, dtype):
    """The eager path failed in the middle of a step, after the kernels had updated the rest."""
    results = []
    for lr in (Fraction(1, 4), 0.25):
        params = [Parameter(torch.ones(3)), Parameter(torch.ones(3, dtype=dtype))]
        stepped(cls, params, steps=2, lr=lr)
        results.append(params)
    assert all(map(torch.equal, *results))


def test_an_integer_beyond_all_floats_is_refused_as_a_value():
    with pytest.raises(HyperparameterError, match="lr must be a finite number"):
        descend.SGD([Parameter(torch.ones(2))], lr=10**400)


@pytest.mark.parametrize("value", [1.5, "x", [1.0]])
def test_an_eager_state_replaced_by_no_tensor_is_refused(value):
    param = Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = stepped(descend.NAdam, [param])
    optimizer.state[param]["exp_avg"] = value
    with pytest.raises(StateError, match="must be a tensor"):
        optimizer.step()


def plain(param, grad, *, lr):
    return (param - lr * grad,)


def test_scalars_that_return_no_dict_are_refused_in_words():
    class Listed(descend.Optimizer):
        rule = Rule(plain, lambda options, step: [("lr", 0.1)])

        def __init__(self, params):
            super().__init__(params, {})

    with pytest.raises(RuleError, match="return a dict"):
        Listed([Parameter(torch.ones(2))])


@pytest.mark.parametrize("name", ["step", "mu_product"])
@pytest.mark.parametrize("value", ["x", [1.0], torch.ones(3)], ids=["text", "list", "tensor"])
def test_a_count_replaced_by_no_number_is_refused(name, value):
    param = Parameter(torch.ones(3))
    optimizer = stepped(descend.NAdam, [param])
    optimizer.state[param][name] = value
    with pytest.raises(StateError, match=f"its state '{name}' is .* must be one number"):
        optimizer.step()


def test_numbers_that_cannot_be_had_stop_the_step_before_it_writes():
    def scalars(options, step):
        return {"lr": options["lr"] / (3 - step)}  # fails at the third step

    class Failing(descend.SGD):
        rule = descend.rules.Rule(plain_update, scalars)

    params = [Parameter(torch.ones(2)), Parameter(torch.ones(2, dtype=torch.complex64))]
    optimizer = Failing(params, lr=1.0)
    for _ in range(2):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    before = copy.deepcopy((params, optimizer.state_dict()["state"]))
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    after = (params, optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def plain_update(param, grad, *, lr):
    return (param - grad * lr,)


def test_a_state_of_another_layout_is_refused(backend):
    param = Parameter(torch.ones(2, 2))
    optimizer = stepped(descend.SGD, [param], lr=0.1, momentum=0.9)
    optimizer.state[param]["momentum_buffer"] = torch.ones(2, 2).to_sparse()
    before = param.tolist()
    with pytest.raises(descend.errors.StateError, match="layout"):
        optimizer.step()
    assert param.tolist() == before


@pytest.mark.parametrize("capturable", [False, True])
def test_a_captured_step_must_be_capturable(monkeypatch, capturable):
    param = Parameter(torch.ones(2))
    optimizer = stepped(descend.Adam, [param], capturable=capturable)
    plan = optimizer._stepper._plan
    assert plan.uncaptured == []  # nothing here is on a GPU
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    optimizer.step()
    # As the plan's constructor would, for a parameter there.
    if not capturable:
        plan.uncaptured.append(plan.batches[0].members[0])
        before = param.tolist()
        with pytest.raises(RuntimeError, match="capturable=True"):
            optimizer.step()
        assert param.tolist() == before


@pytest.mark.parametrize("given", [torch.tensor, np.array, list, tuple])
def test_two_numbers_may_come_in_anything_that_holds_two(given):
    results = []
    for betas in ((0.5, 0.75), given([0.5, 0.75])):
        param = Parameter(torch.ones(2))
        optimizer = stepped(descend.AdamW, [param], lr=0.1, betas=betas)
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        results.append(param.tolist())
    assert results[0] == results[1]


def test_a_group_with_a_learning_rate_is_told_of_lr():
    param = Parameter(torch.ones(2))
    words = "no 'learning_rate' in group 0; did you mean lr"
    with pytest.raises(descend.errors.HyperparameterError, match=words):
        descend.AdamW([{"params": [param], "learning_rate": 1.0}])
    descend.AdamW([{"params": [param], "lr_scale": 1.0, "wd": 1.0}])  # keys of the user's own
