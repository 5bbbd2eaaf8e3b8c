"""Objects put back from a checkpoint: by name, on any device, into other networks, all or none."""

import copy
import doctest
import importlib
import json
import math

import pytest
import torch
from torch.nn import Linear, Parameter
from torch.nn.utils import parametrizations

import descend
from checkpoint.bits import assert_same
from checkpoint.versioned import Versioned
from descend.checkpoint import Restored, digest, load, load_torch, restore, save, save_torch
from descend.checkpoint.restore import restore_all
from descend.errors import CheckpointError
from descend.lr_scheduler import CosineAnnealingLR, StepLR
from descend.optimizers import CATALOGUE
from descend.swa_utils import EMA, AveragedModel
from optimizers.any_optimizer import parameters, train

MODULE = importlib.import_module("descend.checkpoint.restore")  # not the function of that name


def network(seed=0, out=2, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Sequential(Linear(3, 4), torch.nn.BatchNorm1d(4), Linear(4, out)).to(dtype)


def stepped(model, optimizer, steps=3):
    for seed in range(steps):
        torch.manual_seed(seed)

        def closure():
            optimizer.zero_grad()
            loss = model(torch.randn(5, 3, dtype=model[0].weight.dtype)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)


def trained(make=descend.AdamW, seed=0, **options):
    model = network(seed)
    optimizer = make(model.named_parameters(), lr=0.01, **options)
    stepped(model, optimizer)
    return model, optimizer


def zeros():
    return torch.zeros(2)


def states(**objects):
    """The states of objects, apart from them."""
    return {name: copy.deepcopy(thing.state_dict()) for name, thing in objects.items()}


def saved(tmp_path, **objects):
    save(tmp_path / "c", {name: thing.state_dict() for name, thing in objects.items()})
    return tmp_path / "c"


# What is loaded


def test_f3_weights_alone(tmp_path):
    model, optimizer = trained()
    path = saved(tmp_path, model=model, optimizer=optimizer)
    other = network(seed=1)
    report = restore(path, model=other)
    assert [*report] == ["model"]
    assert report["model"] == Restored(tuple(model.state_dict()), {}, {})
    assert digest(other.state_dict()) == digest(model.state_dict())


def test_everything_by_name_and_nothing_hangs_on_the_state(tmp_path):
    model, optimizer = trained()
    scheduler = StepLR(optimizer, 2)
    scheduler.step()
    ema = EMA(model)
    path = saved(tmp_path, model=model, optimizer=optimizer, scheduler=scheduler, ema=ema)
    other, other_optimizer = trained(seed=1)
    others = {
        "model": other,
        "optimizer": other_optimizer,
        "scheduler": StepLR(other_optimizer, 2),
        "ema": EMA(other),
    }
    report = restore(path, **others)
    assert [*report] == [*others]
    assert str(report["optimizer"]).startswith("state of 6 parameters loaded: 0.weight, 0.bias")
    assert report["scheduler"] is None
    mine = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "ema": ema}
    assert digest(states(**others)) == digest(states(**mine))


@pytest.mark.parametrize("kind", ["checkpoint", "folder of checkpoints", "run", "torch file"])
def test_whatever_can_be_loaded_can_be_restored(tmp_path, kind):
    model = network()
    where = {
        "checkpoint": tmp_path / "c",
        "folder of checkpoints": tmp_path / "step-00000003",
        "run": tmp_path / "checkpoints" / "step-00000003",
        "torch file": tmp_path / "x.pth",
    }[kind]
    where.parent.mkdir(exist_ok=True)
    (save_torch if kind == "torch file" else save)(where, {"model": model.state_dict()})
    other = network(seed=1)
    restore(tmp_path if kind in ("run", "folder of checkpoints") else str(where), model=other)
    assert digest(other.state_dict()) == digest(model.state_dict())


@pytest.mark.parametrize("to", [torch.float64, torch.bfloat16, torch.float16])
def test_f3_into_another_precision(tmp_path, to):
    model = network()
    path = saved(tmp_path, model=model)
    other = network(seed=1, dtype=to)
    report = restore(path, model=other)["model"]
    assert not report.missed
    for name, value in other.state_dict().items():
        assert_same(value, model.state_dict()[name].to(value.dtype), name)


def test_f3_whole_numbers_stay_whole(tmp_path):
    model, _ = trained()
    path = saved(tmp_path, model=model)
    other = network(seed=1, dtype=torch.float64)
    restore(path, model=other)
    assert_same(other[1].num_batches_tracked, torch.tensor(3))


def test_f3_an_optimizer_of_another_precision_keeps_what_was_saved(tmp_path):
    _, optimizer = trained()
    path = saved(tmp_path, optimizer=optimizer)
    half = network(dtype=torch.bfloat16)
    other = descend.AdamW(half.named_parameters(), lr=1.0)
    restore(path, optimizer=other)
    assert digest(other.state_dict()["state"]) == digest(optimizer.state_dict()["state"])


@pytest.mark.gpu
def test_f3_onto_another_device(tmp_path):
    model, optimizer = trained()
    path = saved(tmp_path, model=model, optimizer=optimizer)
    other = network(seed=1).cuda()
    other_optimizer = descend.AdamW(other.named_parameters(), lr=1.0)
    restore(path, model=other, optimizer=other_optimizer)
    assert all(value.is_cuda for value in other.state_dict().values())
    assert other_optimizer.state[other[0].weight]["exp_avg"].is_cuda
    assert digest(states(m=other, o=other_optimizer)) == digest(states(m=model, o=optimizer))
    stepped_before = digest(states(m=other, o=other_optimizer))
    save(tmp_path / "gpu", {"model": other.state_dict(), "optimizer": other_optimizer.state_dict()})
    here, here_optimizer = trained(seed=2)
    restore(tmp_path / "gpu", model=here, optimizer=here_optimizer)
    assert digest(states(m=here, o=here_optimizer)) == stepped_before
    with pytest.raises(CheckpointError, match="nothing was changed"):
        restore(tmp_path / "gpu", model=other, optimizer=descend.SGD(here.parameters(), lr=1.0))
    save_torch(tmp_path / "gpu.pth", {"model": other.state_dict()})
    assert not load_torch(tmp_path / "gpu.pth")["model"]["0.weight"].is_cuda


def test_f3_the_meta_device_holds_nothing_and_is_refused(tmp_path):
    path = saved(tmp_path, model=network())
    with torch.device("meta"):
        empty = network()
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"0\.weight of the model is on the meta device"):
            restore(path, model=empty, strict=strict)
    empty.to_empty(device="cpu")
    restore(path, model=empty)
    assert digest(empty.state_dict()) == digest(network().state_dict())


def test_f3_a_lazy_model_gets_its_shapes(tmp_path):
    path = saved(tmp_path, model=torch.nn.Sequential(Linear(3, 4)))
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(4))
    restore(path, model=lazy)
    assert lazy[0].weight.shape == (4, 3)
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(4), Linear(4, 1))
    report = restore(path, model=lazy, strict=False)["model"]
    assert report.matched == ("0.weight", "0.bias")
    assert lazy[0].weight.shape == (4, 3)


# Into a network that has changed


def test_f3_what_matched_what_did_not_and_why_by_name(tmp_path):
    model = torch.nn.ModuleDict(
        {"body": network(), "head": Linear(2, 10), "old": Linear(1, 1, bias=False)}
    )
    path = saved(tmp_path, model=model)
    new = torch.nn.ModuleDict(
        {"body": network(seed=1), "head": Linear(2, 5), "fresh": torch.nn.BatchNorm1d(2)}
    )
    before = states(new=new)["new"]
    report = restore(path, model=new, strict=False)["model"]
    assert report.matched == tuple(f"body.{name}" for name in network().state_dict())
    shapes = "shape (10, 2) in the checkpoint, (5, 2) in the model"
    biases = "shape (10,) in the checkpoint, (5,) in the model"
    fresh = dict.fromkeys(
        ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
        "not in the checkpoint",
    )
    assert report.missed == {
        "head.weight": shapes,
        "head.bias": biases,
        **{f"fresh.{name}": why for name, why in fresh.items()},
    }
    assert report.unused == {
        "head.weight": shapes,
        "head.bias": biases,
        "old.weight": "not in the model",
    }
    assert [*report.missed] == [name for name in new.state_dict() if name in report.missed]
    for name, value in new.state_dict().items():
        source = model.state_dict() if name in report.matched else before
        assert_same(value, source[name], name)
    lines = str(report).splitlines()
    assert lines[0] == "9 loaded"
    assert lines[1].startswith(f"missed: head.weight ({shapes}), head.bias ({biases}), fresh.we")
    assert lines[2].endswith("old.weight (not in the model)")


def test_f3_a_changed_network_is_refused_where_it_is_strict_and_names_are_told(tmp_path):
    path = saved(tmp_path, model=network(out=2))
    other = network(seed=1, out=5)
    before = digest(other.state_dict())
    with pytest.raises(
        CheckpointError, match=r"cannot restore model from .*size mismatch for 2\.w"
    ):
        restore(path, model=other)
    assert digest(other.state_dict()) == before


def test_f3_buffers_count_as_parameters_do(tmp_path):
    class Buffered(torch.nn.Module):
        def __init__(self, size, extra):
            super().__init__()
            self.register_buffer("table", torch.full((size,), float(size)))
            self.register_buffer("scratch", torch.zeros(2), persistent=False)
            if extra:
                self.register_buffer("extra", torch.ones(1))
            self.weight = Parameter(torch.full((1,), float(size)))

    path = saved(tmp_path, model=Buffered(3, extra=False))
    other = Buffered(4, extra=True)
    report = restore(path, model=other, strict=False)["model"]
    assert report.matched == ("weight",)
    assert report.missed == {
        "table": "shape (3,) in the checkpoint, (4,) in the model",
        "extra": "not in the checkpoint",
    }
    assert torch.equal(other.table, torch.full((4,), 4.0))


def test_an_old_checkpoint_without_num_batches_tracked(tmp_path):
    state = {k: v for k, v in network().state_dict().items() if "num_batches" not in k}
    save(tmp_path / "c", {"model": state})
    other = network(seed=1)
    report = restore(tmp_path / "c", model=other)["model"]
    assert report.missed == {"1.num_batches_tracked": "not in the checkpoint"}
    assert restore(tmp_path / "c", model=other, strict=False)["model"] == report
    assert_same(other[1].num_batches_tracked, torch.tensor(0))


class WithExtra(torch.nn.Module):
    """A module with a state of its own beside its tensors."""

    def __init__(self, extra):
        super().__init__()
        self.weight = Parameter(torch.zeros(2))
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        if state == "bad":
            raise ValueError("bad extra state")
        self.extra = state


@pytest.mark.parametrize(
    "extra", [{"scale": 2.5, "seen": [1, None]}, torch.arange(3.0), b"\x00", "text", None], ids=repr
)
@pytest.mark.parametrize("strict", [True, False])
def test_f3_extra_state_goes_along_whatever_it_is(tmp_path, extra, strict):
    path = saved(tmp_path, model=WithExtra(extra))
    other = WithExtra(torch.zeros(1))
    report = restore(path, model=other, strict=strict)["model"]
    assert report == Restored(("weight", "_extra_state"), {}, {})
    assert_same(other.extra, extra)


def test_f3_extra_state_of_one_side_alone_is_named(tmp_path):
    with_extra = torch.nn.ModuleDict({"a": WithExtra(3)})
    without = torch.nn.ModuleDict({"a": torch.nn.ParameterDict({"weight": torch.ones(2)})})
    path = saved(tmp_path, model=with_extra)
    report = restore(path, model=without, strict=False)["model"]
    assert report.unused == {"a._extra_state": "not in the model"}
    save(tmp_path / "d", {"model": without.state_dict()})
    report = restore(tmp_path / "d", model=with_extra, strict=False)["model"]
    assert report.missed == {"a._extra_state": "not in the checkpoint"}


def test_extra_state_that_is_refused_leaves_the_weights(tmp_path):
    path = saved(tmp_path, model=WithExtra("bad"))
    other = WithExtra("good")
    torch.nn.init.ones_(other.weight)
    with pytest.raises(CheckpointError, match=r"ValueError: bad extra state; nothing was changed"):
        restore(path, model=other)
    assert other.extra == "good"
    assert torch.equal(other.weight, torch.ones(2))


def test_f3_parametrizations(tmp_path):
    normed = torch.nn.Sequential(parametrizations.weight_norm(Linear(3, 4)), Linear(4, 1))
    path = saved(tmp_path, model=normed)
    other = torch.nn.Sequential(parametrizations.weight_norm(Linear(3, 4)), Linear(4, 1))
    restore(path, model=other)
    assert_same(other[0].weight.detach(), normed[0].weight.detach())
    plain = torch.nn.Sequential(Linear(3, 4), Linear(4, 1))
    report = restore(path, model=plain, strict=False)["model"]
    assert report.missed == {"0.weight": "not in the checkpoint"}
    assert [*report.unused] == [f"0.parametrizations.weight.original{part}" for part in (0, 1)]


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("strict", [True, False])
def test_f3_names_that_a_module_translates_itself_count_as_matched(tmp_path, strict):
    old = torch.nn.Sequential(torch.nn.utils.weight_norm(Linear(3, 4)), Linear(4, 1))
    path = saved(tmp_path, model=old)
    new = torch.nn.Sequential(parametrizations.weight_norm(Linear(3, 4)), Linear(4, 1))
    report = restore(path, model=new, strict=strict)["model"]
    assert report == Restored(tuple(new.state_dict()), {}, {})
    assert torch.equal(new[0].parametrizations.weight.original1, old[0].weight_v)


def tied():
    embedding, head = torch.nn.Embedding(5, 3), Linear(3, 5, bias=False)
    head.weight = embedding.weight
    return torch.nn.ModuleDict(
        {"embedding": embedding, "head": head, "norm": torch.nn.LayerNorm(3)}
    )


def test_f3_tied_weights_stay_tied(tmp_path):
    model, other = tied(), tied()
    report = restore(saved(tmp_path, model=model), model=other)["model"]
    assert not report.missed
    assert other["head"].weight is other["embedding"].weight
    assert_same(other["head"].weight.detach(), model["head"].weight.detach())


def test_f3_a_tied_weight_that_was_saved_under_one_name_is_loaded_under_both(tmp_path):
    state = tied().state_dict()
    del state["head.weight"]
    save(tmp_path / "c", {"model": state})
    other = tied()
    report = restore(tmp_path / "c", model=other, strict=False)["model"]
    assert report == Restored(tuple(other.state_dict()), {}, {})


def test_f3_tied_weights_into_a_network_that_has_untied_them(tmp_path):
    path = saved(tmp_path, model=tied())
    apart = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(5, 3), "head": Linear(3, 5), "norm": torch.nn.LayerNorm(3)}
    )
    report = restore(path, model=apart, strict=False)["model"]
    assert report.missed == {"head.bias": "not in the checkpoint"}
    assert apart["head"].weight is not apart["embedding"].weight
    assert_same(apart["head"].weight.detach(), apart["embedding"].weight.detach())


def test_f3_complex_numbers_do_not_lose_their_imaginary_part_unseen(tmp_path):
    save(tmp_path / "c", {"model": {"a": torch.ones(2, dtype=torch.complex64), "b": torch.ones(2)}})
    real = torch.nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2)})
    report = restore(tmp_path / "c", model=real, strict=False)["model"]
    assert report.missed == {"a": "complex in the checkpoint, real in the model"}
    assert report.unused == report.missed
    assert torch.equal(real["a"], torch.zeros(2))


def test_what_is_no_tensor_where_the_model_has_one_is_named(tmp_path):
    save(tmp_path / "c", {"model": {"a": [1, 2], "b": torch.ones(2)}})
    other = torch.nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2)})
    report = restore(tmp_path / "c", model=other, strict=False)["model"]
    assert report.missed == {"a": "a list in the checkpoint, a tensor in the model"}
    with pytest.raises(CheckpointError, match="nothing was changed"):
        restore(tmp_path / "c", model=torch.nn.ParameterDict({"a": torch.zeros(2), "b": zeros()}))


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_that_is_no_dict_is_refused(tmp_path, strict):
    save(tmp_path / "c", {"model": 3})
    with pytest.raises(CheckpointError, match="it is a int there, and a model needs"):
        restore(tmp_path / "c", model=network(), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("wrapped", ["the checkpoint's", "the model's"])
def test_names_that_differ_by_a_wrapper_are_explained(tmp_path, strict, wrapped):
    model = network()
    wrapper = torch.nn.DataParallel(model)
    path = saved(tmp_path, model=wrapper if wrapped == "the checkpoint's" else model)
    other = network(seed=1)
    target = other if wrapped == "the checkpoint's" else torch.nn.DataParallel(other)
    advice = (
        r"begin with 'module\.'.* give model=torch\.nn\.ModuleDict\({'module': model}\)"
        if wrapped == "the checkpoint's"
        else r"begin with 'module\.'.* give model=model\.module"
    )
    before = digest(other.state_dict())
    with pytest.raises(CheckpointError, match=advice):
        restore(path, model=target, strict=strict)
    assert digest(other.state_dict()) == before
    good = (
        torch.nn.ModuleDict({"module": other}) if wrapped == "the checkpoint's" else target.module
    )
    restore(path, model=good, strict=strict)
    assert digest(other.state_dict()) == digest(model.state_dict())


def test_nothing_in_common_is_refused_without_strict_too(tmp_path):
    path = saved(tmp_path, model=network())
    with pytest.raises(CheckpointError, match="none of its 9 names is one of the model's 2 with"):
        restore(path, model=Linear(3, 4), strict=False)
    assert restore(path, model=torch.nn.ReLU(), strict=False)["model"].matched == ()


@pytest.mark.parametrize("strict", [True, False])
def test_a_module_that_changed_its_format_reads_its_own_checkpoints(tmp_path, strict):
    other = Versioned()
    restore(saved(tmp_path, model=Versioned()), model=other, strict=strict)
    assert torch.equal(other.weight, torch.arange(3.0))


def test_p11_strict_reaches_an_optimizer_and_its_report_comes_back(tmp_path):
    model, optimizer = trained()
    path = saved(tmp_path, model=model, optimizer=optimizer)
    new = network(seed=1, out=5)
    other = descend.AdamW(new.named_parameters(), lr=1.0)
    with pytest.raises(CheckpointError, match=r"cannot restore (model|optimizer) from"):
        restore(path, model=new, optimizer=other)
    assert not other.state
    reports = restore(path, model=new, optimizer=other, strict=False)
    assert reports["optimizer"].matched == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert [*reports["optimizer"].missed] == ["2.weight", "2.bias"]
    assert [*reports["model"].missed] == ["2.weight", "2.bias"]
    assert "(5, 4)" in reports["optimizer"].missed["2.weight"]


def test_p11_strict_reaches_schedulers_of_descend_and_torchs_do_not_know_it(tmp_path):
    _, optimizer = trained()
    scheduler = StepLR(optimizer, 2, gamma=0.5)
    path = saved(tmp_path, scheduler=scheduler)
    other = StepLR(optimizer, 3, gamma=0.1)
    with pytest.raises(CheckpointError, match="step_size"):
        restore(path, scheduler=other)
    assert restore(path, scheduler=other, strict=False) == {"scheduler": None}
    assert other.step_size == 3
    theirs = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([zeros().requires_grad_()], lr=1.0), 3)
    restore(path, scheduler=theirs, strict=False)


def test_an_object_that_takes_strict_by_another_way_is_left_alone(tmp_path):
    class Odd:
        given = None

        def state_dict(self):
            return {}

        def load_state_dict(self, state_dict, *rest, **options):
            self.given = rest, options

    save(tmp_path / "c", {"odd": {}})
    odd = Odd()
    restore(tmp_path / "c", odd=odd, strict=False)
    assert odd.given == ((), {})


def test_a_part_that_the_newest_checkpoint_lacks_is_not_taken_from_an_older_one(tmp_path):
    state = network().state_dict()
    save(tmp_path / "step-00000001", {"model": state, "ema": state})
    save(tmp_path / "step-00000002", {"model": state})
    with pytest.raises(CheckpointError, match=r"load ema of .*step-00000002: it holds model$"):
        load(tmp_path, parts=["ema"])


def test_weights_alone_read_nothing_else(tmp_path):
    model, optimizer = trained()
    path = saved(tmp_path, optimizer=optimizer, model=model)
    file = path / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    content[begin + header["optimizer.state.0.weight.exp_avg"]["data_offsets"][0]] ^= 1
    file.write_bytes(content)
    other = network(seed=1)
    restore(path, model=other)
    assert digest(other.state_dict()) == digest(model.state_dict())


# What is refused before anything is loaded


def test_names_that_are_not_in_the_checkpoint(tmp_path):
    model, optimizer = trained()
    path = saved(tmp_path, model=model, optimizer=optimizer)
    other = network(seed=1)
    before = digest(other.state_dict())
    with pytest.raises(
        CheckpointError, match=r"restore: cannot load ema of .* it holds model, optimizer; give"
    ):
        restore(path, model=other, ema=EMA(other))
    assert digest(other.state_dict()) == before
    report = restore(path, model=other, ema=EMA(other), strict=False)
    assert report["ema"] is None
    assert [*report] == ["model", "ema"]


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (network, r"restore: model must have state_dict\(\), and is a function"),
        (Linear, r"restore: model must have state_dict\(\), and is the class Linear"),
        (descend.AdamW, r"and is the class AdamW"),
        (network().state_dict(), r"and is a OrderedDict; give a model, an optimizer"),
        (None, r"and is a NoneType"),
        ([network()], r"and is a list"),
    ],
    ids=["function", "module class", "optimizer class", "state_dict", "None", "list"],
)
def test_what_has_no_state_is_refused_before_anything_is_read(tmp_path, thing, message):
    with pytest.raises(CheckpointError, match=message):
        restore(tmp_path / "missing", model=thing)


def test_an_object_that_can_only_be_saved_is_refused(tmp_path):
    class Half:
        def state_dict(self):
            return {}

    with pytest.raises(CheckpointError, match=r"restore: half must have load_state_dict\(\)"):
        restore(tmp_path, half=Half())


def test_no_objects_no_path_and_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="restore: give the objects"):
        restore(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        restore(tmp_path / "missing", model=network())
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        restore(tmp_path, model=network())


def test_an_object_may_have_any_name(tmp_path):
    save(tmp_path / "c", {"path": network().state_dict(), "source": network().state_dict()})
    other, another = network(seed=1), network(seed=2)
    restore(tmp_path / "c", path=other, source=another)
    assert digest(other.state_dict()) == digest(network().state_dict())


# All or nothing


class Counter:
    """Something stateful of the user's own, which can refuse."""

    def __init__(self, value=0, refuses=()):
        self.value = value
        self.refuses = refuses

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]  # half of it is done
        if self.value in self.refuses:
            raise RuntimeError("no")


def everything(seed, of_torch):
    """Objects of every kind after some steps, and by the same names for either seed."""
    model = network(seed)
    if of_torch:
        optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01 * (seed + 1))
        module = torch.optim.lr_scheduler
    else:
        optimizer = descend.AdamW(model.named_parameters(), lr=0.01 * (seed + 1))
        module = descend.lr_scheduler
    scheduler = module.StepLR(optimizer, 2, gamma=0.5)
    stepped(model, optimizer, 1 + seed)
    scheduler.step()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (3 + seed))
    scaler.scale(torch.ones(1))
    ema = EMA(model, decay=0.5)
    ema.update_parameters(model)
    average = AveragedModel(network(seed + 5))
    return {
        "model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler,
        "ema": ema, "average": average, "counter": Counter(seed),
    }  # fmt: skip


@pytest.mark.parametrize("of_torch", [True, False], ids=["torch", "descend"])
@pytest.mark.parametrize("last", ["alone", *everything(0, of_torch=False)])
def test_f3_all_or_nothing_whoever_refuses_and_wherever_it_stands(tmp_path, of_torch, last):
    path = saved(tmp_path, **everything(1, of_torch), refusing=Counter(7))
    objects = everything(0, of_torch)
    before = digest(states(**objects))
    rates = [group["lr"] for group in objects["optimizer"].param_groups]
    first = {"refusing": Counter(3, refuses=[7])}
    before_it = {} if last == "alone" else {last: objects[last]}
    given = before_it | first | objects
    with pytest.raises(
        CheckpointError, match=r"cannot restore refusing from .*: RuntimeError: no; n"
    ):
        restore(path, **given)
    assert digest(states(**objects)) == before
    assert [group["lr"] for group in objects["optimizer"].param_groups] == rates
    assert first["refusing"].value == 3
    # And all goes on as if nothing had been
    twins = everything(0, of_torch)
    for these in (objects, twins):
        stepped(these["model"], these["optimizer"], 2)
        these["scheduler"].step()
        these["ema"].update_parameters(these["model"])
    assert digest(states(**objects)) == digest(states(**twins))


@pytest.mark.parametrize("of_torch", [True, False], ids=["torch", "descend"])
@pytest.mark.parametrize("wrong", ["model", "optimizer", "scheduler", "scaler", "ema", "average"])
def test_f3_each_kind_refuses_and_nothing_has_changed(tmp_path, of_torch, wrong):
    sources = everything(1, of_torch)
    other = torch.nn.Sequential(Linear(3, 4), torch.nn.BatchNorm1d(4), Linear(4, 3))
    sources |= {
        "model": {"model": other},
        "optimizer": {"optimizer": descend.SGD([zeros(), zeros()], lr=1.0, momentum=0.5)},
        "scheduler": {"scheduler": Counter(0)},
        "scaler": {"scaler": torch.amp.GradScaler("cpu", enabled=False)},
        "ema": {"ema": EMA(other)},
        "average": {"average": AveragedModel(other)},
    }[wrong]
    path = saved(tmp_path, **sources)
    objects = everything(0, of_torch)
    before = digest(states(**objects))
    if of_torch and wrong == "scheduler":  # torch's take anything
        objects["counter"].refuses = [1]
    with pytest.raises(CheckpointError, match=r"cannot restore \w+ from .*; nothing was changed"):
        restore(path, **objects)
    assert digest(states(**objects)) == before


@pytest.mark.parametrize("nested", [False, True], ids=["StepLR", "SequentialLR"])
def test_a_scheduler_of_torch_that_took_anothers_state_is_as_before(tmp_path, nested):
    optimizer = torch.optim.SGD([zeros().requires_grad_()], lr=1.0)
    module = torch.optim.lr_scheduler
    mine = module.StepLR(optimizer, 1, gamma=0.5)
    other = module.CosineAnnealingLR(optimizer, 9)
    if nested:
        mine = module.SequentialLR(optimizer, [mine, module.StepLR(optimizer, 3)], [2])
        other = module.SequentialLR(optimizer, [other, module.ExponentialLR(optimizer, 0.9)], [3])
    path = saved(tmp_path, scheduler=other, counter=Counter(7))
    before, attributes = digest(mine.state_dict()), {*vars(mine)}
    with pytest.raises(CheckpointError, match="cannot restore counter"):
        restore(path, scheduler=mine, counter=Counter(refuses=[7]))
    assert {*vars(mine)} == attributes
    assert digest(mine.state_dict()) == before
    optimizer.step()
    mine.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_an_optimizer_of_torch_with_states_of_another_precision_is_as_before(tmp_path):
    """torch casts a loaded state to the parameter's dtype: it cannot be put back by loading."""
    param = Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([param], lr=0.1)
    param.grad = torch.full_like(param, 0.1)
    optimizer.step()
    state = optimizer.state[param]
    state["exp_avg"] = torch.tensor([0.1, 0.2, 0.3])
    before = digest(optimizer.state_dict())
    path = saved(tmp_path, optimizer=optimizer, counter=Counter(7))
    with pytest.raises(CheckpointError, match="cannot restore counter"):
        restore(path, optimizer=optimizer, counter=Counter(refuses=[7]))
    assert digest(optimizer.state_dict()) == before
    assert optimizer.state[param] is state


def test_an_lr_that_is_a_tensor_is_as_before(tmp_path):
    lr = torch.tensor(0.5)
    optimizer = descend.AdamW([Parameter(zeros())], lr=lr)
    source = descend.AdamW([Parameter(zeros())], lr=0.25)
    path = saved(tmp_path, optimizer=source, counter=Counter(7))
    with pytest.raises(CheckpointError, match="cannot restore counter"):
        restore(path, optimizer=optimizer, counter=Counter(refuses=[7]))
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr == 0.5


def test_an_optimizer_of_the_users_own_that_loads_in_place_is_as_before(tmp_path):
    class Mine(torch.optim.SGD):
        def load_state_dict(self, state_dict):
            for param, entry in zip(self.state, state_dict["state"].values(), strict=True):
                self.state[param]["momentum_buffer"].copy_(entry["momentum_buffer"])

    def make(value):
        optimizer = Mine([Parameter(zeros())], lr=1.0, momentum=0.9)
        for param in optimizer.param_groups[0]["params"]:
            optimizer.state[param]["momentum_buffer"] = torch.full((2,), value)
        return optimizer

    path = saved(tmp_path, optimizer=make(3.0), counter=Counter(7))
    other = make(1.0)
    with pytest.raises(CheckpointError, match="cannot restore counter"):
        restore(path, optimizer=other, counter=Counter(refuses=[7]))
    (entry,) = other.state.values()
    assert torch.equal(entry["momentum_buffer"], torch.ones(2))


def test_an_lr_set_by_hand_is_as_before(tmp_path):
    def make():
        optimizer = descend.SGD([Parameter(zeros())], lr=1.0)
        scheduler = CosineAnnealingLR(optimizer, 10)
        optimizer.step()
        scheduler.step()
        optimizer.param_groups[0]["lr"] = 0.123
        return optimizer, scheduler

    optimizer, scheduler = make()
    path = saved(tmp_path, optimizer=optimizer, scheduler=scheduler, counter=Counter(7))
    with pytest.raises(CheckpointError, match="cannot restore counter"):
        restore(path, optimizer=optimizer, scheduler=scheduler, counter=Counter(refuses=[7]))
    assert optimizer.param_groups[0]["lr"] == 0.123
    twin, its = make()
    for one, two in ((optimizer, scheduler), (twin, its)):
        one.step()
        two.step()
    assert optimizer.param_groups[0]["lr"] == twin.param_groups[0]["lr"]


class Hooked(torch.nn.Module):
    """A module that refuses when its weights are in already."""

    def __init__(self, value):
        super().__init__()
        self.weight = Parameter(torch.full((2,), value))
        self._register_load_state_dict_pre_hook(lambda *args: None)

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        if self.weight[0] == 7:
            raise RuntimeError("too late")


@pytest.mark.parametrize("strict", [True, False])
def test_a_module_that_refuses_late_is_as_before_and_so_are_those_before_it(tmp_path, strict):
    path = saved(tmp_path, model=network(), first=Hooked(5.0), second=Hooked(7.0))
    objects = {"model": network(1), "first": Hooked(1.0), "second": Hooked(2.0)}
    before = digest(states(**objects))
    for order in (["model", "first", "second"], ["second", "model"], ["first", "second"]):
        with pytest.raises(CheckpointError, match="too late; nothing was changed"):
            restore(path, **{name: objects[name] for name in order}, strict=strict)
        assert digest(states(**objects)) == before


@pytest.mark.parametrize("when", ["before a part", "after a part", "after all"])
def test_a_hook_that_refuses_late_leaves_all_as_before(tmp_path, when):
    source = network()
    path = saved(tmp_path, hooked=source, model=network())
    hooked, model = network(1), network(2)

    def refuse(*args):
        if torch.equal(hooked[0].weight, source[0].weight):
            raise RuntimeError("late")

    if when == "before a part":
        hooked[2].register_load_state_dict_pre_hook(refuse)
    else:
        (hooked[2] if when == "after a part" else hooked).register_load_state_dict_post_hook(refuse)
    before = digest(states(hooked=hooked, model=model))
    for objects in ({"hooked": hooked, "model": model}, {"model": model, "hooked": hooked}):
        for strict in (True, False):
            with pytest.raises(CheckpointError, match="late; nothing was changed"):
                restore(path, strict=strict, **objects)
            assert digest(states(hooked=hooked, model=model)) == before


def test_a_module_is_put_back_with_its_own_versions(tmp_path):
    class Versioned(Hooked):
        _version = 2

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
            if local_metadata.get("version", 1) < 2:
                state_dict[prefix + "weight"] = -state_dict[prefix + "weight"]
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    path = saved(tmp_path, model=Versioned(-3.0), counter=Counter(7))
    other = Versioned(1.0)
    with pytest.raises(CheckpointError, match="nothing was changed"):
        restore(path, model=other, counter=Counter(refuses=[7]))
    assert torch.equal(other.weight, torch.ones(2))


class Stubborn(Counter):
    """It never takes a state, not even its own."""

    def load_state_dict(self, state):
        self.value = state["value"]
        raise RuntimeError("never")


def test_what_cannot_be_put_back_is_named_and_the_others_are(tmp_path):
    path = saved(tmp_path, first=Counter(7), stubborn=Counter(8), model=network())
    first, model = Counter(1), network(1)
    before = digest(model.state_dict())
    with pytest.raises(
        CheckpointError, match="never; stubborn may hold a part of it: build that a"
    ):
        restore(path, first=first, stubborn=Stubborn(2), model=model)
    assert first.value == 1
    assert digest(model.state_dict()) == before


def test_ctrl_c_on_the_way_puts_all_back_and_goes_on(tmp_path):
    class Interrupted(Counter):
        def load_state_dict(self, state):
            if state["value"] == 7:
                raise KeyboardInterrupt
            self.value = state["value"]

    model, optimizer = trained()
    path = saved(tmp_path, model=model, optimizer=optimizer, counter=Counter(7), first=Counter(3))
    other, its = trained(seed=1)
    before = digest(states(m=other, o=its))
    first = Counter(1)
    with pytest.raises(KeyboardInterrupt):
        restore(path, first=first, model=other, optimizer=its, counter=Interrupted())
    assert first.value == 1
    assert digest(states(m=other, o=its)) == before


def test_a_state_that_cannot_be_copied_is_told(tmp_path):
    class Locked(Counter):
        def state_dict(self):
            import threading

            return {"value": threading.Lock()}

    save(tmp_path / "c", {"locked": {"value": 1}})
    with pytest.raises(CheckpointError, match=r"cannot restore locked .*TypeError"):
        restore(tmp_path / "c", locked=Locked())


def test_the_order_in_which_objects_are_given_is_that_of_the_reports(tmp_path):
    objects = everything(1, of_torch=False)
    path = saved(tmp_path, **objects)
    for names in ([*objects], [*objects][::-1]):
        others = everything(0, of_torch=False)
        assert [*restore(path, **{name: others[name] for name in names})] == names
        assert digest(states(**others)) == digest(states(**objects))


@pytest.mark.parametrize("make", [torch.optim.AdamW, descend.AdamW])
def test_models_and_optimizers_are_not_copied_for_fear_of_others(tmp_path, monkeypatch, make):
    """Of the largest objects there is no room for a copy."""
    model, optimizer = trained(make)
    path = saved(tmp_path, model=model, optimizer=optimizer, counter=Counter(7))
    copied = []
    original = MODULE._copy_of_state
    monkeypatch.setattr(
        MODULE,
        "_copy_of_state",
        lambda thing: (copied.append(type(thing).__name__), original(thing))[1],
    )
    other, its = trained(make, seed=1)
    restore(path, model=other, optimizer=its, counter=Counter())
    assert copied == ["Counter"]


def test_the_state_that_was_loaded_is_not_changed():
    model, optimizer = trained()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state = copy.deepcopy(state)
    before = digest(state)
    other, its = trained(seed=1)
    restore_all("a test", state, {"model": other, "optimizer": its})
    stepped(other, its)
    assert digest(state) == before


def test_the_examples_run():
    assert doctest.testmod(MODULE).failed == 0


# Every optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", CATALOGUE)
def test_f3_every_optimizer_comes_back_bit_for_bit_and_goes_on(tmp_path, name, dtype):
    params = parameters(dtype)
    optimizer = CATALOGUE[name](params, lr=0.01)
    train(name, optimizer, params, 3)
    path = saved(tmp_path, optimizer=optimizer)
    others = [Parameter(param.detach().clone()) for param in params]
    other = CATALOGUE[name](others, lr=0.5)
    train(name, other, [Parameter(param.detach().clone()) for param in params], 1)
    report = restore(path, optimizer=other)["optimizer"]
    assert report.matched == (0, 1)
    assert digest(other.state_dict()) == digest(optimizer.state_dict())
    train(name, optimizer, params, 3, first=3)
    train(name, other, others, 3, first=3)
    assert digest(other.state_dict()) == digest(optimizer.state_dict())
    for one, two in zip(params, others, strict=True):
        assert_same(one.detach(), two.detach())


def f1_objects(name, dtype):
    model = torch.nn.Sequential(Linear(3, 4), torch.nn.Tanh(), Linear(4, 2)).to(dtype)
    options = {"max_iter": 4} if name == "lbfgs" else {}
    optimizer = CATALOGUE[name](model.named_parameters(), lr=0.05, **options)
    return model, optimizer, CosineAnnealingLR(optimizer, 8)


def f1_epoch(epoch, model, optimizer, scheduler):
    """One epoch of three batches that depend on the epoch alone; its loss and lr."""
    generator = torch.Generator().manual_seed(epoch)
    dtype = model[0].weight.dtype
    total = 0.0
    for _ in range(3):
        x = torch.randn(6, 3, generator=generator).to(dtype)
        y = torch.randn(6, 2, generator=generator).to(dtype)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        total += optimizer.step(closure).item()
    rate = optimizer.param_groups[0]["lr"]
    scheduler.step()
    return total, rate


# SparseAdam takes sparse gradients, which the model here has not
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted({*CATALOGUE} - {"sparseadam"}))
def test_f1_a_training_goes_on_from_the_next_epoch_bit_for_bit(tmp_path, name, dtype):
    torch.manual_seed(3)
    model, optimizer, scheduler = f1_objects(name, dtype)
    whole = []
    for epoch in range(6):
        whole.append(f1_epoch(epoch, model, optimizer, scheduler))
        if epoch == 2:
            save(
                tmp_path / "c",
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "epoch": epoch,
                    "loss": whole[-1][0],
                },
            )
    torch.manual_seed(4)
    other = f1_objects(name, dtype)
    state = descend.checkpoint.load(tmp_path / "c")
    for thing, entry in zip(other, ("model", "optimizer", "scheduler"), strict=True):
        thing.load_state_dict(state[entry])
    assert state["epoch"] == 2
    assert_same(state["loss"], whole[2][0])
    resumed = [f1_epoch(epoch, *other) for epoch in range(state["epoch"] + 1, 6)]
    assert_same(resumed, whole[3:])
    assert all(math.isfinite(loss) for loss, _ in whole)
    assert len({rate for _, rate in whole}) == 6
    names = ("model", "optimizer", "scheduler")
    mine = dict(zip(names, (model, optimizer, scheduler), strict=True))
    assert digest(states(**dict(zip(names, other, strict=True)))) == digest(states(**mine))
