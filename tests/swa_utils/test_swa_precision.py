"""Averages of 16-bit models and of whole numbers, the warmup of an EMA's decay, and its state."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim import swa_utils as theirs

import descend
from descend.errors import StateError
from descend.swa_utils import EMA, AveragedModel

NARROW = [torch.bfloat16, torch.float16]


def moving(model, round):
    """The model as if trained: other weights."""
    numbers = torch.Generator().manual_seed(round)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=numbers))


@pytest.mark.parametrize("make", [EMA, AveragedModel])
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_an_average_of_16_bit_weights_does_not_stand_still(dtype, make):
    model = nn.Linear(4, 3).to(dtype)
    averaged = make(model)
    nn.init.zeros_(model.weight)
    averaged.update_parameters(model)
    nn.init.ones_(model.weight)
    for _ in range(999):
        averaged.update_parameters(model)
    expected = 0.999 if make is AveragedModel else 1 - 0.999**999
    torch.testing.assert_close(averaged.module.weight.detach(), torch.full((3, 4), expected))
    assert model.weight.dtype is dtype


class Tied(nn.Module):
    """An embedding whose weights are those of the output too."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Embedding(5, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, index):
        return (self.inner(index) * self.scale) @ self.inner.weight.T


def made(name):
    """A model, and an input for it."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4)
    return {
        "linear": lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), x),
        "norm": lambda: (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), x),
        "lstm": lambda: (nn.LSTM(4, 3), x),
        "attention": lambda: (nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), x),
        "tied": lambda: (Tied(), torch.tensor([[0, 3, 4]])),
    }[name]()


def first(answer):
    return answer[0] if isinstance(answer, tuple) else answer


@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["linear", "norm", "lstm", "attention", "tied"])
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_the_averaged_model_runs_as_the_model_does(dtype, name, grad):
    model, x = made(name)
    model = model.to(dtype)
    narrow = x.to(dtype) if x.is_floating_point() else x
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    with grad():
        expected = first(model(narrow))
        for run in (averaged, averaged.module, copy.deepcopy(averaged).module):
            answer = first(run(narrow))
            assert answer.dtype is dtype
            assert torch.equal(answer, expected)
        again = pickle.loads(pickle.dumps(averaged))
        assert torch.equal(first(again(narrow)), expected)
        if x.is_floating_point():  # a model made wide by hand, or run on inputs that are
            wide = copy.deepcopy(model).float()
            torch.testing.assert_close(first(averaged(x)), first(wide(x)))
    for part in averaged.module.parameters():
        assert part.dtype is torch.float32
    layer = averaged.module.self_attn if name == "attention" else None
    if layer is not None:
        mine, other = (one(narrow, narrow, narrow)[0] for one in (layer, model.self_attn))
        assert torch.equal(mine, other)


def test_a_call_that_raises_leaves_the_average_wide():
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            self.inner(x)
            raise ArithmeticError

    model = Raises().bfloat16()
    averaged = AveragedModel(model)
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            averaged(torch.ones(1, 2, dtype=torch.bfloat16))
        assert averaged.module.inner.weight.dtype is torch.float32


def test_an_average_may_be_made_narrow_by_hand():
    averaged = AveragedModel(nn.Linear(2, 2).bfloat16()).to(torch.bfloat16)
    assert averaged(torch.ones(1, 2, dtype=torch.bfloat16)).dtype is torch.bfloat16
    assert averaged.module.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("use_buffers", [False, True])
def test_buffers_of_16_bits(use_buffers):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).bfloat16()
    averaged = EMA(model, 0.99, use_buffers=use_buffers)
    for value in (0.0, *[1.0] * 99):
        nn.init.constant_(model[1].running_mean, value)
        averaged.update_parameters(model)
    kept = averaged.module[1].running_mean
    if use_buffers:
        torch.testing.assert_close(kept, torch.full((4,), 1 - 0.99**99))
    else:
        assert torch.equal(kept, model[1].running_mean)
    data = [torch.randn(8, 3, dtype=torch.bfloat16) for _ in range(3)]
    descend.swa_utils.update_bn(data, averaged)
    other = copy.deepcopy(model)
    other.load_state_dict(averaged.module.state_dict())
    theirs.update_bn(data, other)
    for name in ("running_mean", "running_var"):
        mine, expected = getattr(averaged.module[1], name), getattr(other[1], name)
        torch.testing.assert_close(mine.to(expected.dtype), expected, rtol=2e-2, atol=2e-2)
        assert mine.dtype is (torch.float32 if use_buffers else torch.bfloat16)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_state_of_16_bits_goes_both_ways(dtype):
    model = nn.Linear(4, 3).to(dtype)
    left, right = theirs.AveragedModel(model), AveragedModel(model)
    for round in range(3):
        moving(model, round)
        right.update_parameters(model)
    assert right.state_dict()["module.weight"].dtype is torch.float32
    left.load_state_dict(right.state_dict())
    other = AveragedModel(model)
    other.load_state_dict(left.state_dict())
    assert torch.equal(other.module.weight, right.module.weight.to(dtype).float())
    again = AveragedModel(model)
    again.load_state_dict(right.state_dict())
    assert torch.equal(again.module.weight, right.module.weight)
    model.load_state_dict(right.module.state_dict())
    assert model.weight.dtype is dtype


@pytest.mark.parametrize("make", ["get_ema_avg_fn", "get_ema_multi_avg_fn"])
def test_the_decay_of_an_ema_rises(make):
    model = nn.Linear(1, 1, bias=False).double()
    key = "multi_avg_fn" if "multi" in make else "avg_fn"
    function = getattr(descend.swa_utils, make)(0.5, warmup=True)
    kinds = EMA(model, 0.5, warmup=True), AveragedModel(model, **{key: function})
    expected = 0.0
    for n in range(12):
        nn.init.constant_(model.weight, float(n * n))
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n * n if n else 0.0
        for averaged in kinds:
            averaged.update_parameters(model)
            assert averaged.module.weight.item() == pytest.approx(expected, rel=1e-12)
    assert decay == 0.5


def test_setting_the_decay_keeps_the_warmup():
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.9, warmup=True)
    ema.decay = 0.99
    for value in (0.0, 1.0):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
    assert ema.module.weight.item() == pytest.approx(1 - 2 / 11)


@pytest.mark.parametrize("kind", ["get_ema_avg_fn", "get_ema_multi_avg_fn"])
def test_averages_of_whole_numbers_are_rounded(kind):
    """Cut off they come out too low: 9 for 9.9."""
    model = nn.Module()
    model.register_buffer("whole", torch.tensor([9, -9, 3]))
    function = getattr(descend.swa_utils, kind)(0.1)
    key = "multi_avg_fn" if "multi" in kind else "avg_fn"
    averaged = AveragedModel(model, use_buffers=True, **{key: function})
    averaged.update_parameters(model)
    model.whole.copy_(torch.tensor([10, -10, 3]))
    averaged.update_parameters(model)
    assert averaged.module.whole.tolist() == [10, -10, 3]
    ema = EMA(model, 0.1, use_buffers=True)
    ema.load_state_dict(averaged.state_dict())
    assert ema.module.whole.tolist() == [10, -10, 3]


def test_a_state_with_another_decay_is_refused():
    model = nn.Linear(2, 2)
    saved = EMA(model, 0.99).state_dict()
    ema = EMA(model, 0.999)
    ema.update_parameters(model)
    before = copy.deepcopy(ema.state_dict())
    with pytest.raises(StateError, match=r"state has decay=0\.99, and this average decay=0\.999;"):
        ema.load_state_dict(saved)
    for name, value in ema.state_dict().items():
        assert torch.equal(value, before[name])
    ema.load_state_dict(saved, strict=False)
    assert (ema.decay, ema.n_averaged.item()) == (0.999, 0)
    EMA(model, 0.99).load_state_dict(saved)
    with pytest.raises(StateError, match="state has warmup=False, and this average warmup=True;"):
        EMA(model, 0.99, warmup=True).load_state_dict(saved)
    with pytest.raises(StateError, match="state has warmup=True, and this average warmup=False;"):
        EMA(model, 0.99).load_state_dict(EMA(model, 0.99, warmup=True).state_dict())


def test_a_state_of_torchs_has_no_decay():
    model = nn.Linear(2, 2)
    left = theirs.AveragedModel(model, multi_avg_fn=theirs.get_ema_multi_avg_fn(0.9))
    left.update_parameters(model)
    ema = EMA(model, 0.99)
    ema.load_state_dict(left.state_dict())
    assert (ema.n_averaged.item(), ema.decay) == (1, 0.99)
    left.load_state_dict(ema.state_dict(), strict=False)
    both = nn.ModuleDict({"model": model, "ema": ema})
    again = nn.ModuleDict({"model": nn.Linear(2, 2), "ema": EMA(nn.Linear(2, 2), 0.99)})
    again.load_state_dict(both.state_dict())
    assert torch.equal(again["ema"].module.weight, model.weight)
    with pytest.raises(StateError, match="decay"):
        nn.ModuleDict({"model": model, "ema": EMA(model)}).load_state_dict(both.state_dict())
