"""Tensors that are not plain and dense: every layout gives what torch gives."""

import pytest
import torch

from descend.errors import ParameterError
from optimizers.cases import (
    IN_TORCH,
    NAMES,
    RICH,
    TORCH,
    assert_close,
    assert_same_training,
    beside_torch,
    counts,
    give_gradients,
    ours,
    parameters,
    steps_on,
    tensor,
    threads,
    train,
)


def _channels_last():
    return tensor(1, (2, 3, 4, 5)).to(memory_format=torch.channels_last)


def _transposed():
    return tensor(1, (6, 4)).t()


def _permuted():
    return tensor(1, (3, 4, 5)).permute(2, 0, 1)


def _every_second_column():
    return tensor(1, (6, 8))[:, ::2]


def _inner_block():
    return tensor(1, (6, 8))[1:5, 2:7]


def _size_one_with_odd_strides():
    return tensor(1, (1, 9)).as_strided((1, 4, 1), (77, 2, 5))


def _unaligned():
    return tensor(1, (19,))[3:]


LAYOUTS = [
    _channels_last,
    _transposed,
    _permuted,
    _every_second_column,
    _inner_block,
    _size_one_with_odd_strides,
    _unaligned,
]


def _name(make):
    return make.__name__.strip("_")


def _same_layout(param, seed):
    return torch.empty_like(param).copy_(tensor(seed, param.shape))


def _contiguous(param, seed):
    return tensor(seed, param.shape)


def _reversed_strides(param, seed):
    return tensor(seed, tuple(reversed(param.shape))).permute(*reversed(range(param.dim())))


def _expanded(param, seed):
    return tensor(seed, (1,) * param.dim()).expand(param.shape)


def _sliced(param, seed):
    return tensor(seed, (*param.shape, 2))[..., 0]


GRADIENTS = [_same_layout, _contiguous, _reversed_strides, _expanded, _sliced]


@pytest.mark.parametrize("make_grad", GRADIENTS, ids=_name)
@pytest.mark.parametrize("make_param", LAYOUTS, ids=_name)
@pytest.mark.parametrize("name", IN_TORCH)
def test_any_layout_of_parameter_and_gradient(backend, name, make_param, make_grad):
    mine, theirs = torch.nn.Parameter(make_param()), torch.nn.Parameter(make_param())
    assert mine.stride() == make_param().stride()
    my_optimizer, their_optimizer = beside_torch(name, [mine], [theirs])
    for seed in range(1, steps_on(backend, 6) // 2 + 1):
        for optimizer, param in ((my_optimizer, mine), (their_optimizer, theirs)):
            param.grad = make_grad(param, seed)
            optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])
    assert mine.stride() == theirs.stride()


@pytest.mark.parametrize("name", NAMES)
def test_memory_between_the_elements_is_not_touched(backend, name):
    """A sliced parameter owns every second column; the others belong to somebody else."""
    whole = tensor(1, (6, 8))
    others = whole[:, 1::2].clone()
    param = torch.nn.Parameter(whole[:, ::2])
    optimizer = ours(name)([param], **RICH[name])
    train(optimizer, [param], 3)
    assert param.data_ptr() == whole.data_ptr()
    assert torch.equal(whole[:, 1::2], others)


@pytest.mark.parametrize("name", IN_TORCH)
def test_neighbouring_views_of_one_storage(backend, name):
    """Flattened parameters: many views of one buffer, side by side, none overlapping."""

    def views():
        flat = tensor(1, (60,))
        return [torch.nn.Parameter(flat[start : start + 15]) for start in range(0, 60, 15)]

    mine, theirs = views(), views()
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    train(my_optimizer, mine, 5)
    train(their_optimizer, theirs, 5)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_parameters_that_overlap_are_stepped_in_order(backend, name):
    """Two parameters share half of their memory: the second sees what the first has written."""

    def overlapping():
        flat = tensor(1, (60,))
        return [torch.nn.Parameter(flat[:40]), torch.nn.Parameter(flat[20:])]

    mine, theirs = overlapping(), overlapping()
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    train(my_optimizer, mine, 5)
    train(their_optimizer, theirs, 5)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_two_large_parameters_that_are_the_same_memory(backend, name):
    """Two Parameter objects on one storage, large enough for several threads."""
    size = 200_000 if backend != "gpu" else 33  # the interpreter is too slow for more

    def twice():
        flat = tensor(1, (size,))
        return [torch.nn.Parameter(flat), torch.nn.Parameter(flat)]

    mine, theirs = twice(), twice()
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    with threads(3):
        train(my_optimizer, mine, 3)
    train(their_optimizer, theirs, 3)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_overlaps_itself_is_refused(backend, name):
    """torch refuses it too, in the middle of the step; nothing has changed here."""
    param = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64).expand(5))
    param.grad = torch.ones(5, dtype=torch.float64)
    optimizer = ours(name)([param], lr=0.1)
    with pytest.raises(ParameterError, match="share one memory location"):
        optimizer.step()
    assert param.tolist() == [0.0] * 5
    assert not optimizer.state or name == "adagrad"


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_gradient_that_is_its_parameter(backend, name):
    """loss = |p|^2 / 2 with `p.grad = p.data`: the gradient is the value before the step."""
    (mine,), (theirs,) = parameters([(17,)]), parameters([(17,)])
    my_optimizer, their_optimizer = beside_torch(name, [mine], [theirs])
    for _ in range(5):
        mine.grad = mine.data
        theirs.grad = theirs.data.clone()
        my_optimizer.step()
        their_optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_gradient_that_overlaps_its_parameter(backend, name):
    """The gradient is the parameter shifted by one element: a race for anything that streams."""
    size = 100_001 if backend != "gpu" else 33

    def pair():
        flat = tensor(1, (size,))
        return torch.nn.Parameter(flat[1:]), flat[:-1]

    (mine, my_grad), (theirs, their_grad) = pair(), pair()
    my_optimizer, their_optimizer = beside_torch(name, [mine], [theirs])
    for _ in range(3):
        mine.grad = my_grad
        theirs.grad = their_grad.clone()
        with threads(3):
            my_optimizer.step()
        their_optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_gradient_of_another_parameter(backend, name):
    """One gradient tensor for two parameters."""
    mine, theirs = parameters([(9,), (9,)]), parameters([(9,), (9,)])
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        for seed in range(1, 4):
            params[0].grad = params[1].grad = tensor(seed, (9,))
            optimizer.step()
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_conjugate_and_negative_views(backend, name):
    """Lazy conjugation and negation are bits of a tensor, not of its memory."""

    def step_with(make, grad_of):
        param = torch.nn.Parameter(tensor(1, (7,), torch.complex128))
        optimizer = make([param], **RICH[name])
        for seed in range(2, 5):
            param.grad = grad_of(tensor(seed, (7,), torch.complex128))
            optimizer.step()
        return optimizer, [param]

    mine, my_params = step_with(ours(name), torch.conj)
    theirs, their_params = step_with(TORCH[name], lambda grad: torch.conj(grad).resolve_conj())
    assert_same_training(mine, my_params, theirs, their_params)

    negative = torch.conj(tensor(5, (7,), torch.complex128)).imag
    assert negative.is_neg()
    (mine,), (theirs,) = parameters([(7,)]), parameters([(7,)])
    mine.grad, theirs.grad = negative, negative.resolve_neg()
    my_optimizer, their_optimizer = beside_torch(name, [mine], [theirs])
    my_optimizer.step()
    their_optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])


@pytest.mark.parametrize("name", IN_TORCH)
def test_data_replaced_between_steps(backend, name):
    """`param.data = ...` gives the parameter new memory; the old is not written any more."""
    mine, theirs = parameters([(6, 4)]), parameters([(6, 4)])
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for optimizer, (param,) in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, [param], 3)
        old, kept = param.data, param.data.clone()
        param.data = tensor(50, (6, 4))
        train(optimizer, [param], 3, first=4)
        assert torch.equal(old, kept)
        param.data = tensor(51, (4, 6)).t()
        train(optimizer, [param], 3, first=7)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_metadata_changed_in_place(backend, name):
    """`t_()` turns the parameter and its state; the pointers stay, the strides do not."""
    mine, theirs = parameters([(6, 4)]), parameters([(6, 4)])
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for optimizer, (param,) in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, [param], 3)
        param.grad = None
        param.data.t_()
        param.data = param.data  # torch refuses t_() on a leaf; its data may be turned
        with torch.no_grad():
            param.t_()
        for key, value in optimizer.state[param].items():
            if key not in counts(name):
                value.t_()
        train(optimizer, [param], 3, first=4)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_parameter_that_grew(backend, name):
    """More rows, state enlarged by hand: new vocabulary in mid-training."""
    mine, theirs = parameters([(4, 3)]), parameters([(4, 3)])
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for optimizer, (param,) in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, [param], 3)
        param.grad = None
        param.data = torch.cat([param.data, tensor(9, (2, 3))])
        for key, value in optimizer.state[param].items():
            if key not in counts(name):
                grown = torch.cat([value, torch.zeros(2, 3, dtype=value.dtype)])
                optimizer.state[param][key] = grown
        train(optimizer, [param], 3, first=4)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_state_that_no_longer_fits_is_an_error(backend, name):
    """The parameter shrank, its state did not: reading past the end would be undefined."""
    (param,) = parameters([(40,)])
    optimizer = ours(name)([param], **RICH[name])
    train(optimizer, [param], 2)
    param.grad = None
    param.data = tensor(9, (7,))
    give_gradients([param], 3)
    with pytest.raises((RuntimeError, ValueError)):
        optimizer.step()
    assert_close(param, tensor(9, (7,)), rtol=0, atol=0)


@pytest.mark.parametrize("name", IN_TORCH)
def test_tensor_subclasses(backend, name):
    """A subclass sees its own `__torch_function__`: it takes the eager path and is right."""

    class Marked(torch.Tensor):
        pass

    def marked():
        return torch.nn.Parameter(tensor(1, (9,)).as_subclass(Marked))

    mine, theirs = marked(), marked()
    my_optimizer, their_optimizer = beside_torch(name, [mine], [theirs])
    train(my_optimizer, [mine], 3)
    train(their_optimizer, [theirs], 3)
    assert_close(mine.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor))
