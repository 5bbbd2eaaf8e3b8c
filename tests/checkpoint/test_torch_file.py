"""Files of torch: read as people write them, without running code; written for plain torch."""

import argparse
import collections
import datetime
import doctest
import enum
import functools
import io
import os
import pathlib
import pickle
import re
import stat
import subprocess
import sys
import threading
import types
import uuid
import warnings
import zipfile
from contextlib import suppress
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import Linear, Parameter

import descend
from checkpoint.bits import assert_same, states
from checkpoint.versioned import Versioned
from children import python
from descend.checkpoint import (
    digest,
    load,
    load_torch,
    part_names,
    restore,
    safe_unpickle,
    save,
    save_torch,
    torch_archive,
    torch_file,
)
from descend.errors import CheckpointError, CheckpointWarning, MissingPartError
from optimizers.any_optimizer import IN_TORCH, parameters, torchs, train


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(Linear(3, 4), torch.nn.BatchNorm1d(4), Linear(4, 2))


def trained(make=torch.optim.AdamW, **options):
    """A network after three steps, with its optimizer."""
    model = network()
    optimizer = make(model.parameters(), lr=0.01, **options)
    for seed in range(3):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def plain_torch(path):
    """What torch alone reads of a file, without code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse tensor")  # since 2.14
        return torch.load(path, weights_only=True)


def written(tmp_path, state, **how):
    torch.save(state, tmp_path / "x.pth", **how)
    return tmp_path / "x.pth"


def read(tmp_path, state, **how):
    return load_torch(written(tmp_path, state, **how))


# Read: files as people write them


@pytest.mark.parametrize(
    ("model", "optimizer", "scheduler"),
    [
        ("model_state_dict", "optimizer_state_dict", "scheduler_state_dict"),  # torch's tutorial
        ("state_dict", "optimizer", "scheduler"),  # torch's ImageNet example
        ("model", "optimizer", "lr_scheduler"),  # torchvision's references
        ("net", "optim", "schedule"),
        ("network", "optimizer_state", "lr_scheduler_state_dict"),
        ("weights", "optim_state_dict", "scheduler"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_f4_a_file_of_the_usual_shape_is_read(tmp_path, model, optimizer, scheduler, zipped):
    net, stepped = trained()
    schedule = torch.optim.lr_scheduler.StepLR(stepped, 2)
    content = {
        "epoch": 3,
        model: net.state_dict(),
        optimizer: stepped.state_dict(),
        scheduler: schedule.state_dict(),
        "loss": torch.tensor(0.25),
        "best_acc1": 76.5,
    }
    state = read(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert [*state] == ["model", "optimizer", "scheduler", "epoch", "loss", "best_acc1"]
    ours = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    assert digest(state) == digest({name: content[ours.get(name, name)] for name in state})
    assert state["epoch"] == 3
    assert state["loss"] == 0.25


def test_f4_a_bare_state_dict_is_a_model_with_its_order_and_its_versions(tmp_path):
    saved = network().state_dict()
    state = read(tmp_path, saved)
    assert [*state] == ["model"]
    assert [*state["model"]] == [*saved]
    assert state["model"]._metadata == saved._metadata
    network().load_state_dict(state["model"])


def test_f4_a_bare_state_dict_that_lost_its_type_is_a_model_too(tmp_path):
    saved = dict(network().state_dict())
    assert [*read(tmp_path, saved)] == ["model"]
    assert [*read(tmp_path, {**saved, "2._extra_state": {"scale": 3}})] == ["model"]


def test_a_bare_state_dict_with_a_part_that_is_called_model_is_one_model(tmp_path):
    whole = torch.nn.ModuleDict({"model": Linear(2, 2), "optimizer": Linear(1, 1)})
    assert [*read(tmp_path, whole.state_dict())["model"]] == [*whole.state_dict()]


def test_what_has_a_name_of_descends_is_not_renamed(tmp_path):
    state = read(
        tmp_path,
        {"model": {"w": torch.ones(1)}, "net": {"w": torch.zeros(1)}, "state_dict": {"a": 1}},
    )
    assert state["model"]["w"] == 1
    assert state["net"]["w"] == 0
    assert state["state_dict"] == {"a": 1}
    named = {"model": "resnet18", "state_dict": {"w": torch.ones(1)}, "model_state_dict": {}}
    assert_same(read(tmp_path, named), named)


def test_any_other_state_dict_gets_its_short_name(tmp_path):
    content = {"model": {}, "ema_state_dict": {"n": 3}, "discriminator_state_dict": {"n": 4}}
    content["scaler_state_dict"] = {"scale": 2.0}
    state = read(tmp_path, content)
    assert state["ema"] == {"n": 3}
    assert state["discriminator"] == {"n": 4}
    assert state["scaler"] == {"scale": 2.0}
    taken = read(tmp_path, {"ema": 1, "ema_state_dict": {"n": 3}})
    assert taken == {"ema": 1, "ema_state_dict": {"n": 3}}


def test_whole_dicts_with_nested_things_come_back_as_they_were(tmp_path):
    content = {
        "model": {"0.weight": torch.ones(2)},
        "history": [{"loss": 0.5, "lr": [0.1, None]}, {"loss": float("inf"), "lr": []}],
        "config": {"betas": (0.9, 0.999), "name": "ü", "sizes": {1, 2}, 3: {"deep": [[()]]}},
        "seen": 2**70,
        "nothing": None,
        "yes": True,
        "raw": b"\x00\xff",
        "rng": torch.get_rng_state(),
        "dtype": torch.bfloat16,
    }
    assert_same(read(tmp_path, content), content)


def test_names_of_data_parallel_stay_and_the_error_says_what_to_do(tmp_path):
    model = network()
    path = written(tmp_path, {"state_dict": torch.nn.DataParallel(model).state_dict()})
    assert all(name.startswith("module.") for name in load_torch(path)["model"])
    other = Linear(9, 9)
    other = network().requires_grad_(False)
    for parameter in other.parameters():
        parameter.zero_()
    with pytest.raises(CheckpointError, match=r"give model=torch\.nn\.ModuleDict\({'module': mod"):
        restore(path, model=other)
    restore(path, model=torch.nn.ModuleDict({"module": other}))
    assert digest(other.state_dict()) == digest(model.state_dict())


def lightning(optimizers=1, schedulers=1):
    """A checkpoint of the shape that Lightning 2.6 writes, and what was saved in it."""
    model, optimizer = trained()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    optimizer.step()
    schedule.step()
    progress = {"total": {"ready": 12, "completed": 12}, "current": {"ready": 6, "completed": 6}}
    content = {
        "epoch": 2,
        "global_step": 12,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": collections.OrderedDict(
            (f"net.{name}", value) for name, value in model.state_dict().items()
        ),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {
                "best_model_score": None,
                "kth_value": torch.tensor(float("inf")),
                "best_k_models": {},
            }
        },
        "optimizer_states": [optimizer.state_dict()] * optimizers,
        "lr_schedulers": [schedule.state_dict()] * schedulers,
        "MixedPrecision": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 4},
        "hparams_name": "kwargs",
        "hyper_parameters": {"hidden": 4, "two": False},
    }
    return content, model, optimizer, schedule


def test_f4_a_checkpoint_of_lightning_is_read_into_descends_objects(tmp_path):
    content, model, optimizer, schedule = lightning()
    path = written(tmp_path, content)
    state = load_torch(path)
    assert {"model", "optimizer", "scheduler", "scaler", "epoch", "global_step"} <= state.keys()
    assert not {"state_dict", "optimizer_states", "lr_schedulers"} & state.keys()
    other = network()
    ours = descend.AdamW(other.parameters(), lr=1.0)
    theirs = descend.lr_scheduler.StepLR(ours, 2, 0.5)
    restore(path, model=torch.nn.ModuleDict({"net": other}), optimizer=ours, scheduler=theirs)
    assert digest(other.state_dict()) == digest(model.state_dict())
    assert_same_state(ours, optimizer)
    assert theirs.last_epoch == schedule.last_epoch
    assert ours.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_f4_several_optimizers_of_lightning_are_numbered_and_none_is_none(tmp_path):
    content, *_ = lightning(optimizers=2, schedulers=0)
    state = read(tmp_path, content)
    assert {"optimizer_0", "optimizer_1"} <= state.keys()
    assert not {"optimizer", "scheduler", "lr_schedulers", "optimizer_states"} & state.keys()


def test_lightnings_own_kind_of_dict_is_a_dict(tmp_path, monkeypatch):
    module = types.ModuleType("pytorch_lightning.utilities.parsing")

    class AttributeDict(dict):
        __module__ = module.__name__
        __qualname__ = "AttributeDict"

    module.AttributeDict = AttributeDict
    for name in ("pytorch_lightning", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = written(tmp_path, {"hyper_parameters": AttributeDict(lr=0.1)})
    monkeypatch.undo()
    assert_same(load_torch(path), {"hyper_parameters": {"lr": 0.1}})


# Read: other classes' plain data


class Colour(str, enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (argparse.Namespace(lr=0.1, sizes=[1], sub=argparse.Namespace(a=None)),
         {"lr": 0.1, "sizes": [1], "sub": {"a": None}}),
        (argparse.Namespace(), {}),
        (types.SimpleNamespace(best=np.float64(0.5)), {"best": np.float64(0.5)}),
        (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
        (collections.defaultdict(None, {1: (argparse.Namespace(a=1),)}), {1: ({"a": 1},)}),
        (frozenset([1, 2]), frozenset([1, 2])),
        (pathlib.PurePosixPath("/a/b"), None),
        (pathlib.Path("/data/x"), "/data/x"),
        (pathlib.Path("runs/x"), "runs/x"),
        (pathlib.Path(), "."),
        (b"", b""),
        (bytearray(), bytearray()),
        (torch.torch_version.TorchVersion("2.13.0"), "2.13.0"),
        (np.float32(0.1), np.float32(0.1)),
        (np.int64(-3), np.int64(-3)),
        (np.bool_(True), np.bool_(True)),
        (np.complex64(1 + 2j), np.complex64(1 + 2j)),
        (np.arange(6, dtype=np.int16).reshape(2, 3), np.arange(6, dtype=np.int16).reshape(2, 3)),
        (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(2, 3)),
        (np.arange(3, dtype=">f4"), np.arange(3, dtype="f4")),
        (np.array(2.5), np.array(2.5)),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (np.array([True, False]), np.array([True, False])),
        (np.array(["cat", "dog"]), np.array(["cat", "dog"])),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_f4_harmless_classes_come_back_as_plain_data(tmp_path, value, plain, zipped):
    path = written(tmp_path, {"x": [value]}, _use_new_zipfile_serialization=zipped)
    if plain is None:
        with pytest.warns(CheckpointWarning, match="PurePosixPath"):
            assert load_torch(path) == {"x": [None]}
        return
    assert_same(load_torch(path), {"x": [plain]})


def linked():
    """A dict of a class of its own that holds a tensor and itself twice."""
    inner = OwnDict(lr=0.1, w=torch.ones(2))
    return OwnDict(a=inner, b=inner)


class OwnDict(dict):
    """As configurations are: one with attributes."""

    def __init__(self, **values):
        super().__init__(**values)
        self.frozen = True


class OwnList(list):
    pass


class OwnTensor(torch.Tensor):
    pass


Own = collections.namedtuple("Own", "a b")

# What is left out, by the name that it is told by
FOREIGN = [
    (np.array([1, None], dtype=object), "NumPy array of dtype 'O8'"),
    (np.array(["2020-01-01"], dtype="M8[D]"), "NumPy array of dtype 'M8'"),
    (list, "builtins.list"), (np.float64, "numpy.float64"), (print, "builtins.print"),
    (np.random.RandomState(0), "numpy.random.*RandomState|numpy.random._pickle"),
    (np.random.default_rng(0), "numpy.random._pickle"), (Colour.RED, "test_torch_file.Colour"),
    (Linear(1, 1), "torch.nn.modules.linear.Linear"), (np.dtype("f8"), "numpy.dtype"),
    (torch.nn.CrossEntropyLoss(torch.ones(3)), "torch.nn.modules.loss.CrossEntropyLoss"),
    (functools.partial(torch.optim.AdamW, lr=0.1), "functools.partial"),
    (functools.partial(print), "functools.partial"), (torch.optim.AdamW, "torch.optim.*AdamW"),
    (datetime.timedelta(3), "datetime.timedelta"), (datetime.datetime(2026, 1, 1), "datetime"),
    (Decimal("1.5"), "decimal.Decimal"), (Own(1, 2), "test_torch_file.Own"),
    (slice(1, 2), "builtins.slice|__builtin__.slice"), (range(3), "range"),
    (torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1), "torch.optim.sgd.SGD"),
    (network, "test_torch_file.network"), (uuid.UUID(int=3), "uuid.UUID"),
]  # fmt: skip
KEPT = [  # of another class, and yet read: what was put into a kind of dict or list
    (OwnDict(a=1), {"a": 1}), (OwnList([1, (2,)]), [1, (2,)]),
    (collections.deque([1, 2]), [1, 2]), (torch.ones(2).as_subclass(OwnTensor), torch.ones(2)),
    (linked(), {"a": {"lr": 0.1, "w": torch.ones(2)}, "b": {"lr": 0.1, "w": torch.ones(2)}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "name"), FOREIGN, ids=lambda one: one if isinstance(one, str) else type(one).__name__
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_p42_what_only_code_can_make_is_left_out_and_named(tmp_path, value, name, zipped):
    weights = network().state_dict()
    parts = {
        "x": value,
        "lr": 0.1,
        "list": [1, value, (value, 2.5)],
        "all": {"deep": [{"y": value}]},
    }
    state = {"state_dict": weights, "hyper_parameters": parts, "epoch": 3}
    path = written(tmp_path, state, _use_new_zipfile_serialization=zipped)
    with pytest.warns(CheckpointWarning) as told:
        back = load_torch(path)
    assert_same(
        back,
        {"model": weights, "epoch": 3,
         "hyper_parameters": {"lr": 0.1, "list": [1, None, (None, 2.5)], "all": {"deep": [{}]}}},
    )  # fmt: skip
    (message,) = [str(one.message) for one in told]
    for place in ("x", "list.1", "list.2.0", "all.deep.0.y"):
        assert re.search(rf"hyper_parameters\.{place} \(a [^,]*({name})", message), (place, message)
    assert not {"\n", "\x1b"} & {*message}
    assert "weights_only=False" not in message


@pytest.mark.parametrize(("value", "plain"), KEPT, ids=repr)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_f4_what_an_unknown_kind_of_dict_or_list_holds_is_read(tmp_path, value, plain, zipped):
    state = {"model": network().state_dict(), "x": value}
    path = written(tmp_path, state, _use_new_zipfile_serialization=zipped)
    back = load_torch(path)
    assert_same(back["x"], plain)
    assert_same(back["model"], state["model"])


def test_f4_tensors_share_their_memory_and_kind_where_something_is_left_out(tmp_path):
    model, optimizer = trained()
    wide = torch.arange(6.0)
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "wide": wide,
        "part": wide[::2], "again": wide, "p": Parameter(wide), "half": wide.bfloat16(),
        "sparse": wide.to_sparse(), "loss": torch.nn.MSELoss(),
    }  # fmt: skip
    with pytest.warns(CheckpointWarning, match="loss"):
        back = read(tmp_path, state)
    del state["loss"]
    assert_same({n: part for n, part in back.items() if n != "sparse"},
                {n: part for n, part in state.items() if n != "sparse"})  # fmt: skip
    assert torch.equal(back["sparse"].to_dense(), wide)
    assert back["wide"] is back["again"]
    assert back["part"].untyped_storage().data_ptr() == back["wide"].untyped_storage().data_ptr()


def test_f4_only_what_is_of_the_wanted_parts_is_told(tmp_path):
    model = network()
    state = {"model_state_dict": model.state_dict(), "args": {"loss": torch.nn.MSELoss()}}
    path = written(tmp_path, state)
    assert load(path, parts=["model"]).keys() == {"model"}
    restore(path, model=network())
    with pytest.warns(CheckpointWarning, match=r"args\.loss \(a torch.nn.modules.loss.MSELoss\)"):
        load(path, parts=["args"])


def test_f4_a_part_that_was_left_out_is_missing_and_told_why(tmp_path):
    path = written(tmp_path, {"model": network(), "epoch": 3})
    with pytest.warns(CheckpointWarning, match=r"model \(a torch\.nn\S+Sequential\)"):
        assert load_torch(path) == {"epoch": 3}
    with pytest.raises(MissingPartError, match=r"model is a torch.*Sequential, which only running"):
        restore(path, model=network())


def test_a_whole_model_is_refused_by_its_class(tmp_path):
    for state in (network(), {"model": network()}, [network()][0]):
        with pytest.raises(CheckpointError, match=r"Sequential, which only running code"):
            read(tmp_path, state)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_any_pickle_protocol_is_read(tmp_path, protocol):
    state = {"model": network().state_dict(), "a": [1, (), {2}, frozenset([3])], "b": b"x" * 300,
             "c": "x" * 300, "d": 2**70, "e": bytearray(b"y"), "f": 1.5, "g": [[]] * 3}  # fmt: skip
    back = read(tmp_path, state, pickle_protocol=protocol)
    assert_same(back, state)
    with pytest.warns(CheckpointWarning, match="h .a datetime.timedelta"):
        read(tmp_path, {**state, "h": datetime.timedelta(1)}, pickle_protocol=protocol)


# Read: code never runs


class Evil:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def attacks(canary):
    """Values that make the canary's file where code runs."""
    text = f"open({str(canary)!r}, 'w').close()"
    touch = f"touch {canary}"
    return {
        "os.system": Evil(os.system, touch),
        "subprocess.Popen": Evil(subprocess.Popen, ["touch", str(canary)]),
        "eval": Evil(eval, text),
        "exec": Evil(exec, text),
        "open": Evil(open, str(canary), "w"),
        "os.mkdir": Evil(os.mkdir, str(canary)),
        "pickle.loads": Evil(pickle.loads, pickle.dumps(Evil(os.system, touch))),
        "torch.load": Evil(torch.load, str(canary) + ".evil", None, None),
        "numpy.load": Evil(np.load, str(canary) + ".npy", None, True),
        "runpy": Evil(__import__("runpy").run_path, str(canary) + ".py"),
        "in a namespace": argparse.Namespace(a=Evil(os.system, touch)),
        "in a set": {frozenset([1]): Evil(eval, text)},
    }


@pytest.mark.parametrize("attack", attacks("x"))
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("forced", [True, False], ids=["weights_only forced off", "normal"])
def test_p42_no_code_runs(tmp_path, attack, zipped, forced, monkeypatch):
    canary = tmp_path / "canary"
    (tmp_path / "canary.py").write_text(f"open({str(canary)!r}, 'w').close()")
    np.save(tmp_path / "canary.npy", np.array([1]))
    torch.save({"a": Evil(os.mkdir, str(canary))}, tmp_path / "canary.evil")
    evil = {"model": {"w": torch.ones(1)}, "x": attacks(canary)[attack]}
    path = written(tmp_path, evil, _use_new_zipfile_serialization=zipped)
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.warns(CheckpointWarning, match="x"):
        assert load_torch(path)["model"].keys() == {"w"}
    with pytest.raises(CheckpointError, match="cannot restore"):
        restore(path, model=network())
    assert not canary.exists()


def test_p42_the_attacks_above_are_real(tmp_path):
    path = written(tmp_path, {"x": attacks(tmp_path / "canary")["eval"]})
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()


def test_p42_the_reader_calls_what_torch_has_for_tensors_alone(tmp_path):
    reader = safe_unpickle.Reader(io.BytesIO())
    with pytest.raises(pickle.UnpicklingError, match="no function that is known"):
        reader._called(os.mkdir, (str(tmp_path / "canary"),))
    assert not (tmp_path / "canary").exists()
    for module, name in (("posix", "system"), ("os", "system"), ("builtins", "eval"),
                         ("__builtin__", "getattr"), ("sys", "modules"), ("nt", "system"),
                         ("torch", "load"), ("torch.hub", "load"), ("numpy", "load")):  # fmt: skip
        assert type(reader.find_class(module, name)) is safe_unpickle.Foreign


def stream(*commands):
    """A pickle written by hand in a file of torch's."""
    return b"\x80\x02" + b"".join(commands) + b"."


@pytest.mark.parametrize(
    "content",
    [
        # numpy's functions are called as they never are when NumPy pickles
        stream(b"cnumpy.core.multiarray\nscalar\n", b"X\x01\x00\x00\x00a", b"X\x01\x00\x00\x00b",
               b"\x86R"),
        stream(b"cnumpy.core.multiarray\n_reconstruct\n", b")R"),
        stream(b"cnumpy\nndarray\n", b"K\x03\x85R"),
        stream(b"cnumpy\nndarray\n", b")R", b"K\x05b"),
        # a dtype that says that its items are objects
        stream(b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\ndtype\n", b"X\x02\x00\x00\x00O8",
               b"\x85R", b"X\x08\x00\x00\x00aaaaaaaa", b"\x86R"),
        stream(b"}X\x01\x00\x00\x00a", b"c__builtin__\nlist\n", b")Rs"),
        stream(b"c__builtin__\nbytes\n", b"J\xff\xff\xff\x7f\x85R"),
        stream(b"cargparse\nNamespace\n", b")\x81", b"K\x01b"),
        stream(b"cargparse\nNamespace\n", b")\x81", b"]b"),
        stream(b"]q\x00h\x00a"),  # a list that holds itself
        stream(b"}q\x00X\x01\x00\x00\x00ah\x00s"),
        stream(b"K\x03"),
        stream(b"b"),
        stream(b""),
        b"",
        stream(b"(S'touch x'\nios\nsystem\n"),  # opcodes of old, which call what they name
        stream(b"(cos\nsystem\nS'touch x'\no"),
        stream(b"\x82\x01"),  # what copyreg knows by a number
        stream(b"\x96" + b"\xff" * 7 + b"\x7f"),  # more bytes than there is memory
        stream(b"]" * 5000, b"a" * 4999),  # nested deeper than any recursion
    ],
)  # fmt: skip
def test_p42_pickles_written_by_hand_are_refused(tmp_path, content):
    torch.save({}, tmp_path / "empty.pth")
    with (
        zipfile.ZipFile(tmp_path / "empty.pth") as old,
        zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(CheckpointError, match=r"cannot load .*x\.pth"):
        load_torch(tmp_path / "x.pth")


def test_torchs_own_list_of_allowed_classes_is_as_it_was(tmp_path):
    before = {*torch.serialization.get_safe_globals()}
    path = written(tmp_path, {"args": argparse.Namespace(a=1)})
    load_torch(path)
    assert {*torch.serialization.get_safe_globals()} == before
    with pytest.raises(CheckpointError):
        read(tmp_path, {"x": print})
    assert {*torch.serialization.get_safe_globals()} == before
    path = written(tmp_path, {"args": argparse.Namespace(a=1)})
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        plain_torch(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert load_torch(path)["args"] == argparse.Namespace(a=1)  # the user's own choice


def test_a_part_that_is_not_there_is_refused_where_a_name_is_a_number(tmp_path):
    path = written(tmp_path, {0: {"a": 1}, "b": 2})
    with pytest.raises(CheckpointError, match=r"cannot load model .* it holds 0, b"):
        load(path, parts=["model"])


def test_two_threads_read_at_a_time(tmp_path):
    path = written(tmp_path, {"args": argparse.Namespace(a=1), "w": torch.ones(9)})
    found = []

    def work():
        found.extend(load_torch(path)["args"] for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"a": 1}] * 200


# Read: damage


SMALL = {"model_state_dict": {"w": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)},
         "epoch": 3, "best": float("inf")}  # fmt: skip


def test_p41_no_flipped_bit_of_a_torch_file_goes_unseen(tmp_path):
    whole = written(tmp_path, SMALL).read_bytes()
    expected = digest(load_torch(tmp_path / "x.pth"))
    refused = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place // 3 % 8)
        (tmp_path / "d.pth").write_bytes(damaged)
        try:
            state = load_torch(tmp_path / "d.pth")
        except CheckpointError:
            refused += 1
        else:  # it was in the filling between the parts
            assert digest(state) == expected, place
    assert refused > len(whole) / 6


def test_p41_a_flipped_bit_in_a_tensor_names_the_part(tmp_path):
    path = written(tmp_path, SMALL)
    content = path.read_bytes()
    place = content.index(np.arange(3, dtype="f4").tobytes())
    damaged = bytearray(content)
    damaged[place + 5] ^= 4
    path.write_bytes(damaged)
    assert not torch.equal(plain_torch(path)["model_state_dict"]["w"], torch.arange(3.0))
    with pytest.raises(CheckpointError, match=r"the part .*/data/0 is not what was saved"):
        load_torch(path)


def test_too_little_memory_is_not_called_a_damage(tmp_path, monkeypatch):
    path = written(tmp_path, SMALL)

    def full(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(CheckpointError, match=r"x\.pth: there is not enough memory for it$"):
        load_torch(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_every_truncation_of_a_torch_file_is_refused(tmp_path, zipped):
    whole = written(tmp_path, SMALL, _use_new_zipfile_serialization=zipped).read_bytes()
    for length in range(0, len(whole), 3):
        (tmp_path / "d.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cannot load .*d\.pth: "):
            load_torch(tmp_path / "d.pth")


def test_a_flipped_bit_of_the_old_format_raises_nothing_else(tmp_path):
    whole = written(tmp_path, SMALL, _use_new_zipfile_serialization=False).read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place // 3 % 8)
        (tmp_path / "d.pth").write_bytes(damaged)
        with suppress(CheckpointError, CheckpointWarning):  # an error here: what is left out
            load_torch(tmp_path / "d.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty, damaged, or no file of torch.save$"),
        (b"hello\n", "it is damaged, or no file of torch.save$"),
        (b"PK\x03\x04 is how a zip begins", "damaged: the list of its parts is missing at its end"),
        (pickle.dumps({"a": 1}), "damaged, or no file of torch.save"),
        (os.urandom(1000), "damaged, or no file of torch.save"),
    ],
    ids=["empty", "text", "begin of a zip", "pickle", "noise"],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_torch(tmp_path / "x.pth")


def test_no_file_a_folder_and_another_archive_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_torch(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match=r"cannot load .* is a folder, and no regular file"):
        load_torch(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as other:
        other.writestr("hello.txt", "hello")
    with pytest.raises(CheckpointError, match="damaged, or no file of torch"):
        load_torch(tmp_path / "x.zip")


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(Linear(1, 1)), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="it is a program of torch"):
        load_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), 3, None, "text"], ids=repr)
def test_what_is_no_dict_is_refused(tmp_path, content):
    with pytest.raises(CheckpointError, match="a dict of state_dicts is needed"):
        read(tmp_path, content)


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = written(tmp_path, SMALL)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_torch(path)["epoch"] == 3


def test_nothing_that_was_read_hangs_on_the_file(tmp_path):
    from torch.utils.serialization import config

    path = written(tmp_path, {"w": torch.zeros(1000)})
    config.load.mmap = True
    try:
        state = load_torch(path)
    finally:
        config.load.mmap = False
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(state["model"]["w"], torch.zeros(1000))


# Written: what plain torch reads


def shared_view():
    buffer = torch.arange(1000.0)
    return {"a": buffer[:3], "b": buffer[10:12], "c": buffer[:3]}


TENSORS = {
    "float32": lambda: torch.randn(3, 4),
    "bfloat16": lambda: torch.randn(3).bfloat16(),
    "float16": lambda: torch.randn(3).half(),
    "float8": lambda: torch.randn(3).to(torch.float8_e4m3fn),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
    "uint16": lambda: torch.tensor([1, 65535], dtype=torch.uint16),
    "bool": lambda: torch.tensor([True, False]),
    "0-d": lambda: torch.tensor(3.5),
    "empty": lambda: torch.zeros(0, 3),
    "shared memory": lambda: torch.randn(3).share_memory_(),
    "parameter": lambda: Parameter(torch.randn(3)),
    "needs a gradient": lambda: torch.randn(3, requires_grad=True),
    "result": lambda: torch.randn(3, requires_grad=True) * 2,
    "transposed": lambda: torch.randn(3, 4).t(),
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "every other": lambda: torch.randn(10)[::2],
    "channels last": lambda: torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "subclass": lambda: torch.randn(3).as_subclass(type("Mine", (torch.Tensor,), {})),
    "nan": lambda: torch.tensor([float("nan"), -0.0, float("-inf")]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_f4_every_kind_of_tensor_is_read_by_plain_torch_bit_for_bit(tmp_path, name):
    torch.manual_seed(0)
    tensor = TENSORS[name]()
    save_torch(tmp_path / "x.pth", {"x": tensor, "n": [tensor]})
    back = plain_torch(tmp_path / "x.pth")
    assert type(back["x"]) is torch.Tensor
    assert not back["x"].requires_grad
    expected = tensor.detach().as_subclass(torch.Tensor)
    assert_same(back["x"], expected)
    assert_same(back["n"][0], expected)
    if tensor.numel():
        assert back["x"].data_ptr() == back["n"][0].data_ptr()
    assert digest(load_torch(tmp_path / "x.pth")) == digest({"x": expected, "n": [expected]})


def test_sparse_tensors_are_read_by_plain_torch(tmp_path):
    save_torch(tmp_path / "x.pth", {"x": torch.eye(3).to_sparse(), "y": torch.zeros(2).to_sparse()})
    back = plain_torch(tmp_path / "x.pth")
    assert torch.equal(back["x"].to_dense(), torch.eye(3))
    assert torch.equal(back["y"].to_dense(), torch.zeros(2))


def test_tied_weights_are_one_tensor_again(tmp_path):
    embedding, head = torch.nn.Embedding(100, 100), Linear(100, 100, bias=False)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "head": head})
    save_torch(tmp_path / "x.pth", {"model": model.state_dict(), "turned": head.weight.t()})
    back = plain_torch(tmp_path / "x.pth")
    names = ("embedding.weight", "head.weight")
    first, second = (back["model"][name].data_ptr() for name in names)
    assert first == second == back["turned"].data_ptr()
    assert (tmp_path / "x.pth").stat().st_size < 1.2 * embedding.weight.nbytes


def test_a_view_takes_no_more_along_than_it_shows(tmp_path):
    secret = torch.full((100_000,), 7.0)
    secret[:3] = 1.0
    save_torch(tmp_path / "x.pth", {"x": secret[:3], **shared_view()})
    assert (tmp_path / "x.pth").stat().st_size < 5000
    back = plain_torch(tmp_path / "x.pth")
    assert_same(back, {"x": torch.ones(3), **shared_view()})
    assert back["a"].data_ptr() == back["c"].data_ptr()


def test_a_state_dict_keeps_its_order_and_its_versions(tmp_path):
    saved = network().state_dict()
    save_torch(tmp_path / "x.pth", saved)
    back = plain_torch(tmp_path / "x.pth")
    assert type(back) is collections.OrderedDict
    assert [*back] == [*saved]
    assert back._metadata == saved._metadata
    network().load_state_dict(back)


def test_a_module_that_changed_its_format_reads_its_own_files(tmp_path):
    save_torch(tmp_path / "x.pth", {"model": Versioned().state_dict()})
    other = Versioned()
    restore(tmp_path / "x.pth", model=other, strict=True)
    assert torch.equal(other.weight, torch.arange(3.0))
    restore(tmp_path / "x.pth", model=other, strict=False)
    assert torch.equal(other.weight, torch.arange(3.0))


class Pair(collections.namedtuple("Pair", "a b")):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.1), 0.1), (np.float32(0.1), float(np.float32(0.1))), (np.int8(-3), -3),
        (np.bool_(True), True), (np.complex128(1j), 1j), (np.str_("a"), "a"),
        (np.arange(3), torch.arange(3)), (np.array(2.5), torch.tensor(2.5, dtype=torch.float64)),
        (np.array(["a", "b"]), ["a", "b"]), (np.zeros((0, 2)), torch.zeros(0, 2).double()),
        (np.arange(4.0)[::-2], torch.tensor([3.0, 1.0]).double()),
        (frozenset([1]), {1}), (b"", bytearray()), (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"a"), bytearray(b"a")), (Pair(1, [2]), (1, [2])), (Colour.RED, "red"),
        (enum.IntEnum("Size", "SMALL").SMALL, 1), (True, True), (2**100, 2**100),
        (torch.torch_version.TorchVersion("2.6"), "2.6"), (torch.Size([1]), torch.Size([1])),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (types.MappingProxyType({1: 2}), {1: 2}), (float("-inf"), -float("inf")),
        (collections.Counter("aab"), collections.Counter("aab")), (torch.float16, torch.float16),
        (torch.device("cuda:1"), torch.device("cuda:1")), ({np.int64(3): 1}, {3: 1}),
        ({(1, 2): 3, 1.5: 4, None: 5}, {(1, 2): 3, 1.5: 4, None: 5}),
    ],
    ids=repr,
)  # fmt: skip
def test_f4_values_are_written_as_plain_torch_reads_them(tmp_path, value, plain):
    save_torch(tmp_path / "x.pth", {"x": [value]})
    assert_same(plain_torch(tmp_path / "x.pth"), {"x": [plain]})


@settings(max_examples=20)
@given(state=states())
def test_f4_any_state_is_read_by_plain_torch(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("x") / "x.pth"
    save_torch(path, state)
    assert_same(plain_torch(path), as_torch_has_it(state))


def as_torch_has_it(value):
    """What `save_torch` says that becomes of a value."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: as_torch_has_it(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_torch_has_it(item) for item in value)
    if isinstance(value, frozenset):
        return set(value)
    return bytearray() if value == b"" and isinstance(value, bytes) else value


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"f": print}}, r"a\.f is a builtin_function_or_method; torch reads tensors"),
        ({"model": Linear}, "model is a type"),
        ({"a": [1, object()]}, r"a\.1 is a object"),
        ({"a": {print: 1}}, r"the key a\.<built-in function print> is a builtin"),
        ({"a": {frozenset([1]): 1}}, r"a has the key frozenset"),
        ({"a": {("x", frozenset([1])): 1}}, r"a has the key \('x', frozenset"),
        ({"a": {frozenset([1])}}, "a is a set of sets; torch reads none"),
        ({"a": {("x", b"")}}, "a is a set of sets; torch reads none"),
        ({"a": np.array([None])}, "a is a NumPy value of dtype object"),
        ({"a": np.array(["2020-01-01"], dtype="M8[D]")}, r"a is a NumPy value of dtype datetime64"),
        ({"m": torch.ones(2, device="meta")}, "the tensor m has no values yet"),
        ({"m": torch.nn.LazyLinear(2).state_dict()}, r"the tensor m\.weight has no values yet"),
    ],
)
def test_what_torch_cannot_read_without_code_is_named_and_nothing_is_written(
    tmp_path, state, message
):
    with pytest.raises(CheckpointError, match=rf"cannot write .*x\.pth: {message}"):
        save_torch(tmp_path / "x.pth", state)
    assert not any(tmp_path.iterdir())


def test_a_state_that_holds_itself_is_refused(tmp_path):
    state = {"a": []}
    state["a"].append(state)
    with pytest.raises(CheckpointError, match="holds itself"):
        save_torch(tmp_path / "x.pth", state)


# Written: whole or not at all


def no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.replace"])
def test_p40_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    save_torch(tmp_path / "x.pth", {"x": 1})
    monkeypatch.setattr(step, no_space)
    with pytest.raises(CheckpointError, match=r"cannot write .*x\.pth: No space left on"):
        save_torch(tmp_path / "x.pth", {"x": 2})
    monkeypatch.undo()
    assert plain_torch(tmp_path / "x.pth") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_p40_ctrl_c_leaves_the_old_file(tmp_path, monkeypatch):
    save_torch(tmp_path / "x.pth", {"x": 1})

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_torch(tmp_path / "x.pth", {"x": 2})
    assert plain_torch(tmp_path / "x.pth") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="No such file or directory; it needs an existing"):
        save_torch(tmp_path / "missing" / "x.pth", {"x": 1})
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"folder\.pth is a folder"):
        save_torch(tmp_path / "folder.pth", {"x": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["folder.pth"]
    with pytest.raises(CheckpointError, match="cannot write "):
        save_torch("", {"x": 1})


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda d: (calls.append(stat.S_ISDIR(os.fstat(d).st_mode)), fsync(d))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    save_torch(tmp_path / "x.pth", {"x": 1})
    assert calls == [False, "rename", True]


def test_a_file_tells_nothing_of_where_it_was_written(tmp_path):
    save_torch(tmp_path / "secret_name.pth", {"x": torch.ones(2)})
    content = (tmp_path / "secret_name.pth").read_bytes()
    assert b"secret_name" not in content
    assert b".tmp" not in content
    save_torch(tmp_path / "again.pth", {"x": torch.ones(2)})
    assert (tmp_path / "again.pth").read_bytes() == content


def test_the_state_is_not_changed(tmp_path):
    model, optimizer = trained()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "n": np.arange(3)}
    before = digest(state)
    save_torch(tmp_path / "x.pth", state)
    assert digest(state) == before
    assert state["model"]["0.weight"].data_ptr() == model[0].weight.data_ptr()


# Both ways: objects


def assert_same_state(ours, theirs):
    """The states of two optimizers hold the same bits; descend keeps its steps in float32 too."""
    a, b = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert a.keys() == b.keys()
    for key in b:
        for name, value in b[key].items():
            if isinstance(value, torch.Tensor) and value.dim():
                assert_same(a[key][name], value, f"{key}.{name}")
            elif isinstance(value, int | float | torch.Tensor):
                assert float(a[key][name]) == float(value), f"{key}.{name}"


@pytest.mark.parametrize("name", IN_TORCH)
def test_f4_torchs_optimizers_go_on_in_descend_and_back(tmp_path, name):
    theirs_params = parameters()
    theirs = torchs(name)(theirs_params, lr=0.01)
    train(name, theirs, theirs_params, 3)
    torch.save({"epoch": 1, "optimizer_state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    params = [Parameter(param.detach().clone()) for param in theirs_params]
    ours = descend.optimizers.CATALOGUE[name](params, lr=0.5)
    restore(tmp_path / "theirs.pth", optimizer=ours)
    assert_same_state(ours, theirs)
    assert ours.param_groups[0]["lr"] == 0.01
    train(name, ours, params, 2, first=3)
    save_torch(tmp_path / "ours.pth", {"optimizer": ours.state_dict()})
    back = torchs(name)([Parameter(param.detach().clone()) for param in params], lr=0.5)
    back.load_state_dict(plain_torch(tmp_path / "ours.pth")["optimizer"])
    assert_same_state(ours, back)
    train(name, back, back.param_groups[0]["params"], 1, first=5)


SCHEDULERS = {
    "StepLR": lambda m, o: m.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 4, 4], gamma=0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 6),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.1, 1.0, 6),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 2, 2),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, 12),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 3),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.9**epoch),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, 1.0, 3), m.CosineAnnealingLR(o, 6)], [3]
    ),
}


def lrs(name, scheduler, optimizer, steps):
    seen = []
    for step in range(steps):
        optimizer.step()
        scheduler.step(*[1.0 + 0.1 * (step > 1)] * (name == "ReduceLROnPlateau"))
        seen.append(float(optimizer.param_groups[0]["lr"]))
    return seen


@pytest.mark.filterwarnings("ignore:.*epoch parameter:UserWarning")
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("ours_first", [False, True], ids=["torch to descend", "descend to torch"])
def test_f4_schedulers_go_on_where_the_others_stopped(tmp_path, name, ours_first):
    modules = [torch.optim.lr_scheduler, descend.lr_scheduler]
    makers = [torch.optim.SGD, descend.SGD]
    if ours_first:
        modules.reverse()
        makers.reverse()

    def pair(module, make):
        optimizer = make([Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        return optimizer, SCHEDULERS[name](module, optimizer)

    first_optimizer, first = pair(modules[0], makers[0])
    lrs(name, first, first_optimizer, 4)
    save_torch(
        tmp_path / "x.pth",
        {"optimizer": first_optimizer.state_dict(), "lr_scheduler": first.state_dict()},
    )
    state = plain_torch(tmp_path / "x.pth")
    second_optimizer, second = pair(modules[1], makers[1])
    if ours_first:
        second_optimizer.load_state_dict(state["optimizer"])
        second.load_state_dict(state["lr_scheduler"])
    else:
        restore(tmp_path / "x.pth", optimizer=second_optimizer, scheduler=second)
    assert lrs(name, second, second_optimizer, 5) == pytest.approx(
        lrs(name, first, first_optimizer, 5), rel=1e-12
    )


def test_f4_a_grad_scaler_goes_on(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
    weight = Parameter(torch.ones(2))
    optimizer = descend.SGD([weight], lr=0.1)
    for _ in range(3):
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    torch.save({"model": {}, "scaler_state_dict": scaler.state_dict()}, tmp_path / "x.pth")
    other = torch.amp.GradScaler("cpu")
    restore(tmp_path / "x.pth", scaler=other)
    assert other.state_dict() == scaler.state_dict()
    save_torch(tmp_path / "y.pth", {"scaler": other.state_dict()})
    assert plain_torch(tmp_path / "y.pth")["scaler"] == scaler.state_dict()


READER = """
import sys
sys.modules["descend"] = None
import torch
for path in sys.argv[1:]:
    state = torch.load(path, weights_only=True)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model.load_state_dict(state["model"])
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(state["optimizer"])
    print(sum(p.double().sum() for p in model.parameters()).item(), optimizer.param_groups[0]["lr"],
          int(optimizer.state_dict()["state"][0]["step"]), state["step"])
"""


def test_f4_somebody_without_descend_reads_what_a_run_has_saved(tmp_path):
    model = network()
    optimizer = descend.AdamW(model.named_parameters(), lr=0.25)
    data = torch.utils.data.DataLoader(torch.randn(20, 3), batch_size=5)
    run = descend.Run(tmp_path / "run", loader=data, model=model, optimizer=optimizer)
    for batch in run:
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        optimizer.step()
        run.log(loss=1.0)
    state = load(tmp_path / "run")
    save_torch(tmp_path / "x.pth", {**state, "step": 4})
    done = python("-I", "-c", READER, tmp_path / "x.pth", cwd=tmp_path)
    total = sum(p.double().sum() for p in model.parameters()).item()
    assert done.stdout.split() == [repr(total), "0.25", "4", "4"]
    back = load_torch(tmp_path / "x.pth")
    assert digest({"model": back["model"]}) == digest({"model": state["model"]})
    assert digest({"o": back["optimizer"]}) == digest({"o": state["optimizer"]})


def test_a_file_goes_through_a_checkpoint_and_back(tmp_path):
    content, *_ = lightning()
    state = read(tmp_path, content)
    save(tmp_path / "c", state)
    save_torch(tmp_path / "y.pth", load(tmp_path / "c"))
    assert digest(load_torch(tmp_path / "y.pth")) == digest(state)


def test_a_file_object_is_not_needed(tmp_path):
    """Only paths are taken: the name is what a message says."""
    with pytest.raises(TypeError):
        load_torch(io.BytesIO())


@pytest.mark.parametrize("module", [torch_file, torch_archive, part_names])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted
