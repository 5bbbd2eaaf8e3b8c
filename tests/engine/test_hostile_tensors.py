"""Tensors and surroundings that a step must take, or refuse before anything moves."""

import math
import os
import signal
import threading
import time

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

import descend
from descend.engine import forced_backend
from descend.errors import DescendError, GradientError, ParameterError, StateError
from descend.optimizers import CATALOGUE

NAMES = [name for name in CATALOGUE if name not in ("sparseadam", "lbfgs")]


def made(name, *params, **options):
    return CATALOGUE[name](params, **options)


def with_gradient(*shape, device=None):
    param = Parameter(torch.ones(*shape, device=device))
    param.grad = torch.ones(*shape, device=device)
    return param


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["context", "default"])
def test_another_default_device_does_not_matter(name, how):
    param = with_gradient(3, 3, device="cpu")
    optimizer = made(name, param)
    if how == "context":
        with torch.device("meta"):
            optimizer.step()
            optimizer.step()
    else:
        torch.set_default_device("meta")
        try:
            optimizer.step()
            optimizer.step()
        finally:
            torch.set_default_device(None)
    tensors = [
        value for value in optimizer.state[param].values() if isinstance(value, torch.Tensor)
    ]
    assert {tensor.device.type for tensor in (param, *tensors)} == {"cpu"}
    assert (param != 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_fake_tensors_are_stepped(name):
    with FakeTensorMode():
        param = with_gradient(3, 3)
        optimizer = made(name, param)
        for _ in range(3):
            optimizer.step()
        assert type(param.data).__name__ == "FakeTensor"


LAYOUTS = {
    "coo": lambda tensor: tensor.to_sparse(),
    "csr": lambda tensor: tensor.to_sparse_csr(),
    "mkldnn": lambda tensor: tensor.to_mkldnn(),
    "zero": lambda tensor: torch._efficientzerotensor(*tensor.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_parameter_without_plain_memory_is_refused_before_another_moves(name, layout):
    good, odd = with_gradient(3, 3), Parameter(LAYOUTS[layout](torch.ones(3, 3)))
    odd.grad = LAYOUTS[layout](torch.ones(3, 3))
    with pytest.raises(DescendError, match="group 0, parameter 1"):
        made(name, good, odd).step()
    assert (good == 1).all()


def test_a_gradient_without_memory_is_refused_before_another_moves(backend):
    good, odd = with_gradient(3), Parameter(torch.ones(3))
    optimizer = descend.AdamW([good, odd])
    odd.grad = torch._efficientzerotensor(3)
    with pytest.raises(GradientError, match="zero tensor"):
        optimizer.step()
    assert (good == 1).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(1).expand(3), "share one memory location"),
        (torch._efficientzerotensor(3), "zero tensor"),
        (torch.zeros(3).to_mkldnn(), "layout"),
    ],
    ids=["expanded", "zero", "mkldnn"],
)
def test_a_state_that_cannot_be_written_is_refused_before_a_parameter_moves(
    value, message, backend
):
    first, second = with_gradient(3), with_gradient(3)
    optimizer = descend.AdamW([first, second])
    optimizer.step()
    optimizer.state[second]["exp_avg"] = value
    before = first.clone()
    with pytest.raises(StateError, match=message):
        optimizer.step()
    assert torch.equal(first, before)


def test_a_parameter_of_expanded_memory_is_refused():
    param = Parameter(torch.ones(1).expand(3))
    param.grad = torch.ones(3)
    with pytest.raises(ParameterError, match="expanded"):
        descend.SGD([param], lr=0.1).step()


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_storages_that_can_be_resized(name, size):
    """What `.numpy()` has looked at can never be resized again, which FSDP does."""
    param = with_gradient(size // 5, 5)
    optimizer = made(name, param)
    optimizer.step()
    tensors = [
        value for value in optimizer.state[param].values() if isinstance(value, torch.Tensor)
    ]
    for tensor in (param, param.grad, *tensors):
        tensor.untyped_storage().resize_(0)


def test_a_step_on_rows_leaves_storages_that_can_be_resized():
    table = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = descend.SGD(table.parameters(), lr=0.1)
    table(torch.tensor([1, 1, 2])).sum().backward()
    optimizer.step()
    grad = table.weight.grad
    for tensor in (table.weight, grad._values(), grad._indices()):
        tensor.untyped_storage().resize_(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_steps_steps():
    param = with_gradient(2_000_000)
    optimizer = descend.AdamW([param])
    optimizer.step()
    over = threading.Event()

    def step():
        while not over.is_set():
            optimizer.step()

    thread = threading.Thread(target=step)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                torch.set_num_threads(1)
                optimizer.step()
                os._exit(0)
            end = time.monotonic() + 30
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
                if time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    pytest.fail("the child hangs in its step")
                time.sleep(0.01)
            assert ended == (child, 0)
    finally:
        over.set()
        thread.join()


def test_a_handler_that_raises_waits_for_all_batches_of_a_step(monkeypatch):
    """SIGTERM between the kernels of two dtypes: both parameters have moved, or none has."""
    params = [with_gradient(3), Parameter(torch.ones(3, dtype=torch.float64))]
    params[1].grad = torch.ones(3, dtype=torch.float64)
    optimizer = descend.AdamW(params)
    optimizer.step()
    first, second = optimizer._stepper._plan.batches
    launch, steps = type(first).launch, []

    def launched(batch):
        launch(batch)
        steps.append(batch)
        if batch is first:
            os.kill(os.getpid(), signal.SIGTERM)

    class StopError(Exception):
        pass

    def stop(number, frame):
        raise StopError

    monkeypatch.setattr(type(first), "launch", launched)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(StopError):
            optimizer.step()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps == [first, second]
    assert [optimizer.state[param]["step"].item() for param in params] == [2, 2]


def test_parameters_that_share_a_step_count_each_count_their_own(backend):
    params = [with_gradient(3), with_gradient(3)]
    optimizer = descend.AdamW(params)
    optimizer.step()
    optimizer.state[params[1]]["step"] = optimizer.state[params[0]]["step"]
    optimizer.step()
    optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params] == [3, 3]
    assert torch.equal(*params)


def test_a_state_that_is_another_mapping_now_is_the_one_that_is_stepped(backend):
    param = with_gradient(3)
    optimizer = descend.AdamW([param])
    optimizer.step()
    old = optimizer.state[param]
    new = {name: value.clone() for name, value in old.items()}
    assert repr(new) == repr(old)  # equal, and another one
    optimizer.state[param] = new
    optimizer.step()
    assert (old["step"].item(), new["step"].item()) == (1, 2)


def test_finite_gradients_whose_squares_overflow_are_no_reason_to_skip(backend):
    param = Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = descend.SGD([param], lr=1e-300, skip_nonfinite=True)
    param.grad = torch.full((3,), 1e300, dtype=torch.float64)
    optimizer.step()
    assert optimizer.skipped_steps == 0
    param.grad[1] = math.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1


def test_a_16_bit_gradient_is_scaled_in_32_bits(backend):
    """A third of the smallest float16 is none; three of them move the parameter all the same."""
    param = Parameter(torch.zeros(1, dtype=torch.float16))
    smallest = 2.0**-24
    param.grad = torch.full((1,), smallest, dtype=torch.float16)
    optimizer = descend.SGD([param], lr=3.0, clip_norm=smallest / 3, maximize=True)
    optimizer.step()
    # clip_grad_norm_ divides by the norm and 1e-6: here that is nearly all of it.
    factor = smallest / 3 / (smallest + 1e-6)
    assert param.item() == torch.tensor(3 * factor * smallest).half().item()
    param.grad = torch.full((1,), 40_000.0, dtype=torch.float16)
    with forced_backend(backend):
        descend.SGD([param], lr=1e-4, clip_norm=1e9).step()
    assert param.item() == pytest.approx(-4, rel=1e-3)


@pytest.mark.parametrize("size", [7, 40_000])
@pytest.mark.parametrize("kind", ["transposed", "expanded", "strided", "negated", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_gradients_in_another_layout_are_taken_in_the_parameters(kind, dtype, size, backend):
    if backend == "gpu":
        size = min(size, 5_500)  # as large as it must be; the interpreter takes blocks in Python
    shape = (2, size, 3, 1)
    param = Parameter(torch.ones(shape, dtype=dtype))
    grad = torch.arange(math.prod(shape)).remainder(97).view(shape).to(dtype)
    odd = {
        "transposed": grad.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": grad[:1].expand(shape),
        "strided": torch.stack([grad, grad], -1)[..., 0],
        "negated": torch._neg_view(-grad),
        "channels last": grad.contiguous(memory_format=torch.channels_last),
    }[kind]
    expected = Parameter(param.detach().clone())
    expected.grad = odd.clone(memory_format=torch.contiguous_format).resolve_neg()
    param.grad = odd
    for one in (param, expected):
        made("sgd", one, lr=0.5).step()
    assert torch.equal(param, expected)
    assert param.grad is odd
