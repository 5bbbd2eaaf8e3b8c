"""Sparse gradients: SGD and Adagrad step the rows that are there; the others refuse, as torch."""

import pytest
import torch

from optimizers.cases import (
    NAMES,
    TORCH,
    assert_close,
    assert_same_training,
    ours,
    parameters,
    tensor,
)

# torch's own Adagrad makes sparse tensors without saying whether to check them.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")

ACCEPTED = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 0.1, "maximize": True}),
    ("adagrad", {"lr": 0.1}),
    ("adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("adagrad", {"lr": 0.1, "maximize": True}),
]


def _sparse(seed, rows, repeated=False):
    """Three rows of ten, one of them twice if asked."""
    numbers = torch.Generator().manual_seed(seed)
    index = torch.randperm(rows, generator=numbers)[:3].sort().values
    if repeated:
        index[2] = index[0]
    return torch.sparse_coo_tensor(
        index[None],
        tensor(seed, (3, 4)),
        (rows, 4),
        is_coalesced=not repeated,
        check_invariants=True,
    )


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("name", "options"), ACCEPTED)
def test_sparse_steps_are_torchs(backend, name, options, repeated):
    mine, theirs = parameters([(10, 4), (3,)]), parameters([(10, 4), (3,)])
    my_optimizer, their_optimizer = ours(name)(mine, **options), TORCH[name](theirs, **options)
    for seed in range(1, 51):
        for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
            params[0].grad = _sparse(seed, 10, repeated)
            params[1].grad = tensor(seed, (3,))
            optimizer.step()
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize(("name", "options"), ACCEPTED)
def test_sparse_and_dense_by_turns(backend, name, options):
    (mine,), (theirs,) = parameters([(10, 4)]), parameters([(10, 4)])
    my_optimizer, their_optimizer = ours(name)([mine], **options), TORCH[name]([theirs], **options)
    for seed in range(1, 9):
        for optimizer, param in ((my_optimizer, mine), (their_optimizer, theirs)):
            param.grad = None
            param.grad = _sparse(seed, 10) if seed % 2 else tensor(seed, (10, 4))
            optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])


def test_rows_without_a_gradient_stay(backend):
    (param,) = parameters([(10, 4)])
    before = param.detach().clone()
    param.grad = _sparse(1, 10)
    touched = param.grad._indices()[0]
    ours("adagrad")([param], lr=0.1).step()
    moved = (param != before).any(dim=1)
    assert sorted(moved.nonzero().flatten().tolist()) == sorted(touched.tolist())


def test_an_embedding_with_sparse_gradients(backend):
    def train_with(make):
        torch.manual_seed(0)
        table = torch.nn.Embedding(20, 4, sparse=True, dtype=torch.float64)
        optimizer = make(table.parameters(), lr=0.5)
        for seed in range(8):
            optimizer.zero_grad()
            words = torch.arange(seed, seed + 6) % 20
            table(words).pow(2).sum().backward()
            optimizer.step()
        return table.weight

    assert_close(train_with(ours("adagrad")), train_with(torch.optim.Adagrad))
    assert_close(train_with(ours("sgd")), train_with(torch.optim.SGD))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("sgd", "adagrad")])
def test_others_refuse_and_change_nothing(backend, name):
    dense, sparse = parameters([(3,), (10, 4)])
    optimizer = ours(name)([dense, sparse], lr=0.1)
    before = [dense.detach().clone(), sparse.detach().clone()]
    dense.grad, sparse.grad = tensor(1, (3,)), _sparse(1, 10)
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert_close(dense, before[0], rtol=0, atol=0)
    assert_close(sparse, before[1], rtol=0, atol=0)
    sparse.grad = None
    optimizer.step()
    if "step" in optimizer.state[dense]:
        assert optimizer.state[dense]["step"].item() == 1


DENSE_ALL_THE_SAME = [
    ("sgd", {"lr": 0.1, "momentum": 0.9}),
    ("sgd", {"lr": 0.1, "weight_decay": 0.1}),
    ("adagrad", {"lr": 0.1, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), DENSE_ALL_THE_SAME)
def test_rows_without_a_gradient_move_where_the_rule_says_so(backend, name, options):
    """Momentum and weight decay move every row; torch refuses Adagrad's decay instead."""
    (mine,), (theirs,) = parameters([(10, 4)]), parameters([(10, 4)])
    my_optimizer, their_optimizer = ours(name)([mine], **options), TORCH[name]([theirs], **options)
    for seed in range(1, 9):
        mine.grad = _sparse(seed, 10, repeated=True)
        theirs.grad = _sparse(seed, 10, repeated=True).to_dense()
        my_optimizer.step()
        their_optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])
