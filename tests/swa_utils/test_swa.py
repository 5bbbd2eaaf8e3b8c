"""Averaged models, batch norm statistics and SWALR, beside torch's and where torch's are wrong."""

import collections
import copy
import doctest
import inspect
import io
import itertools
import math
import pickle
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim import swa_utils as theirs

import descend
from descend import lr_scheduler as our_schedulers
from descend import swa_utils as ours
from descend.errors import (
    ConflictError,
    DataError,
    HyperparameterError,
    ParameterError,
    ParameterTypeError,
    ScheduleError,
    ScheduleTypeError,
    StateError,
)

# The lrs are what is tested, so no optimizer steps.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")

NAMES = [
    name for name in vars(ours) if inspect.isclass(vars(ours)[name]) or name.startswith("get_")
]
NAMES.append("update_bn")


class Odd(nn.Module):
    """Every kind of tensor that a model may hold."""

    def __init__(self, dtype=torch.float32, whole=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=dtype))
        self.tied = self.weight
        self.frozen = nn.Parameter(torch.randn(5, dtype=dtype), requires_grad=False)
        self.empty = nn.Parameter(torch.zeros(0, 3, dtype=dtype))
        self.scalar = nn.Parameter(torch.randn((), dtype=dtype))
        self.turned = nn.Parameter(torch.randn(3, 4, dtype=dtype).t())
        self.inner = nn.Sequential(nn.Linear(2, 2, dtype=dtype), nn.Linear(2, 2, dtype=dtype))
        self.single = nn.Parameter(torch.randn(3))
        self.register_buffer("running", torch.randn(3, dtype=dtype))
        if whole:
            self.register_buffer("counted", torch.arange(-3, 4))
        self.register_buffer("unsaved", torch.randn(2), persistent=False)
        self.register_buffer("none", None)

    def move(self, round):
        """Other values, as training would give; the whole numbers stay small."""
        torch.manual_seed(round)
        with torch.no_grad():
            for tensor in itertools.chain(self.parameters(), self.buffers()):
                if tensor.is_floating_point() or tensor.is_complex():
                    tensor.add_(torch.randn_like(tensor) * 0.3)
                else:
                    tensor.add_(torch.randint(-4, 8, tensor.shape))


# How the same averages are asked for, of torch's module and of descend's.
AVERAGES = {
    "equal": lambda module: {},
    "equal avg_fn": lambda module: {"avg_fn": module.get_swa_avg_fn()},
    "equal multi_avg_fn": lambda module: {"multi_avg_fn": module.get_swa_multi_avg_fn()},
    "ema avg_fn": lambda module: {"avg_fn": module.get_ema_avg_fn(0.75)},
    "ema multi_avg_fn": lambda module: {"multi_avg_fn": module.get_ema_multi_avg_fn(0.75)},
}
# A rounding of each update stays in the average; both sides round, torch's more often.
ROUNDING = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.float16: 6e-3,
    torch.bfloat16: 5e-2,
    torch.complex64: 2e-6,
    torch.complex128: 1e-13,
}


def same(left, right, **tolerance):
    """Two states agree in names and values; raises."""
    assert list(left) == list(right)
    for name in left:
        torch.testing.assert_close(
            left[name], right[name], msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


def values(model):
    return {
        name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_averages_are_torchs(dtype, kind, use_buffers):
    torch.manual_seed(0)
    refused = kind == "equal multi_avg_fn" and use_buffers  # torch's fails at whole numbers
    model = Odd(dtype, whole=not refused)
    left = theirs.AveragedModel(model, use_buffers=use_buffers, **AVERAGES[kind](theirs))
    right = ours.AveragedModel(model, use_buffers=use_buffers, **AVERAGES[kind](ours))
    assert isinstance(right, theirs.AveragedModel)
    assert right.module.tied is right.module.weight
    for round in range(20):
        model.move(round)
        left.update_parameters(model)
        right.update_parameters(model)
    for left_values, right_values in (
        (values(left), values(right)),
        (left.state_dict(), right.state_dict()),
    ):
        assert list(left_values) == list(right_values)
        for name, expected in left_values.items():
            if not (expected.is_floating_point() or expected.is_complex()) and use_buffers:
                continue  # torch cuts them off
            tolerance = ROUNDING.get(expected.dtype, 0)
            if kind == "equal multi_avg_fn":  # where torch's weight is a float32
                tolerance = max(tolerance, 1e-7)
            found = right_values[name]
            if expected.dtype in (torch.float16, torch.bfloat16) and (
                use_buffers or name.rpartition(".")[2] != "running"
            ):
                assert found.dtype is torch.float32
                found = found.to(expected.dtype)
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert right.n_averaged.item() == 20
    assert right.module.turned.stride() == model.turned.stride()
    assert not right.module.frozen.requires_grad
    assert right.module.single.dtype is torch.float32


@pytest.mark.parametrize("use_buffers", [False, True])
def test_ema_is_the_average_that_its_formula_says(use_buffers):
    torch.manual_seed(0)
    model = Odd(torch.float64)
    ema = ours.EMA(model, 0.9, use_buffers=use_buffers)
    weight, buffer = [], []
    for round in range(10):
        model.move(round)
        weight.append(model.weight.detach().clone())
        buffer.append(model.running.clone())
        ema.update_parameters(model)
    expected = weight[0]
    for value in weight[1:]:
        expected = 0.9 * expected + 0.1 * value
    torch.testing.assert_close(ema.module.weight, nn.Parameter(expected))
    if use_buffers:
        expected = buffer[0]
        for value in buffer[1:]:
            expected = 0.9 * expected + 0.1 * value
        torch.testing.assert_close(ema.module.running, expected)
    else:
        assert torch.equal(ema.module.running, buffer[-1])
        assert torch.equal(ema.module.counted, model.counted)


def test_decay_of_an_ema_may_be_set():
    model = nn.Linear(1, 1, bias=False)
    ema = ours.EMA(model, decay=0.5)
    assert ema.decay == 0.5
    ema.decay = 0.75
    for value in (0.0, 1.0):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
    assert (ema.decay, ema.module.weight.item()) == (0.75, 0.25)
    with pytest.raises(HyperparameterError):
        ema.decay = 2.0
    assert ema.decay == 0.75


def test_equal_weights_are_the_mean():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    averaged = ours.AveragedModel(model, multi_avg_fn=ours.get_swa_multi_avg_fn())
    seen = []
    for _ in range(40):
        nn.init.normal_(model.weight)
        seen.append(model.weight.detach().clone())
        averaged.update_parameters(model)
    # torch's `get_swa_multi_avg_fn` has its weights from float32, and is 1e-8 away.
    torch.testing.assert_close(
        averaged.module.weight.detach(), torch.stack(seen).mean(0), rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_nearer_to_the_truth_than_torchs(dtype):
    torch.manual_seed(0)
    model = nn.Linear(200, 20).to(dtype)
    left, right, seen = theirs.AveragedModel(model), ours.AveragedModel(model), []
    for _ in range(100):
        nn.init.normal_(model.weight, mean=1.0)
        seen.append(model.weight.detach().double())
        for averaged in (left, right):
            averaged.update_parameters(model)
    truth = torch.stack(seen).mean(0)
    error = {a: (a.module.weight.double() - truth).norm().item() for a in (left, right)}
    assert error[right] < 1e-3 * error[left]
    assert right.module.weight.dtype is torch.float32


@pytest.mark.parametrize("kind", AVERAGES)
def test_average_may_have_another_precision_than_the_model(kind):
    torch.manual_seed(0)
    model = nn.BatchNorm1d(3)
    averaged = ours.AveragedModel(model, use_buffers=True, **AVERAGES[kind](ours)).double()
    same_precision = ours.AveragedModel(model, use_buffers=True, **AVERAGES[kind](ours))
    for _ in range(5):
        nn.init.normal_(model.weight)
        model(torch.randn(4, 3))
        averaged.update_parameters(model)
        same_precision.update_parameters(model)
    assert averaged.module.running_mean.dtype is torch.float64
    same(values(averaged.float()), values(same_precision), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", AVERAGES)
def test_whole_numbers_that_stand_still_stay(kind):
    # torch's `get_ema_multi_avg_fn(0.9)` turns an index of 3 into 2, and then into 1.
    model = nn.Module()
    model.register_buffer("index", torch.tensor([*range(3000), 2**24 + 1, 2**53]))
    model.register_buffer("bytes", torch.arange(256, dtype=torch.uint8))
    functions = {
        "ema avg_fn": {"avg_fn": ours.get_ema_avg_fn(0.9)},
        "ema multi_avg_fn": {"multi_avg_fn": ours.get_ema_multi_avg_fn(0.9)},
    }
    chosen = functions.get(kind) or AVERAGES[kind](ours)
    averaged = ours.AveragedModel(model, use_buffers=True, **chosen)
    for _ in range(10):
        averaged.update_parameters(model)
    assert torch.equal(averaged.module.index, model.index)
    assert torch.equal(averaged.module.bytes, model.bytes)


def test_whole_numbers_are_the_exact_mean_rounded():
    model = nn.Module()
    model.register_buffer("number", torch.tensor(0))
    model.register_buffer("byte", torch.tensor(200, dtype=torch.uint8))
    averaged = ours.AveragedModel(model, use_buffers=True)
    averaged.update_parameters(model)
    expected = 0
    for count in range(1, 200):
        model.number.fill_(count * count - 3000)
        averaged.update_parameters(model)
        expected = round(expected + Fraction(count * count - 3000 - expected, count + 1))
        assert averaged.module.number.item() == expected
    model.byte.fill_(100)
    averaged.n_averaged.fill_(1)
    averaged.update_parameters(model)
    assert averaged.module.byte.item() == 150  # torch's is 22: 100 - 200 is 156 in bytes


@pytest.mark.parametrize("kind", AVERAGES)
def test_booleans_are_copied(kind):
    # torch's fails at them, or holds on to each True that ever was.
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([True, False]))
    averaged = ours.AveragedModel(model, use_buffers=True, **AVERAGES[kind](ours))
    averaged.update_parameters(model)
    model.mask.logical_not_()
    averaged.update_parameters(model)
    assert averaged.module.mask.tolist() == [False, True]


@pytest.mark.parametrize("make", ["avg_fn", "multi_avg_fn"])
def test_own_functions_get_what_torchs_get(make):
    torch.manual_seed(0)
    model = Odd()
    calls = {}

    def recording(side):
        def note(average, current, count):
            tensors = (
                [average, current] if isinstance(average, torch.Tensor) else [*average, *current]
            )
            assert type(count) is torch.Tensor
            calls.setdefault(side, []).append(
                (count.item(), [(type(t), t.requires_grad, t.dtype, t.clone()) for t in tensors])
            )

        def one(average, current, count):
            note(average, current, count)
            return (average + current) / 2

        def many(averages, currents, count):
            note(averages, currents, count)
            for average, current in zip(averages, currents, strict=True):
                average.copy_((average + current) / 2)

        return {make: one if make == "avg_fn" else many}

    left = theirs.AveragedModel(model, use_buffers=True, **recording("left"))
    right = ours.AveragedModel(model, use_buffers=True, **recording("right"))
    for round in range(3):
        model.move(round)
        left.update_parameters(model)
        right.update_parameters(model)
    same(values(left), values(right))
    key = lambda call: (call[0], str(call[1][0][2]), len(call[1]))  # noqa: E731
    if make == "multi_avg_fn":  # torch calls the dtypes in any order
        calls = {side: sorted(made, key=key) for side, made in calls.items()}
    for (count, tensors), (other_count, others) in zip(*calls.values(), strict=True):
        assert count == other_count
        for (*kind, value), (*other_kind, other_value) in zip(tensors, others, strict=True):
            assert kind == other_kind
            assert torch.equal(value, other_value)


def test_functions_alone_are_torchs():
    torch.manual_seed(0)
    average, current = torch.randn(5), torch.randn(5)
    for count in (3, torch.tensor(3)):
        for name in ("get_swa_avg_fn", "get_ema_avg_fn"):
            left, right = getattr(theirs, name)(), getattr(ours, name)()
            torch.testing.assert_close(
                left(average, current, count), right(average, current, count)
            )
        for name in ("get_swa_multi_avg_fn", "get_ema_multi_avg_fn"):
            pair = [average.clone()], [average.clone()]
            getattr(theirs, name)()(pair[0], [current], count)
            getattr(ours, name)()(pair[1], [current], count)
            torch.testing.assert_close(*pair)
    # 49 * (1 / 49) is below 1.
    assert ours.get_swa_avg_fn()(torch.tensor(0), torch.tensor(49), 48).item() == 1.0
    ours.get_swa_multi_avg_fn()([], [], 1)
    ours.get_ema_multi_avg_fn()([], [], 1)


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan, "0.9", None, True])
@pytest.mark.parametrize("make", [ours.get_ema_avg_fn, ours.get_ema_multi_avg_fn])
def test_decay_out_of_range_is_refused(make, decay):
    with pytest.raises(HyperparameterError, match="decay must be a finite number from 0 to 1"):
        make(decay)
    with pytest.raises(HyperparameterError):
        ours.EMA(nn.Linear(1, 1), decay)


@pytest.mark.parametrize("decay", [0, 1, 0.5])
def test_ends_of_the_range_of_decay(decay):
    model = nn.Linear(1, 1, bias=False)
    ema = ours.EMA(model, decay)
    for value in (0.0, 1.0):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
    assert ema.module.weight.item() == 1 - decay


# State


@pytest.mark.parametrize("use_buffers", [False, True])
def test_state_goes_both_ways(use_buffers):
    torch.manual_seed(0)
    model = Odd(whole=not use_buffers)  # torch cuts off the averages of whole numbers
    left, right = (m.AveragedModel(model, use_buffers=use_buffers) for m in (theirs, ours))
    for round in range(4):
        model.move(round)
        left.update_parameters(model)
        right.update_parameters(model)
    other_left, other_right = (
        m.AveragedModel(model, use_buffers=use_buffers) for m in (theirs, ours)
    )
    other_left.load_state_dict(right.state_dict())
    other_right.load_state_dict(left.state_dict())
    assert other_right.n_averaged.item() == 4
    model.move(9)
    for averaged in (left, right, other_left, other_right):
        averaged.update_parameters(model)
    for averaged in (right, other_left, other_right):
        same(left.state_dict(), averaged.state_dict(), rtol=1e-5, atol=1e-6)


class OnDevice(torch.Tensor):
    """A counter that is on a GPU, as far as anyone can tell, and says when it is read."""

    reads = 0
    is_cpu = property(lambda self: False)

    def __int__(self):
        OnDevice.reads += 1
        return super().__int__()

    def __float__(self):
        OnDevice.reads += 1
        return super().__float__()

    @classmethod
    def of_version(cls, number, version):
        tensor = torch.tensor(number).as_subclass(cls)
        while tensor._version < version:
            tensor.add_(0)
        return tensor


@pytest.mark.parametrize("kind", [kind for kind in AVERAGES if "ema" not in kind])
def test_count_is_read_from_the_device_only_if_somebody_else_has_set_it(kind):
    model = nn.Linear(1, 1, bias=False)
    averaged = ours.AveragedModel(model, **AVERAGES[kind](ours))
    counter = averaged.n_averaged = averaged.n_averaged.as_subclass(OnDevice)
    OnDevice.reads = 0
    for value in (3.0, 3.0, 3.0):
        nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
    assert (OnDevice.reads, averaged.n_averaged.item()) == (1, 3)
    assert averaged.n_averaged is counter
    for set_it in (
        lambda: averaged.n_averaged.fill_(1),
        lambda: averaged.load_state_dict({**averaged.state_dict(), "n_averaged": torch.tensor(1)}),
        lambda: setattr(averaged, "n_averaged", OnDevice.of_version(1, counter._version)),
    ):
        set_it()
        OnDevice.reads = 0
        nn.init.constant_(averaged.module.weight, 0.0)
        averaged.update_parameters(model)
        assert averaged.module.weight.item() == 1.5
        averaged.update_parameters(model)
        assert (OnDevice.reads, averaged.n_averaged.item()) == (1, 3)


def test_count_begins_again_when_it_is_set_to_nothing():
    model = nn.Linear(1, 1, bias=False)
    averaged = ours.AveragedModel(model)
    for value in (1.0, 2.0):
        nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
    averaged.n_averaged.zero_()
    averaged.update_parameters(model)
    assert (averaged.module.weight.item(), averaged.n_averaged.item()) == (2.0, 1)


def test_models_with_their_functions_can_be_pickled_and_copied():
    # A model with torch's get_ema_multi_avg_fn() cannot be pickled.
    model = nn.Linear(2, 2)
    for averaged in (
        ours.EMA(model, 0.5),
        *(ours.AveragedModel(model, **make(ours)) for make in AVERAGES.values()),
    ):
        averaged.update_parameters(model)
        file = io.BytesIO()
        torch.save(averaged, file)
        file.seek(0)
        copies = (
            copy.deepcopy(averaged),
            pickle.loads(pickle.dumps(averaged)),
            torch.load(file, weights_only=False),
        )
        nn.init.normal_(model.weight)
        averaged.update_parameters(model)
        for twin in copies:
            twin.update_parameters(model)
            same(averaged.state_dict(), twin.state_dict())
            assert type(twin) is type(averaged)


# Models


class Wrapper(nn.Module):
    def __init__(self, model, name):
        super().__init__()
        setattr(self, name, model)


@pytest.mark.parametrize("name", ["module", "_orig_mod", "backbone"])
def test_model_may_be_wrapped(name):
    model = Odd()
    for inner, outer in ((model, Wrapper(model, name)), (Wrapper(model, name), model)):
        averaged = ours.AveragedModel(inner)
        averaged.update_parameters(outer)
        model.move(1)
        averaged.update_parameters(outer)
        assert averaged.n_averaged.item() == 2


def changed(change):
    torch.manual_seed(1)
    model = Odd()
    change(model)
    return model


def replaced(name, tensor):
    return lambda model: setattr(model, name, nn.Parameter(tensor))


def with_buffer(name, tensor):
    return lambda model: model.register_buffer(name, tensor)


MISFITS = {
    "one parameter more": (
        lambda model: model.register_parameter("extra", nn.Parameter(torch.ones(1))),
        r"has 11 parameters, and the averaged one 10; only the model has 'extra'; an average is",
    ),
    "one parameter less": (
        lambda model: delattr(model, "frozen"),
        r"has 9 parameters, and the averaged one 10; only the averaged one has 'frozen'",
    ),
    "untied": (replaced("tied", torch.ones(4, 3)), r"only the model has 'tied'"),
    "another shape": (
        replaced("frozen", torch.ones(1)),  # which torch's would spread over the five
        r"parameter 'frozen' is float32 of shape \(1,\) in the model, and 'frozen' in the averaged",
    ),
    "another kind of number": (
        replaced("frozen", torch.ones(5, dtype=torch.complex64)),
        r"'frozen' is complex64 of shape \(5,\) in the model, .* float32 of shape \(5,\)",
    ),
    "a buffer that came later": (
        with_buffer("none", torch.ones(2)),
        r"has 4 buffers, and the averaged one 3; only the model has 'none'; .* all its buffers",
    ),
    "many other names": (
        lambda model: [with_buffer(f"late{index}", torch.ones(1))(model) for index in range(5)],
        r"only the model has 'late0', 'late1', 'late2' and 2 more",
    ),
    "a buffer of another shape": (with_buffer("running", torch.ones(4)), r"buffer 'running'"),
    "a buffer of another kind": (with_buffer("counted", torch.ones(7)), r"buffer 'counted'"),
    "complex in place of whole numbers": (
        with_buffer("counted", torch.ones(7, dtype=torch.complex64)),
        r"'counted' is complex64",
    ),
    "a mask in place of numbers": (
        with_buffer("counted", torch.ones(7, dtype=torch.bool)),
        r"'counted' is bool",
    ),
}


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("misfit", MISFITS)
def test_another_model_is_refused_and_nothing_changes(misfit, use_buffers):
    change, message = MISFITS[misfit]
    torch.manual_seed(0)
    averaged = ours.AveragedModel(Odd(), use_buffers=use_buffers)
    other = changed(change)
    for _ in range(2):
        before = values(averaged)
        with pytest.raises(ParameterError, match=message):
            averaged.update_parameters(other)
        same(before, values(averaged), rtol=0, atol=0)
        averaged.update_parameters(changed(lambda model: None))
    assert averaged.n_averaged.item() == 2


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_same_names_in_another_order_are_refused(kind):
    def model(names):
        module = nn.Module()
        for name in names:
            if kind == "parameter":
                module.register_parameter(name, nn.Parameter(torch.zeros(2)))
            else:
                module.register_buffer(name, torch.zeros(2))
        return module

    averaged = ours.AveragedModel(model("abc"))
    averaged.update_parameters(model("abc"))
    averaged.update_parameters(Wrapper(model("abc"), "module"))
    averaged.update_parameters(model("xyz"))
    for other in (model("acb"), Wrapper(model("acb"), "module")):
        with pytest.raises(
            ParameterError, match=f"{kind}s .* another order .* 1 is 'c' there and 'b'"
        ):
            averaged.update_parameters(other)
    assert averaged.n_averaged.item() == 3


def test_layers_without_a_shape_are_named():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    averaged = ours.AveragedModel(model)
    with pytest.raises(ParameterError, match=r"'1.weight' of the averaged model has no shape yet"):
        averaged.update_parameters(model)
    model(torch.ones(1, 3))
    with pytest.raises(ParameterError, match=r"'1.weight' of the averaged model has no shape yet"):
        averaged.update_parameters(model)
    averaged(torch.ones(1, 3))
    averaged.update_parameters(model)
    assert torch.equal(averaged.module[1].weight, model[1].weight)


def test_what_is_no_module_is_refused():
    model = nn.Linear(1, 1)
    for other in (None, {}, [model], model.state_dict()):
        with pytest.raises(ParameterTypeError, match="Module"):
            ours.AveragedModel(other)
        with pytest.raises(ParameterTypeError, match="Module"):
            ours.AveragedModel(model).update_parameters(other)
        with pytest.raises(ParameterTypeError, match="Module"):
            ours.update_bn([], other)


def test_two_functions_are_refused():
    with pytest.raises(ConflictError, match="avg_fn and multi_avg_fn are both given"):
        ours.AveragedModel(
            nn.Linear(1, 1),
            avg_fn=ours.get_swa_avg_fn(),
            multi_avg_fn=ours.get_swa_multi_avg_fn(),
        )


@pytest.mark.parametrize("make", ["avg_fn", "multi_avg_fn"])
def test_count_stays_if_an_own_function_raises(make):
    def fail(*_):
        raise RuntimeError("mine")

    model = nn.BatchNorm1d(2)
    averaged = ours.AveragedModel(model, **{make: fail})
    averaged.update_parameters(model)
    model.running_mean.add_(1)
    before = values(averaged)
    with pytest.raises(RuntimeError, match="mine"):
        averaged.update_parameters(model)
    same(before, values(averaged), rtol=0, atol=0)


class NoLists(torch.Tensor):
    """A tensor of a type that knows no operation on lists."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if "_foreach" in function.__name__ or "lerp" in function.__name__:
            raise NotImplementedError(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})

    def __deepcopy__(self, memo):
        return nn.Parameter(self.detach().clone().as_subclass(NoLists))


@pytest.mark.parametrize("kind", AVERAGES)
def test_tensors_of_other_types_are_averaged_one_by_one(kind):
    model, simple = nn.Module(), nn.Module()
    model.weight = nn.Parameter(torch.zeros(2).as_subclass(NoLists))
    simple.weight = nn.Parameter(torch.zeros(2))
    averaged = ours.AveragedModel(model, **AVERAGES[kind](ours))
    expected = ours.AveragedModel(simple, **AVERAGES[kind](ours))
    assert type(averaged.module.weight) is NoLists
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
            simple.weight.fill_(value)
        averaged.update_parameters(model)
        expected.update_parameters(simple)
    assert averaged.module.weight.tolist() == pytest.approx(expected.module.weight.tolist())


def test_model_is_copied_and_answers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model.eval()
    averaged = ours.AveragedModel(model, torch.device("cpu"))
    batch = torch.randn(3, 2)
    assert torch.equal(averaged(batch), model(batch))
    nn.init.zeros_(model[0].weight)
    assert averaged.module[0].weight.abs().sum() > 0
    assert averaged.module.training is False
    assert averaged.n_averaged.dtype is torch.long


def test_average_lies_on_its_device():
    averaged = ours.AveragedModel(nn.Linear(1, 1), device="meta")
    assert averaged.module.weight.is_meta
    assert averaged.n_averaged.is_meta


def test_gradients_and_saved_tensors_are_left_alone():
    model = nn.Linear(2, 1)
    averaged = ours.EMA(model, 0.5)
    averaged.update_parameters(model)
    averaged(torch.ones(1, 2)).sum().backward()
    averaged.update_parameters(model)
    assert averaged.module.weight.requires_grad
    assert averaged.module.weight.grad_fn is None
    assert model.weight.grad is None


@pytest.mark.gpu
@pytest.mark.parametrize("kind", AVERAGES)
def test_update_on_a_gpu_waits_for_nothing(kind):
    torch.manual_seed(0)
    model = Odd(whole=False).cuda()
    left = theirs.AveragedModel(model, device="cuda", use_buffers=True, **AVERAGES[kind](theirs))
    right = ours.AveragedModel(model, device="cuda", use_buffers=True, **AVERAGES[kind](ours))
    for round in range(5):
        model.move(round)
        left.update_parameters(model)
        torch.cuda.set_sync_debug_mode("error" if round else "default")
        try:
            right.update_parameters(model)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    same(left.state_dict(), right.state_dict(), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_average_of_a_gpu_model_may_be_kept_on_the_cpu():
    model = Odd().cuda()
    averaged = ours.AveragedModel(model, device="cpu")
    for round in range(3):
        model.move(round)
        averaged.update_parameters(model)
    assert averaged.module.weight.device.type == "cpu"
    assert averaged.n_averaged.item() == 3


# update_bn


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
        nn.BatchNorm1d(3, momentum=None),
    )


def batches(count=3):
    torch.manual_seed(1)
    return [torch.randn(5 - index, 1, 4, 4) * (index + 1) for index in range(count)]


@pytest.mark.parametrize("form", ["tensors", "pairs", "lists", "generator"])
@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_statistics_of_batch_norm_are_torchs(form, device):
    def loader():
        wrap = {"pairs": lambda b: (b, 0), "lists": lambda b: [b, 0]}.get(form, lambda b: b)
        made = (wrap(batch) for batch in batches())
        return made if form == "generator" else list(made)

    left, right = network(), network()
    left(batches()[0])
    right(batches()[0])
    left.eval()
    right.eval()
    theirs.update_bn(loader(), left, device)
    ours.update_bn(loader(), right, device)
    same(left.state_dict(), right.state_dict(), rtol=0, atol=0)
    assert [m.momentum for m in right if hasattr(m, "momentum")] == [0.1, None]
    assert not right.training


def test_modes_of_all_modules_are_what_they_were():
    model = network()
    model.train()
    model[1].eval()  # a frozen layer, which torch's update_bn leaves in training mode
    modes = [module.training for module in model.modules()]
    ours.update_bn(batches(), model)
    assert [module.training for module in model.modules()] == modes


def failing(kind):
    if kind == "in the loader":
        yield batches()[0]
        raise OSError("disk")
    if kind == "in the model":
        yield batches()[0]
        yield torch.ones(1, 2, 3)
    if kind == "dicts":
        yield {"x": batches()[0]}


@pytest.mark.parametrize("kind", ["in the loader", "in the model", "dicts", "no batch"])
def test_statistics_modes_and_momenta_are_what_they_were_if_it_fails(kind):
    # torch's leaves the momenta None, the mode changed and the statistics forgotten.
    model = network()
    model(batches()[1])
    model.eval()
    model[1].train()
    before = values(model)
    modes = [module.training for module in model.modules()]
    expected = {"in the loader": OSError, "no batch": DataError}.get(kind, Exception)
    with pytest.raises(expected):
        ours.update_bn(failing(kind), model)
    same(before, values(model), rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert [m.momentum for m in model if hasattr(m, "momentum")] == [0.1, None]


def test_no_batch_is_named():
    used = iter(batches())
    list(used)
    with pytest.raises(DataError, match=r"gave no batch.* a generator can be walked only once"):
        ours.update_bn(used, network())


def test_loader_is_left_alone_without_batch_norm():
    def loader():
        raise AssertionError
        yield

    ours.update_bn(loader(), nn.Linear(1, 1))


def test_layers_without_statistics_and_lazy_ones():
    model = nn.Sequential(nn.LazyBatchNorm1d(), nn.BatchNorm1d(2, track_running_stats=False))
    ours.update_bn([torch.tensor([[0.0, 1.0], [2.0, 3.0]])], model)
    assert model[0].running_mean.tolist() == [1.0, 2.0]
    assert model[1].running_mean is None


class Elsewhere:
    """What becomes a tensor only where the model is."""

    def to(self, device):
        assert device == "cpu"
        return torch.tensor([[0.0], [2.0]])


Pair = collections.namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    ("batch", "find"),
    [
        ({"x": (Elsewhere(), "name")}, lambda batch: batch["x"][0]),
        (((Elsewhere(), 1), 0), lambda batch: batch[0]),
        ([[1, Elsewhere()], 0], lambda batch: batch[1]),
        ({"x": Pair(Elsewhere(), 1)}, lambda batch: batch["x"].x),
        ((Elsewhere(), 0), lambda batch: batch),
    ],
)
def test_model_may_take_dicts_and_nested_batches(batch, find):
    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, batch):
            return self.norm(find(batch))

    model = Takes()
    ours.update_bn([batch], model, device="cpu")
    assert model.norm.running_mean.item() == 1.0


def test_statistics_of_an_averaged_model():
    model = network()
    left, right = theirs.AveragedModel(model), ours.AveragedModel(model)
    for _ in range(3):
        nn.init.normal_(model[0].weight)
        left.update_parameters(model)
        right.update_parameters(model)
    theirs.update_bn(batches(), left)
    ours.update_bn(batches(), right)
    same(left.state_dict(), right.state_dict(), rtol=1e-5, atol=1e-6)


# SWALR

KINDS = [
    {},
    {"anneal_strategy": "linear"},
    {"anneal_epochs": 4},
    {"anneal_epochs": 1},
    {"anneal_epochs": 3, "anneal_strategy": "linear"},
]
EPOCHS, START = 20, 6
SCHEDULERS = {
    "LambdaLR": lambda module, opt: module.LambdaLR(opt, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda module, opt: module.MultiplicativeLR(opt, lambda epoch: 0.95),
    "StepLR": lambda module, opt: module.StepLR(opt, 2),
    "LinearLR": lambda module, opt: module.LinearLR(opt, 0.5, 1.0, 4),
    "ExponentialLR": lambda module, opt: module.ExponentialLR(opt, 0.9),
    "CosineAnnealingLR": lambda module, opt: module.CosineAnnealingLR(opt, 20),
    "CosineAnnealingWarmRestarts": lambda module, opt: module.CosineAnnealingWarmRestarts(opt, 5),
    "OneCycleLR": lambda module, opt: module.OneCycleLR(opt, [2.0, 3.0], 30),
    "CyclicLR": lambda module, opt: module.CyclicLR(opt, 0.1, 0.9, 4),
}
TARGETS = [0.05, [0.05, 0.2]]


def optimizer(make=torch.optim.SGD, lrs=(1.0, 0.3)):
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in lrs]
    return make(groups, lr=1.0, momentum=0.9)


def lrs_of(opt):
    return [float(group["lr"]) for group in opt.param_groups]


def trained(opt, scheduler, swa, first=0, last=EPOCHS):
    """The lr of each epoch, in the pattern of torch's documentation."""
    seen = []
    for epoch in range(first, last):
        seen.append(lrs_of(opt))
        (swa if epoch > START else scheduler).step()
    return seen


def close(left, right, tolerance=1e-12):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=1e-15)


def both(module, swalr, name, order, target, options, make=torch.optim.SGD):
    opt = optimizer(make)
    if order == "swa first":
        swa = swalr(opt, target, **options)
        return opt, SCHEDULERS[name](module, opt), swa
    scheduler = SCHEDULERS[name](module, opt)
    return opt, scheduler, swalr(opt, target, **options)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("make", [torch.optim.SGD, descend.SGD])
def test_lrs_are_torchs(options, target, make):
    left, right = optimizer(make), optimizer(make)
    theirs_alone, ours_alone = (
        theirs.SWALR(left, target, **options),
        ours.SWALR(right, target, **options),
    )
    expected, preview = [], ours_alone.preview(EPOCHS)
    seen = []
    for _ in range(EPOCHS):
        expected.append(lrs_of(left))
        seen.append(lrs_of(right))
        assert ours_alone.get_last_lr() == seen[-1]
        theirs_alone.step()
        ours_alone.step()
    close(expected, seen)
    close(expected, preview["lr"])
    assert [group["swa_lr"] for group in right.param_groups] == [
        group["swa_lr"] for group in left.param_groups
    ]
    ours_alone.seek(2)
    close([expected[2]], [lrs_of(right)])


def test_no_epochs_is_at_once():
    for module in (theirs, ours):
        opt = optimizer()
        scheduler = module.SWALR(opt, [0.05, 0.2], anneal_epochs=0)
        for _ in range(3):
            assert lrs_of(opt) == [0.05, 0.2]
            scheduler.step()


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("order", ["swa first", "swa last"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_pattern_gives_torchs_lrs(name, order, options):
    for target in TARGETS:
        expected = trained(*both(torch_schedulers, theirs.SWALR, name, order, target, options))
        beside_theirs = trained(*both(torch_schedulers, ours.SWALR, name, order, target, options))
        close(expected, beside_theirs)
        if name == "CyclicLR" and order == "swa first":
            # built after another, torch's takes the lr that it finds for the one at the bottom
            expected = trained(
                *both(torch_schedulers, theirs.SWALR, name, "swa last", target, options)
            )
        for make in (torch.optim.SGD, descend.SGD):
            seen = trained(*both(our_schedulers, ours.SWALR, name, order, target, options, make))
            close(expected, seen)


@pytest.mark.parametrize("order", ["swa first", "swa last"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_pattern_without_annealing_jumps_where_averaging_begins(name, order):
    # torch's jumps when it is built, and most of its schedulers go on from there.
    alone = optimizer()
    scheduler = SCHEDULERS[name](our_schedulers, alone)
    expected = trained(alone, scheduler, scheduler, last=START + 2)
    expected += [[0.05, 0.2]] * (EPOCHS - START - 2)
    options = {"anneal_epochs": 0}
    close(expected, trained(*both(our_schedulers, ours.SWALR, name, order, [0.05, 0.2], options)))


def orders(torchs):
    """Every order of building and loading an optimizer, a scheduler and a SWALR."""
    words = ("build scheduler", "build swa", "load optimizer", "load scheduler", "load swa")
    for order in itertools.permutations(words):
        place = order.index
        if place("build scheduler") > place("load scheduler") or place("build swa") > place(
            "load swa"
        ):
            continue
        if torchs and place("build scheduler") > place("load optimizer"):
            continue  # a scheduler of torch that is built after the load spoils the lr
        yield order


@pytest.mark.parametrize("at", [0, 3, START + 1, START + 2, 15])
@pytest.mark.parametrize("name", ["ExponentialLR", "LinearLR", "OneCycleLR"])
@pytest.mark.parametrize("module", [torch_schedulers, our_schedulers], ids=["torch's", "descend's"])
def test_p20_any_order_of_building_and_loading_goes_on(module, name, at):
    arguments = (module, ours.SWALR, name, "swa last", [0.05, 0.2], {})
    opt, scheduler, swa = both(*arguments)
    trained(opt, scheduler, swa, last=at)
    for first in ("optimizer", "schedulers"):
        states = {}
        for kind in (
            ("optimizer", "schedulers") if first == "optimizer" else ("schedulers", "optimizer")
        ):
            if kind == "optimizer":
                states["optimizer"] = copy.deepcopy(opt.state_dict())
            else:
                states["swa"] = pickle.loads(pickle.dumps(swa.state_dict()))
                states["scheduler"] = copy.deepcopy(scheduler.state_dict())
        for order in orders(module is torch_schedulers):
            parts = {"optimizer": optimizer()}
            for word in order:
                verb, part = word.split()
                if verb == "load":
                    parts[part].load_state_dict(copy.deepcopy(states[part]))
                elif part == "swa":
                    parts[part] = ours.SWALR(parts["optimizer"], [0.05, 0.2])
                else:
                    parts[part] = SCHEDULERS[name](module, parts["optimizer"])
            seen = trained(parts["optimizer"], parts["scheduler"], parts["swa"], first=at)
            expected = trained(*both(*arguments))[at:]
            for one, other in zip(expected, seen, strict=True):
                assert one == pytest.approx(other, rel=1e-9), (order, first)


@pytest.mark.parametrize("at", [0, 3, START + 1, START + 3, 15, 19])
@pytest.mark.parametrize("name", ["ExponentialLR", "CosineAnnealingLR"])
def test_state_of_swalr_goes_both_ways(name, at):
    for target, options in itertools.product(TARGETS, KINDS):
        expected = trained(*both(torch_schedulers, theirs.SWALR, name, "swa last", target, options))
        for source, goal in ((theirs.SWALR, ours.SWALR), (ours.SWALR, theirs.SWALR)):
            opt, scheduler, swa = both(torch_schedulers, source, name, "swa last", target, options)
            trained(opt, scheduler, swa, last=at)
            states = [copy.deepcopy(part.state_dict()) for part in (opt, scheduler, swa)]
            parts = both(torch_schedulers, goal, name, "swa last", target, options)
            for part, state in zip(parts, states, strict=True):
                part.load_state_dict(state)
            close(expected[at:], trained(*parts, first=at), 1e-9)


def test_position_of_torchs_is_in_its_steps():
    left = optimizer()
    scheduler = ours.SWALR(left, 0.05)
    scheduler.seek(3)
    right = optimizer()
    torchs = theirs.SWALR(right, 0.05)
    right.load_state_dict(left.state_dict())
    torchs.load_state_dict(scheduler.state_dict())
    scheduler.step()
    torchs.step()
    close([lrs_of(left)], [lrs_of(right)])
    # One that was built with last_epoch counts from there, but anneals from its beginning.
    for group, initial in zip(right.param_groups, (1.0, 0.3), strict=True):
        group.update(lr=initial, initial_lr=initial)
    torchs = theirs.SWALR(right, 0.05, last_epoch=7)
    torchs.step()
    left.load_state_dict(right.state_dict())
    scheduler.load_state_dict(torchs.state_dict())
    torchs.step()
    scheduler.step()
    assert scheduler.last_epoch == 2
    close([lrs_of(right)], [lrs_of(left)])


def test_state_of_torchs_with_schedulers_of_torch_goes_on_with_those_of_descend():
    expected = trained(*both(torch_schedulers, theirs.SWALR, "ExponentialLR", "swa last", 0.05, {}))
    for at in (0, 3, START + 1, START + 3, 19):
        old = both(torch_schedulers, theirs.SWALR, "ExponentialLR", "swa last", 0.05, {})
        trained(*old, last=at)
        new = both(our_schedulers, ours.SWALR, "ExponentialLR", "swa last", 0.05, {})
        for part, other in zip(new, old, strict=True):
            part.load_state_dict(copy.deepcopy(other.state_dict()))
        close(expected[at:], trained(*new, first=at), 1e-9)


def test_checkpoint_changes_nothing():
    # torch's OneCycleLR reads `initial_lr` in every step, so nobody may write it before it is over.
    arguments = (torch_schedulers, ours.SWALR, "OneCycleLR", "swa last", 0.05, {})
    expected = trained(*both(*arguments))
    opt, scheduler, swa = both(*arguments)
    seen = []
    for epoch in range(EPOCHS):
        seen.append(lrs_of(opt))
        swa.load_state_dict(swa.state_dict())
        swa.preview(3)
        (swa if epoch > START else scheduler).step()
    close(expected, seen)


def test_state_takes_an_advanced_one_back():
    opt = optimizer()
    swa = ours.SWALR(opt, 0.05)
    states, seen = [], []
    for _ in range(12):
        states.append(swa.state_dict())
        seen.append(lrs_of(opt))
        swa.step()
    for state, lrs in zip(reversed(states), reversed(seen), strict=True):
        swa.load_state_dict(state)
        assert lrs_of(opt) == pytest.approx(lrs)


def test_p24_another_configuration_is_refused():
    state = ours.SWALR(optimizer(), 0.05).state_dict()
    for other in (
        {"swa_lr": 0.1},
        {"swa_lr": 0.05, "anneal_epochs": 5},
        {"swa_lr": 0.05, "anneal_strategy": "linear"},
    ):
        opt = optimizer()
        scheduler = ours.SWALR(opt, **other)
        scheduler.step()
        before = lrs_of(opt), scheduler.state_dict()
        with pytest.raises(StateError, match="the state has"):
            scheduler.load_state_dict(state)
        assert (lrs_of(opt), scheduler.state_dict()) == before
        scheduler.load_state_dict(state, strict=False)
        assert scheduler.last_epoch == 0


@pytest.mark.parametrize("last", [0, 1, 4])
def test_p21_last_epoch_goes_on_from_initial_lr(last):
    opt = optimizer()
    scheduler = ours.SWALR(opt, 0.05)
    seen = []
    for _ in range(8):
        seen.append(lrs_of(opt))
        scheduler.step()
    resumed = optimizer()
    for group, initial in zip(resumed.param_groups, (1.0, 0.3), strict=True):
        group["initial_lr"] = initial
        group["lr"] = torch.tensor(7.0) if initial == 1.0 else 7.0
    again = ours.SWALR(resumed, 0.05, last_epoch=last)
    assert again.last_epoch == last + 1
    close([seen[last + 1]], [lrs_of(resumed)], 1e-6)
    again.step()
    close([seen[last + 2]], [lrs_of(resumed)], 1e-6)


def test_p22_groups_that_are_added_later():
    opt = optimizer()
    scheduler = ours.SWALR(opt, 0.05, 4, "linear")
    scheduler.step()
    opt.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.45})
    opt.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.45, "swa_lr": 0.25})
    scheduler.step()
    # In the first step they are at 0.45, a quarter of the way; as with torch.
    assert lrs_of(opt)[2:] == pytest.approx([0.05 + 0.4 * 2 / 3, 0.25 + 0.2 * 2 / 3])
    scheduler.seek(4)
    assert lrs_of(opt) == [0.05, 0.05, 0.05, 0.25]
    assert scheduler.swa_lrs == [0.05, 0.05, 0.05, 0.25]


def test_p22_group_without_its_lr_is_named_and_nothing_changes():
    opt = optimizer()
    scheduler = ours.SWALR(opt, [0.05, 0.2], 4, "linear")
    scheduler.step()
    opt.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.5})
    before = lrs_of(opt)
    with pytest.raises(ScheduleError, match="group 2 was added later, and swa_lr is a list of 2"):
        scheduler.step()
    assert (lrs_of(opt), scheduler.last_epoch) == (before, 1)
    opt.param_groups[2]["swa_lr"] = 0.1
    scheduler.seek(4)
    assert lrs_of(opt) == [0.05, 0.2, 0.1]


def test_p25_lr_that_was_written_by_hand_is_where_it_goes_on():
    for at in (0, 2):
        left, right = optimizer(), optimizer()
        pair = theirs.SWALR(left, 0.05), ours.SWALR(right, 0.05)
        for _ in range(at):
            for scheduler in pair:
                scheduler.step()
        for opt in (left, right):
            opt.param_groups[0]["lr"] = 0.6
        expected, seen = [], []
        for _ in range(12):
            expected.append(lrs_of(left))
            seen.append(lrs_of(right))
            for scheduler in pair:
                scheduler.step()
        close(expected, seen, 1e-9)


@pytest.mark.parametrize("at", [0, 2])
def test_p25_lr_that_was_written_by_hand_is_in_a_state(at):
    opt = optimizer()
    scheduler = ours.SWALR(opt, 0.05)
    for _ in range(at):
        scheduler.step()
    opt.param_groups[0]["lr"] = 0.6
    before = [dict(group) for group in opt.param_groups]
    states = opt.state_dict(), scheduler.state_dict()
    preview = scheduler.preview(4)["lr"]
    assert opt.param_groups == before
    for order in ((0, 1), (1, 0))[: 1 if at else 2]:
        again = optimizer()
        parts = again, ours.SWALR(again, 0.05)
        for index in order:
            parts[index].load_state_dict(copy.deepcopy(states[index]))
        assert lrs_of(again) == pytest.approx(lrs_of(opt))
        parts[1].step()
        assert lrs_of(again) == pytest.approx(preview[at + 1])


def test_p25_built_late_it_begins_at_the_lr_that_is_there():
    opt = optimizer(lrs=(1.0,))
    scheduler = torch_schedulers.ExponentialLR(opt, 0.5)
    scheduler.step()
    swa = ours.SWALR(opt, 0.1, 2, "linear")
    assert swa.preview(3) == {"lr": [[0.5], [pytest.approx(0.3)], [0.1]]}
    swa.step()
    assert lrs_of(opt) == pytest.approx([0.3])


def test_lr_tensor_is_filled_in_place():
    tensor = torch.tensor(1.0)
    opt = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=tensor)
    scheduler = ours.SWALR(opt, 0.5, 2, "linear")
    for expected in (1.0, 0.75, 0.5, 0.5):
        assert opt.param_groups[0]["lr"] is tensor
        assert tensor.item() == expected
        scheduler.step()


def test_warmup_and_swa_do_not_depend_on_their_order():
    class Warmup(our_schedulers.LRScheduler):
        order = our_schedulers.driver.Order.WARMUP

        def curve(self, time, bases):
            return [base * min(1.0, (time + 1) / 4) for base in bases]

    seen = []
    for first in (0, 1):
        opt = optimizer(lrs=(1.0,))
        makers = [Warmup, lambda opt: ours.SWALR(opt, 0.5, 2, "linear")]
        parts = [make(opt) for make in (makers if first else reversed(makers))]
        for part in parts:
            part.step()
        seen.append(lrs_of(opt))
    assert seen == [[0.375], [0.375]]


BAD = [
    ({"anneal_strategy": "exponential"}, "anneal_strategy must be 'cos' or 'linear', got 'exp"),
    ({"anneal_epochs": -1}, "anneal_epochs must be a whole number of at least 0, got -1"),
    ({"anneal_epochs": 1.7}, "anneal_epochs must be"),
    ({"anneal_epochs": True}, "anneal_epochs must be"),
    (
        {"swa_lr": [1.0, 0.1, 0.01]},
        "swa_lr must be one for .* the 2 groups, got 3",
    ),
    ({"swa_lr": -0.1}, "swa_lr must be a finite number of at least 0, got -0.1"),
    ({"swa_lr": [0.1, math.nan]}, "swa_lr must be a finite number of at least 0, got nan"),
    ({"swa_lr": "0.1"}, "swa_lr must be"),
    ({"swa_lr": None}, "swa_lr must be"),
    ({"last_epoch": -2}, "last_epoch must be"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=str)
def test_bad_arguments_are_refused_and_nothing_changes(arguments, message):
    opt = optimizer()
    before = [dict(group) for group in opt.param_groups]
    with pytest.raises(ScheduleError, match=message):
        ours.SWALR(opt, **{"swa_lr": 0.05, **arguments})
    assert opt.param_groups == before


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(ScheduleTypeError, match="not an Optimizer"):
        ours.SWALR(nn.Linear(1, 1), 0.05)


def test_swalr_is_a_scheduler_of_torch_and_of_descend():
    scheduler = ours.SWALR(optimizer(), torch.tensor(0.05))
    assert isinstance(scheduler, our_schedulers.LRScheduler)
    assert isinstance(scheduler, torch_schedulers.LRScheduler)
    assert scheduler.swa_lrs == pytest.approx([0.05, 0.05])
    twin = copy.deepcopy(scheduler)
    twin.step()
    assert lrs_of(twin.optimizer) != lrs_of(scheduler.optimizer)


# Names, signatures, documentation


@pytest.mark.parametrize("name", theirs.__all__)
def test_signatures_are_torchs(name):
    def shape(value):
        function = value.__init__ if inspect.isclass(value) else value
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.default, p.kind) for p in parameters]

    mine, other = shape(getattr(ours, name)), shape(getattr(theirs, name))
    assert mine[: len(other)] == other
    own = ["warmup"] if "ema" in name else []
    assert [(key, kind) for key, _, kind in mine[len(other) :]] == [
        (key, inspect.Parameter.KEYWORD_ONLY) for key in own
    ]


def test_descend_has_it_where_torch_optim_does():
    assert descend.swa_utils is ours
    assert list(inspect.signature(ours.EMA).parameters) == [
        "model",
        "decay",
        "device",
        "use_buffers",
        "warmup",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented_and_their_examples_run(name):
    value = getattr(ours, name)
    text = inspect.getdoc(value)
    assert text.split("\n", 1)[0].endswith(".")
    for section in (".. math::", "Example:", "Source:"):
        assert section in text
    for argument in inspect.signature(value).parameters:
        assert f"{argument}: " in text
    for method, function in vars(value).items():
        if inspect.isfunction(function) and not method.startswith("_"):
            assert inspect.getdoc(function)
    for test in doctest.DocTestFinder(recurse=False).find(value, name):
        result = doctest.DocTestRunner().run(test)
        assert result.attempted
        assert not result.failed
