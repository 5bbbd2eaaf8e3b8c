"""SparseAdam: the paper, torch, every kind of sparse gradient, and what torch's lacks."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from torch.nn import Parameter

import oracles
from descend import Adam, SparseAdam
from descend.errors import GradientError, HyperparameterError, ParameterError, StateError
from optimizers.cases import assert_close, tensor

# torch's own SparseAdam makes sparse tensors without saying whether to check them.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")

ROWS, WIDTH = 10, 4

OPTIONS = [
    {"lr": 0.02},
    {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3},
    {"lr": 0.02, "betas": (0, 0.5)},
    {"lr": 0.02, "maximize": True},
    {"lr": 0.02, "betas": (0.8, 0.7), "maximize": True},
]
NOT_TORCHS = [
    # torch computes v + (g * g - v) * (1 - beta2), which rounds a small g away after a large one.
    {"lr": 0.02, "betas": (0, 0)},
    {"lr": 0.02, "weight_decay": 0.1},
    {"lr": 0.02, "weight_decay": 0.3, "maximize": True},
]


def sparse(seed, dtype=torch.float64, rows=ROWS, width=WIDTH, repeated=False):
    """A gradient that holds three rows, or the sum of four of which two are the same row."""
    numbers = torch.Generator().manual_seed(seed)
    index = torch.randperm(rows, generator=numbers)[:3].sort().values
    if repeated:
        index = torch.cat([index, index[:1]])
    values = tensor(seed, (len(index), width), dtype)
    return torch.sparse_coo_tensor(
        index[None], values, (rows, width), is_coalesced=not repeated, check_invariants=True
    )


def table(dtype=torch.float64, rows=ROWS, width=WIDTH):
    """A parameter."""
    return Parameter(tensor(0, (rows, width), dtype))


def train(make, steps=50, dtype=torch.float64, repeated=False, **options):
    """The parameter and the optimizer after so many steps."""
    param = table(dtype)
    optimizer = make([param], **options)
    for seed in range(1, steps + 1):
        param.grad = sparse(seed, dtype, repeated=repeated)
        optimizer.step()
    return param, optimizer


def assert_same(mine, theirs, **tolerance):
    """Raise unless two `(param, optimizer)` agree in parameter and state."""
    (my_param, my_optimizer), (their_param, their_optimizer) = mine, theirs
    assert_close(my_param, their_param, "parameter", **tolerance)
    my_state, their_state = my_optimizer.state[my_param], their_optimizer.state[their_param]
    assert list(my_state) == list(their_state)
    assert float(my_state["step"]) == float(their_state["step"])
    for key in ("exp_avg", "exp_avg_sq"):
        assert_close(my_state[key], their_state[key], key, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", OPTIONS + NOT_TORCHS, ids=str)
def test_agrees_with_the_paper(backend, options, dtype):
    param = table(dtype)
    optimizer = SparseAdam([param], **options)
    grads = [sparse(seed, dtype, repeated=seed % 2 == 0) for seed in range(1, 51)]
    known = []
    for grad in grads:
        held = torch.sparse_coo_tensor(
            grad._indices(), torch.ones_like(grad._values()), grad.shape, check_invariants=True
        ).to_dense()
        known.append(grad.double().to_dense().masked_fill(held == 0, math.nan).numpy())
    expected = oracles.run("sparseadam", known, table(dtype).detach().numpy(), **options)
    assert all((a.param != b.param).any() for a, b in pairwise(expected))
    for t, (grad, result) in enumerate(zip(grads, expected, strict=True), start=1):
        param.grad = grad
        optimizer.step()
        assert_close(param, torch.from_numpy(result.param).to(dtype), f"step {t}")
        for key, value in result.state.items():
            kept = optimizer.state[param][key]
            assert_close(kept, torch.from_numpy(value).to(dtype), f"{key} at step {t}")
        assert optimizer.state[param]["step"].item() == t


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_steps_are_torchs(backend, options, dtype, repeated):
    mine = train(SparseAdam, dtype=dtype, repeated=repeated, **options)
    theirs = train(torch.optim.SparseAdam, dtype=dtype, repeated=repeated, **options)
    assert_same(mine, theirs)


def test_a_tensor_lr_is_read_at_every_step_as_in_torch(backend):
    results = []
    for make in (SparseAdam, torch.optim.SparseAdam):
        lr, param = torch.tensor(0.05, dtype=torch.float64), table()
        optimizer = make([param], lr=lr)
        for seed in range(1, 6):
            param.grad = sparse(seed)
            optimizer.step()
            lr.mul_(0.5)
        results.append((param, optimizer))
    assert_same(*results)


def test_several_groups_and_parameters(backend):
    def run(make):
        params = [table(), table(rows=7), table(width=3)]
        optimizer = make(
            [{"params": params[:2], "lr": 0.1}, {"params": params[2:], "betas": (0.5, 0.6)}],
            lr=0.02,
        )
        for seed in range(1, 9):
            for param in params:
                rows, width = param.shape
                # Not every parameter gets a gradient in every step.
                param.grad = sparse(seed, rows=rows, width=width) if (seed + rows) % 3 else None
            optimizer.step()
        return params, optimizer

    mine, theirs = run(SparseAdam), run(torch.optim.SparseAdam)
    for my_param, their_param in zip(mine[0], theirs[0], strict=True):
        assert_same((my_param, mine[1]), (their_param, theirs[1]))


@pytest.mark.parametrize("bag", [False, True])
def test_an_embedding(backend, bag):
    """Words that come twice in a batch give an uncoalesced gradient."""

    def run(make):
        torch.manual_seed(0)
        kind = torch.nn.EmbeddingBag if bag else torch.nn.Embedding
        layer = kind(20, 3, sparse=True, dtype=torch.float64)
        optimizer = make(layer.parameters(), lr=0.1)
        for seed in range(8):
            optimizer.zero_grad()
            words = torch.tensor([[seed, seed + 1, seed], [3, 3, seed + 5]])
            layer(words).pow(2).sum().backward()
            optimizer.step()
        return layer.weight, optimizer

    assert_same(run(SparseAdam), run(torch.optim.SparseAdam))


SHAPES = [
    ((6,), 1),
    ((6, 5), 2),
    ((6, 5, 2), 1),
    ((6, 5, 2), 2),
    ((6, 5, 2), 3),
    ((3, 0), 1),
    ((0, 3), 1),
]


@pytest.mark.parametrize(("shape", "sparse_dims"), SHAPES, ids=str)
def test_any_number_of_sparse_and_dense_dimensions(backend, shape, sparse_dims):
    def run(make):
        param = Parameter(tensor(0, shape))
        optimizer = make([param], lr=0.1)
        for seed in range(1, 6):
            dense = tensor(seed, shape)
            dense[::2] = 0
            param.grad = dense.to_sparse(sparse_dims)
            optimizer.step()
        return param, optimizer

    assert_same(run(SparseAdam), run(torch.optim.SparseAdam))


def test_other_rows_stay_as_they_are_bit_for_bit(backend):
    param, optimizer = train(SparseAdam, steps=5, lr=0.1, weight_decay=0.1)
    before = param.detach().clone(), *(v.clone() for v in optimizer.state[param].values())
    param.grad = sparse(6)
    held = param.grad._indices()[0].tolist()
    others = [row for row in range(ROWS) if row not in held]
    optimizer.step()
    after = param.detach(), *optimizer.state[param].values()
    for old, new in zip(before, after, strict=True):
        if new.ndim:
            assert torch.equal(old[others], new[others])
            assert (old[held] != new[held]).all()


def test_a_gradient_that_holds_nothing_counts_as_a_step(backend):
    def run(make):
        param = table()
        optimizer = make([param], lr=0.1)
        for seed in range(1, 6):
            empty = torch.sparse_coo_tensor(
                torch.empty(1, 0, dtype=torch.long),
                torch.empty(0, WIDTH, dtype=torch.float64),
                param.shape,
                check_invariants=True,
            )
            param.grad = empty if seed in (1, 3) else sparse(seed)
            optimizer.step()
        return param, optimizer

    mine = run(SparseAdam)
    assert mine[1].state[mine[0]]["step"].item() == 5
    assert_same(mine, run(torch.optim.SparseAdam))


def test_a_parameter_in_another_layout(backend):
    """A transposed parameter, and one that is every second column of another tensor."""

    def run(make, made):
        param = Parameter(made(table().detach()))
        optimizer = make([param], lr=0.1)
        for seed in range(1, 6):
            param.grad = sparse(seed)
            optimizer.step()
        return param, optimizer

    for made in (
        lambda values: values.t().contiguous().t(),
        lambda values: torch.empty(ROWS, 2 * WIDTH, dtype=values.dtype)[:, ::2].copy_(values),
    ):
        assert_same(run(SparseAdam, made), run(torch.optim.SparseAdam, made))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_are_computed_in_float32(backend, dtype):
    """One step from bits that both have: float32's result, rounded once."""
    param, exact = table(dtype), Parameter(table(dtype).detach().float())
    for one in (param, exact):
        optimizer = SparseAdam([one], lr=0.1, eps=1e-3)
        one.grad = sparse(1, dtype).to(one.dtype)
        optimizer.step()
        if one is param:
            assert optimizer.state[param]["exp_avg"].dtype == dtype
    assert_close(param, exact.to(dtype), rtol=0, atol=0)


def test_a_float32_gradient_of_a_bfloat16_parameter(backend):
    param, exact = table(torch.bfloat16), Parameter(table(torch.bfloat16).detach().float())
    for one in (param, exact):
        optimizer = SparseAdam([one], lr=0.1)
        with torch.no_grad():
            one.grad = None
            one.grad_dtype = torch.float32
        one.grad = sparse(1, torch.float32)
        optimizer.step()
    assert_close(param, exact.to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_complex_parameter_is_a_pair_of_real_ones(backend, dtype):
    """torch refuses it."""
    real = dtype.to_real()
    param, pair = table(dtype), Parameter(torch.view_as_real(table(dtype).detach()).clone())
    for seed in range(1, 9):
        grad = sparse(seed, dtype, repeated=True)
        param.grad = grad
        pair.grad = torch.sparse_coo_tensor(
            grad._indices(), torch.view_as_real(grad._values()), pair.shape, check_invariants=True
        )
        if seed == 1:
            optimizers = [SparseAdam([one], lr=0.1, weight_decay=0.1) for one in (param, pair)]
        for optimizer in optimizers:
            optimizer.step()
    assert pair.dtype == real
    assert_close(torch.view_as_real(param.detach()), pair)


def test_the_derivative_of_two_steps(backend):
    """Against finite differences; the values of the gradient depend on what is differentiated."""
    index = torch.tensor([[1, 3]])

    def loss_after_two_steps(start):
        param = start.clone()
        optimizer = SparseAdam([param], lr=0.1, weight_decay=0.1, differentiable=True)
        for power in (2, 3):
            values = (start**power)[index[0]]
            param.grad = torch.sparse_coo_tensor(
                index, values, start.shape, is_coalesced=True, check_invariants=True
            )
            optimizer.step()
        return (param**2).sum()

    start = torch.linspace(1, 2, 10, dtype=torch.float64).view(5, 2).requires_grad_()
    torch.autograd.gradcheck(loss_after_two_steps, (start,))


def test_clipping_by_norm_and_by_value(backend):
    """The norm is that of the gradient, in which repeated rows are one."""
    options = {"lr": 0.1, "eps": 1e-2}
    mine, theirs = table(), table()
    my_optimizer = SparseAdam([mine], clip_norm=0.7, clip_value=0.2, **options)
    their_optimizer = torch.optim.SparseAdam([theirs], **options)
    for seed in range(1, 9):
        mine.grad = sparse(seed, repeated=True)
        kept = mine.grad.clone()
        my_optimizer.step()
        assert torch.equal(mine.grad._values(), kept._values())
        grad = sparse(seed, repeated=True).coalesce()
        scale = min(1.0, 0.7 / (float(grad.values().norm()) + 1e-6))
        theirs.grad = torch.sparse_coo_tensor(
            grad.indices(), (grad.values() * scale).clamp(-0.2, 0.2), grad.shape, is_coalesced=True
        )
        their_optimizer.step()
    assert_same((mine, my_optimizer), (theirs, their_optimizer))


def test_a_step_with_a_nonfinite_gradient_is_left_out(backend):
    param, optimizer = train(SparseAdam, steps=3, lr=0.1, skip_nonfinite=True)
    before, state = param.detach().clone(), copy.deepcopy(dict(optimizer.state[param]))
    param.grad = sparse(4)
    param.grad._values()[1, 2] = math.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert torch.equal(param, before)
    assert all(torch.equal(optimizer.state[param][key], value) for key, value in state.items())


def test_nonfinite_gradients_spread_as_in_torch(backend):
    def run(make):
        param, optimizer = train(make, steps=2, lr=0.1)
        param.grad = sparse(3)
        param.grad._values()[1, 2] = math.nan
        optimizer.step()
        param.grad = sparse(4)
        optimizer.step()
        return param, optimizer

    mine = run(SparseAdam)
    assert mine[0].isnan().sum() == 1
    assert_same(mine, run(torch.optim.SparseAdam))


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler(backend, unscale):
    """A power of two scales without rounding: the scaled run is the unscaled one."""

    def run(make, scaled):
        torch.manual_seed(0)
        layer = torch.nn.Embedding(10, 3, sparse=True)
        optimizer = make(layer.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=scaled)
        for seed in range(6):
            optimizer.zero_grad()
            loss = layer(torch.tensor([seed, seed + 1, seed])).pow(2).sum()
            scaler.scale(loss).backward()
            if seed == 3:
                layer.weight.grad._values()[0, 0] = math.inf
            if seed == 3 and not scaled:
                continue
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        return layer.weight, optimizer

    mine = run(SparseAdam, True)
    assert mine[1].state[mine[0]]["step"].item() == 5
    assert_same(mine, run(SparseAdam, False))
    assert_same(mine, run(torch.optim.SparseAdam, True))


# State


@pytest.mark.parametrize("first", [SparseAdam, torch.optim.SparseAdam])
@pytest.mark.parametrize("second", [SparseAdam, torch.optim.SparseAdam])
def test_training_goes_on_identically_on_the_other_side(backend, first, second):
    """In float64: a count in float32, as ours is kept, would show at once."""
    param, optimizer = train(first, steps=5, lr=0.1, betas=(0.8, 0.999))
    copied = Parameter(param.detach().clone())
    other = second([copied])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(6, 30):
        for one, stepping in ((param, optimizer), (copied, other)):
            one.grad = sparse(seed)
            stepping.step()
    assert_same((param, optimizer), (copied, other), rtol=1e-13, atol=1e-14)


def test_a_saved_step_is_a_number_and_a_kept_one_torchs_kind_of_count(backend):
    param, optimizer = train(SparseAdam, steps=5)
    saved = optimizer.state_dict()["state"][0]
    assert (saved["step"], type(saved["step"])) == (5, int)
    assert saved["exp_avg"] is optimizer.state[param]["exp_avg"]
    assert isinstance(optimizer.state[param]["step"], torch.Tensor)
    optimizer.state["note"] = 3
    assert optimizer.state_dict()["state"]["note"] == 3


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_and_pickles(backend, way):
    param, optimizer = train(SparseAdam, steps=3, lr=0.1)
    param.grad = None
    other = way(optimizer)
    copied = other.param_groups[0]["params"][0]
    for one, stepping in ((param, optimizer), (copied, other)):
        one.grad = sparse(9)
        stepping.step()
    assert param is not copied
    assert_same((param, optimizer), (copied, other), rtol=0, atol=0)


def test_states_of_other_optimizers_are_refused(backend):
    _, optimizer = train(SparseAdam, steps=3)
    before = copy.deepcopy(optimizer.state_dict())
    other = torch.optim.RMSprop([table()])
    other.param_groups[0]["params"][0].grad = torch.ones(ROWS, WIDTH, dtype=torch.float64)
    other.step()
    with pytest.raises(StateError, match="SparseAdam"):
        optimizer.load_state_dict(other.state_dict())
    damaged = copy.deepcopy(before)
    damaged["state"][0]["step"] = "many"
    with pytest.raises(StateError, match="'many'"):
        optimizer.load_state_dict(damaged)
    after = optimizer.state_dict()["state"][0]
    assert all(
        torch.equal(torch.as_tensor(after[k]), torch.as_tensor(v))
        for k, v in before["state"][0].items()
    )


# What is refused


def test_a_dense_gradient_is_refused_and_changes_nothing(backend):
    param, dense = table(), table()
    optimizer = SparseAdam([param, dense], lr=0.1)
    param.grad, dense.grad = sparse(1), torch.ones_like(dense)
    for make in (optimizer, torch.optim.SparseAdam([dense])):
        with pytest.raises(RuntimeError, match="dense"):
            make.step()
    with pytest.raises(GradientError, match=r"group 0, parameter 1.* use Adam, or .*sparse=True"):
        optimizer.step()
    assert torch.equal(param, table())
    assert not optimizer.state
    dense.grad = None
    optimizer.step()
    # Also after a step has gone well.
    dense.grad = torch.ones_like(dense)
    with pytest.raises(GradientError, match="dense"):
        optimizer.step()


@pytest.mark.parametrize("grouped", [False, True])
def test_a_sparse_parameter_is_refused(grouped):
    params = [table(), torch.zeros(3, layout=torch.sparse_coo)]
    given = [{"params": params}] if grouped else params
    with pytest.raises(
        ParameterError, match=r"group 0, parameter 1 has the layout torch\.sparse_coo.*to_dense"
    ):
        SparseAdam(given)
    optimizer = SparseAdam(params[:1])
    with pytest.raises(ParameterError, match="group 1, parameter 0"):
        optimizer.add_param_group({"params": params[1:]})
    assert len(optimizer.param_groups) == 1


BAD = [
    ({"lr": 0}, "lr=0 "),
    ({"lr": 0.0}, "lr=0"),
    ({"lr": torch.tensor(0.0)}, r"lr=tensor\(0\.0\)"),
    ({"lr": -1.0}, r"lr=-1\.0"),
    ({"lr": torch.tensor([0.1, 0.2])}, "lr=a tensor of shape"),
    ({"eps": 0.0}, r"eps=0\.0.*above 0"),
    ({"eps": -1e-8}, "eps=-1e-08"),
    ({"betas": (1.0, 0.0)}, r"betas=\(1\.0, 0\.0\)"),
    ({"betas": (0.9, -0.1)}, "betas"),
    ({"weight_decay": -0.1}, "weight_decay"),
    ({"weight_deacy": 0.1}, "weight_deacy"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_bad_hyperparameters_are_refused(options, message):
    kind = TypeError if "weight_deacy" in options else HyperparameterError
    with pytest.raises(kind, match=message):
        SparseAdam([table()], **options)


def test_a_schedule_may_set_lr_to_zero(backend):
    """torch checks lr in the constructor only; warmups begin at 0."""
    param, optimizer = train(SparseAdam, steps=2)
    before = param.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    param.grad = sparse(3)
    optimizer.step()
    assert torch.equal(param, before)
    assert optimizer.state[param]["step"].item() == 3


def test_adam_names_it_for_sparse_gradients():
    param = table()
    param.grad = sparse(1)
    with pytest.raises(GradientError, match="SparseAdam"):
        Adam([param]).step()
