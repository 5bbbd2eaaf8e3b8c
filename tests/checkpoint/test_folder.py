"""A checkpoint on the disk: equal bit for bit, whole or not there, readable without descend."""

import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from safetensors.torch import load_file

from checkpoint.bits import DTYPES, assert_same, random_tensor, states
from checkpoint.system_calls import calls_of, failing, kills
from descend.checkpoint import (
    diff,
    digest,
    folder,
    load,
    locate,
    restore,
    save,
    save_torch,
    verify,
)
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.tensors_file import WORDS
from descend.checkpoint.tree import flatten
from descend.errors import CheckpointError
from descend.optimizers import CATALOGUE

A = {"model": {"w": torch.zeros(4), "b": torch.ones(2)}, "epoch": 1}
B = {"model": {"w": torch.ones(4), "b": torch.zeros(2)}, "epoch": 2}


def again(tmp_path, state, **options):
    save(tmp_path / "c", state)
    return load(tmp_path / "c", **options)


def names(path):
    return sorted(os.listdir(path))


def remove(*paths):
    subprocess.run(["rm", "-rf", *paths], check=True)


def visible(path):
    return [name for name in names(path) if not name.startswith(".")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype):
    shapes = [(), (0,), (3, 0), (1,), (5,), (2, 3), (1, 1, 1), (2, 1, 3)]
    state = {str(shape): random_tensor(dtype, shape, seed) for seed, shape in enumerate(shapes)}
    back = again(tmp_path, state)
    assert_same(back, state)
    assert digest(back) == digest(state)
    assert verify(tmp_path / "c") == []


IMAGE = torch.arange(120.0).reshape(2, 3, 4, 5)
LAYOUTS = {
    "transposed": IMAGE.transpose(1, 3),
    "strided": IMAGE[:, ::2, 1::2],
    "row": IMAGE[1, 2, 3],
    "column": IMAGE[:, 0, 0, 1],
    "element": IMAGE[1, 1, 1, 1],
    "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
    "expanded scalar": torch.tensor(3.0).expand(4),
    "channels_last": IMAGE.contiguous(memory_format=torch.channels_last),
    "overlapping": torch.arange(6.0).as_strided((3, 3), (1, 1)),
    "conj": torch.tensor([1 + 2j, 3j]).conj(),
    "neg": torch.tensor([1 + 2j, 3j]).conj().imag,
    "viewed": torch.arange(4.0).view(torch.int32),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "requires_grad": torch.ones(2, requires_grad=True),
    "with a history": torch.ones(2, requires_grad=True) * 2,
    "empty view": IMAGE[:0],
    "pinned to a big storage": torch.zeros(10_000)[5000:5002],
}


def test_every_layout_comes_back_bit_for_bit(tmp_path):
    back = again(tmp_path, LAYOUTS)
    plain = {name: tensor.detach().resolve_neg().clone() for name, tensor in LAYOUTS.items()}
    plain["parameter"] = torch.ones(2)
    assert_same(back, plain)
    assert not any(tensor.requires_grad for tensor in back.values())
    assert os.path.getsize(tmp_path / "c" / "tensors.safetensors") < 5000


def test_a_subclass_of_tensor_comes_back_as_a_tensor(tmp_path):
    class Mine(torch.Tensor):
        pass

    back = again(tmp_path, {"x": torch.ones(2).as_subclass(Mine)})
    assert_same(back, {"x": torch.ones(2)})


def test_one_element_with_a_stride(tmp_path):
    one = torch.arange(4.0)[::2][:1]
    assert_same(again(tmp_path, {"x": one}), {"x": torch.zeros(1)})


def test_booleans_of_odd_bytes_can_be_loaded(tmp_path):
    odd = torch.tensor([0, 1, 7, 255], dtype=torch.uint8).view(torch.bool)
    back = again(tmp_path, {"x": odd})["x"]
    assert back.view(torch.uint8).tolist() == [0, 1, 7, 255]


@given(states())
def test_any_state_comes_back_bit_for_bit(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("any") / "c"
    # safetensors calls something else __metadata__: that is a test of its own
    state = {key: value for key, value in state.items() if key != "__metadata__"}
    save(path, state)
    back = load(path)
    assert_same(back, state)
    assert digest(back) == digest(state)
    assert verify(path) == []


@pytest.mark.parametrize("key", ["", "$tensor", "\x00", "../x", "Ä", "a\nb", "x" * 1000])
def test_odd_names_of_tensors(tmp_path, key):
    state = {key: torch.ones(2), "m": {key: torch.zeros(1)}}
    assert_same(again(tmp_path, state), state)


@pytest.mark.parametrize("key", ["__metadata__", "\ud800"])
def test_names_that_safetensors_cannot_take(tmp_path, key):
    state = {key: torch.ones(2)}
    assert_same(again(tmp_path, state), state)


def test_shared_memory_is_stored_once_and_shared_again(tmp_path):
    weight = torch.randn(50, 50)
    back = again(tmp_path, {"a": weight, "b": weight, "t": weight.t(), "row": weight[3]})
    assert back["a"].data_ptr() == back["b"].data_ptr()
    assert torch.equal(back["t"], weight.t())
    assert torch.equal(back["row"], weight[3])
    assert os.path.getsize(tmp_path / "c" / "tensors.safetensors") < 3 * weight.nbytes
    back["a"].fill_(1)
    assert back["b"].eq(1).all()
    assert not back["t"].eq(1).any()
    only = load(tmp_path / "c", parts=["b"])  # which is stored under the name of the other
    assert torch.equal(only["b"], weight)


def test_empty_tensors_and_states(tmp_path):
    for state in ({}, {"a": {}}, {"n": None}, {"x": torch.empty(0), "y": torch.empty(0, 2)}):
        save(tmp_path / "c", state)
        assert_same(load(tmp_path / "c"), state)
        assert verify(tmp_path / "c") == []


def test_loaded_tensors_do_not_change_the_files(tmp_path):
    again(tmp_path, A)["model"]["w"].fill_(7)
    assert_same(load(tmp_path / "c"), A)
    assert verify(tmp_path / "c") == []


def test_loaded_tensors_outlive_the_files(tmp_path):
    save(tmp_path / "c", {"x": torch.ones(100_000)})

    def work():
        x = load(tmp_path / "c")["x"]
        os.truncate(tmp_path / "c" / "tensors.safetensors", 0)
        assert x.sum() == 100_000  # to read a page that is gone would be the end of the process

    assert calls_of(work)


NESTS = {
    "lists": lambda inner: [inner],
    "tuples": lambda inner: (inner,),
    "dicts": lambda inner: {"a": inner},
    "numbered dicts": lambda inner: {1: inner},
    "all of them": lambda inner: [({"a": {1: inner}},)],
}


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_what_is_saved_can_be_loaded_however_deep(tmp_path, nest):
    state, deepest = torch.ones(1), None
    for _ in range(400):
        state = nest(state)
        try:
            flatten({"x": state})
        except CheckpointError:
            break
        deepest = state
    assert deepest is not None
    assert_same(again(tmp_path, {"x": deepest}), {"x": deepest})
    assert verify(tmp_path / "c") == []
    with pytest.raises(CheckpointError, match="nested more than"):
        save(tmp_path / "c", {"x": state})


def test_all_dtypes_side_by_side(tmp_path):
    """Their bytes begin at odd places of the file, where no complex number may be."""
    state = {f"{dtype} {n}": random_tensor(dtype, (n,), n) for dtype in DTYPES for n in (1, 2, 3)}
    back = again(tmp_path, state)
    assert_same(back, state)
    assert verify(tmp_path / "c") == []
    for tensor in back.values():  # on which torch can compute
        assert tensor.data_ptr() % tensor.element_size() == 0
        assert_same(tensor.clone(), tensor)


# SparseAdam takes sparse gradients, which the model here has not.
@pytest.mark.parametrize("name", sorted({*CATALOGUE} - {"sparseadam"}))
def test_f1_model_and_optimizer_go_on_bit_for_bit(tmp_path, name):
    def trained(steps):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        optimizer = CATALOGUE[name](model.named_parameters(), lr=0.01)
        for _ in range(steps):
            step(model, optimizer, torch.randn(5, 3))
        return model, optimizer

    def step(model, optimizer, inputs):
        def closure():
            optimizer.zero_grad()
            loss = model(inputs).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    model, optimizer = trained(3)
    save(tmp_path / "c", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    state = load(tmp_path / "c")
    other, other_optimizer = trained(0)
    other.load_state_dict(state["model"])
    other_optimizer.load_state_dict(state["optimizer"])
    for m, o in ((model, optimizer), (other, other_optimizer)):
        step(m, o, torch.ones(5, 3))
    assert digest({"m": model.state_dict(), "o": optimizer.state_dict()}) == digest(
        {"m": other.state_dict(), "o": other_optimizer.state_dict()}
    )


def test_f4_the_tensors_are_read_by_safetensors_alone(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = CATALOGUE["adamw"](model.named_parameters(), lr=0.01)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    save(tmp_path / "c", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    found = load_file(tmp_path / "c" / "tensors.safetensors")
    assert {"model.0.weight", "model.1.running_mean"} <= found.keys()
    assert "optimizer.state.0.weight.exp_avg" in found
    for name, tensor in model.state_dict().items():
        assert_same(found[f"model.{name}"], tensor.detach())
    state = {name: random_tensor(getattr(torch, name), (2, 3)) for name in WORDS}
    save(tmp_path / "d", state)
    assert_same(load_file(tmp_path / "d" / "tensors.safetensors"), state)


def test_the_rest_is_plain_json(tmp_path):
    state = {"epoch": 3, "lr": 0.1, "list": [1, None, "x"], "model": {"w": torch.ones(1)}}
    save(tmp_path / "c", state)
    assert names(tmp_path / "c") == ["manifest.json", "state.json", "tensors.safetensors"]
    found = json.loads((tmp_path / "c" / "state.json").read_bytes())
    assert found == {**state, "model": {"w": {"$tensor": "model.w"}}}


def test_the_manifest_says_what_belongs_to_it(tmp_path):
    save(tmp_path / "c", A | {"tied": A["model"]["w"]}, about={"step": 3, "metrics": {"x": 0.5}})
    manifest = read_manifest(tmp_path / "c")
    assert manifest["about"] == {"step": 3, "metrics": {"x": 0.5}}
    assert manifest["produced_by"]["torch"] == torch.__version__
    assert manifest["tensors"]["model.w"]["dtype"] == "float32"
    assert manifest["tensors"]["model.w"]["shape"] == [4]
    assert manifest["same"] == {"tied": "model.w"}
    for name, file in manifest["files"].items():
        assert file["bytes"] == os.path.getsize(tmp_path / "c" / name)


def test_p42_no_pickle_is_read_or_written(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pickle")

    for where, name in [
        (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (pickle, "dump"),
        (pickle, "dumps"), (pickle, "Pickler"), (torch, "load"), (torch, "save"),
    ]:  # fmt: skip
        monkeypatch.setattr(where, name, refuse)
    state = A | {"o": {"param_groups": [{"lr": 0.1}]}, "array": np.ones(2), "set": {1}}
    assert_same(again(tmp_path, state), state)
    for name in names(tmp_path / "c"):
        assert b"ctorch" not in (tmp_path / "c" / name).read_bytes()


def test_p42_nothing_in_a_checkpoint_runs_code(tmp_path):
    save(tmp_path / "c", A)
    rest = {
        "eval": {"$eval": "print(1)"}, "call": {"$call": ["os.system", "true"]},
        "reduce": {"__reduce__": ["os.system", ["true"]]}, "$py/object": {"py/object": "os.system"},
    }  # fmt: skip
    forge(tmp_path / "c", state=json.dumps(rest))

    def watched():
        events = []
        sys.addaudithook(lambda event, args: events.append(event))
        loaded = load(tmp_path / "c")
        seen = {"exec", "compile", "pickle.find_class", "marshal.loads", "os.system"} & {*events}
        assert not seen, seen
        assert loaded == rest  # words that mean nothing are only words

    assert calls_of(watched)


def forge(path, *, state=None, manifest=None):
    """Change what a checkpoint holds, and let the hashes say that this is what was saved."""
    text = (path / "state.json").read_text() if state is None else state
    (path / "state.json").write_text(text)
    content = read_manifest(path)
    content["files"]["state.json"] = {
        "bytes": len(text.encode()),
        "hash": folder.hash_bytes(text.encode()),
    }
    content.update(manifest or {})
    (path / "manifest.json").write_text(folder.manifest_text(content))


def test_parts_are_read_alone(tmp_path):
    save(tmp_path / "c", A | {"other": torch.full((3,), 7.0)})
    assert_same(load(tmp_path / "c", parts=["model"]), {"model": A["model"]})
    assert_same(load(tmp_path / "c", parts=("epoch",)), {"epoch": 1})
    assert load(tmp_path / "c", parts=[]) == {}
    with pytest.raises(
        CheckpointError, match=r"cannot load nose, toes of .*: it holds model, epoch, oth"
    ):
        load(tmp_path / "c", parts=["toes", "model", "nose"])


@pytest.mark.parametrize("other", ["$x", 0])
def test_parts_of_a_state_with_odd_keys(tmp_path, other):
    save(tmp_path / "c", {"model": A["model"], other: 1})
    assert_same(load(tmp_path / "c", parts=["model"]), {"model": A["model"]})


def test_a_refused_state_leaves_no_trace(tmp_path):
    for state in ({"a": {"f": print}}, {"m": torch.zeros(2, device="meta")}, {1.5: 0}):
        with pytest.raises(CheckpointError, match="cannot save"):
            save(tmp_path / "c", state)
    for about in ({"x": float("nan")}, {"x": torch.ones(1)}, {"x": {1, 2}}):
        with pytest.raises(CheckpointError, match="cannot save about="):
            save(tmp_path / "c", A, about=about)
    assert names(tmp_path) == []


def test_what_a_manifest_cannot_hold_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot save about="):
        save(tmp_path / "c", A, about={"x": 1, 2: 3})


def test_a_checkpoint_is_replaced_whole(tmp_path):
    save(tmp_path / "c", A | {"much": torch.ones(1000)})
    save(tmp_path / "c", B)
    assert_same(load(tmp_path / "c"), B)
    assert names(tmp_path) == ["c"]


@pytest.mark.parametrize("there", ["file", "folder", "folder of folders"])
def test_nothing_but_checkpoints_is_overwritten(tmp_path, there):
    path = tmp_path / "c"
    if there == "file":
        path.write_text("precious")
    else:
        (path / "inner").mkdir(parents=True) if "of" in there else path.mkdir()
        (path / "notes.txt").write_text("precious")
    before = names(tmp_path)
    with pytest.raises(CheckpointError, match="something else is there"):
        save(path, A)
    assert names(tmp_path) == before
    assert (path if there == "file" else path / "notes.txt").read_text() == "precious"


def test_a_folder_with_another_manifest_is_not_overwritten(tmp_path):
    path = tmp_path / "extension"
    path.mkdir()
    (path / "manifest.json").write_text('{"name": "My extension"}')
    (path / "precious.js").write_text("x")
    with pytest.raises(CheckpointError, match="something else is there"):
        save(path, A)
    assert names(path) == ["manifest.json", "precious.js"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "c").mkdir()
    save(tmp_path / "c", A)
    assert_same(load(tmp_path / "c"), A)
    assert names(tmp_path) == ["c"]


def test_paths_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("relative", "./dotted", "trailing/", "Ä日本 \n'\"", "-rf", "x.pth", "y" * 200):
        save(path, A)
        save(path, B)
        assert_same(load(path), B)
        assert_same(load(tmp_path / path), B)
    assert len(names(tmp_path)) == 7


@pytest.mark.parametrize("path", ["missing/c", "file/c", "y" * 255])
def test_paths_that_cannot_be_written(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        CheckpointError, match=r"cannot write the checkpoint .*(No such|Not a|too lo)"
    ):
        save(tmp_path / path, A)
    assert names(tmp_path) == ["file"]


def test_a_path_that_no_system_takes(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save(tmp_path / ("y" * 256), A)


def test_a_path_that_no_system_takes_cannot_be_loaded(tmp_path):
    for read in (load, verify, locate):
        with pytest.raises(CheckpointError, match=r"too long|does not exist"):
            read(tmp_path / ("y" * 256))


def test_the_current_folder_can_be_a_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    monkeypatch.chdir(tmp_path / "c")
    save(".", A)
    assert_same(load(tmp_path / "c"), A)


def test_a_checkpoint_is_loaded_through_a_link(tmp_path):
    save(tmp_path / "c", A)
    (tmp_path / "link").symlink_to("c")
    assert_same(load(tmp_path / "link"), A)
    assert verify(tmp_path / "link") == []


def test_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    save(tmp_path / "runs" / "c", A)
    save(tmp_path / "runs" / "c", B)
    assert_same(load(tmp_path / "disk" / "c"), B)
    assert names(tmp_path / "disk") == ["c"]


@pytest.mark.parametrize("target", ["there", "dangling"])
def test_a_checkpoint_is_replaced_through_a_link(tmp_path, target):
    if target == "there":
        save(tmp_path / "there", A)
    (tmp_path / "link").symlink_to(target)
    for state in (B, A, B):
        save(tmp_path / "link", state)
        assert_same(load(tmp_path / "link"), state)
        assert_same(load(tmp_path / target), state)
    assert names(tmp_path) == sorted(["link", target])


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o000])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        save(tmp_path / "c", A)
    finally:
        os.umask(before)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o777 & ~mask
    for file in (tmp_path / "c").iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask, file


def test_p40_all_is_on_the_disk_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "c"
    done = []
    fsync, rename, unlink = os.fsync, os.rename, os.unlink

    def noted_fsync(descriptor):
        status = os.fstat(descriptor)
        done.append(("fsync", status.st_ino, status.st_size))
        fsync(descriptor)

    def noted_rename(source, target):
        done.append(("rename", os.path.basename(target)))
        rename(source, target)

    def noted_unlink(*args, **kwargs):
        done.append(("unlink",))
        unlink(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    monkeypatch.setattr(os, "unlink", noted_unlink)
    for state, renames in ((A, ["c"]), (B, [".c.old", "c"])):
        done.clear()
        save(path, state)
        files = {("fsync", file.stat().st_ino, file.stat().st_size) for file in path.iterdir()}
        first = done.index(("rename", renames[0]))
        last = done.index(("rename", "c"))
        assert len(files) == 3
        assert files <= {*done[:first]}  # each of them, at its full length
        assert path.stat().st_ino in [one[1] for one in done[:first]][3:]
        assert [one[1] for one in done[first : last + 1]] == renames
        assert done[last + 1][:2] == ("fsync", tmp_path.stat().st_ino)
        assert ("unlink",) not in done[: last + 2]


def test_p40_the_only_old_one_goes_when_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "c"
    save(path, A)
    path.rename(tmp_path / ".c.old")  # a save was cut short between its two renames
    done = []
    fsync, rmdir = os.fsync, os.rmdir
    monkeypatch.setattr(os, "fsync", lambda d: (done.append(os.fstat(d).st_ino), fsync(d)))
    monkeypatch.setattr(
        os, "rmdir", lambda p, **k: (done.append(os.path.basename(p)), rmdir(p, **k))
    )
    save(path, B)
    assert names(tmp_path) == ["c"]
    assert done.index(tmp_path.stat().st_ino) < done.index(".c.old")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_p40_f2_an_error_at_any_step_leaves_a_whole_checkpoint(tmp_path, error, lasting):
    path = tmp_path / "c"
    failures = []
    for at in range(1000):
        save(path, A)
        with failing(at, error, lasting=lasting) as failed:
            try:
                save(path, B)
                raised = None
            except CheckpointError as refused:
                raised = refused
        if not failed:
            break
        failures.append(failed[0])
        left = load(path)
        assert_same(left, A if left["epoch"] == 1 else B)
        if raised is None:
            assert_same(left, B)  # only the old one could not be removed
        else:
            assert os.strerror(error) in str(raised)
            assert "cannot write the checkpoint" in str(raised)
            assert "room on the disk" in str(raised)
            # Once it has its name, only the flush of that can fail
            assert left["epoch"] == 1 or failures.count("os.rename") == 2
        if not lasting:
            assert not [name for name in names(tmp_path) if name.endswith(".tmp")], failed
        remove(*tmp_path.glob(".*.tmp"))  # which nothing could remove while all failed
    assert {"os.mkdir", "os.rename", "os.fsync", "os.open"} <= {
        name.removeprefix("descend.checkpoint.") for name in failures
    }
    assert failures.count("os.rename") == 2
    assert failures.count("os.fsync") >= 5  # three files, their folder, the one that it is in


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_p40_an_error_at_any_step_of_a_first_save(tmp_path, lasting):
    for at in range(1000):
        with failing(at, errno.ENOSPC, lasting=lasting) as failed:
            try:
                save(tmp_path / "c", A)
                raised = False
            except CheckpointError:
                raised = True
        if not failed:
            break
        if (tmp_path / "c").exists():
            assert_same(load(tmp_path / "c"), A)
        else:
            assert raised
        if not lasting:
            assert names(tmp_path) in ([], ["c"])
        remove(tmp_path / "c", *tmp_path.glob(".*"))
    assert at > 10


def test_p40_an_error_between_the_renames_puts_the_old_one_back(tmp_path, monkeypatch):
    path = tmp_path / "c"
    save(path, A)
    rename, calls = os.rename, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save(path, B)
    assert names(tmp_path) == ["c"]
    assert_same(load(path), A)


def test_an_interrupt_leaves_no_temporary_folder(tmp_path, monkeypatch):
    save(tmp_path / "c", A)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "write_tensors", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "c", B)
    assert names(tmp_path) == ["c"]
    assert_same(load(tmp_path / "c"), A)


def test_p40_f2_killed_at_any_step_of_a_first_save(tmp_path):
    path = tmp_path / "new" / "c"
    path.parent.mkdir()
    seen = set()
    for kill in kills(lambda: save(path, A)):
        remove(path)
        kill()
        seen.add(path.exists())
        if path.exists():
            assert_same(load(path), A)
        else:
            assert visible(path.parent) == []
            with pytest.raises(CheckpointError, match="it does not exist"):
                load(path)
        save(path, B)
        assert_same(load(path), B)
    assert seen == {True, False}


@pytest.mark.parametrize("left", ["nothing", "an old one alone", "an old one too"])
def test_p40_f2_killed_at_any_step_of_a_replacement(tmp_path, left):
    path, old = tmp_path / "c", tmp_path / ".c.old"

    zero, one = tmp_path / "zero", tmp_path / "one"
    save(zero, {"epoch": 0})
    save(one, A)

    def before():
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if left == "an old one too":  # killed while it was removed
            shutil.copytree(zero, old)
        # or between the two renames
        shutil.copytree(one, old if left == "an old one alone" else path)

    seen = set()
    before()
    for kill in kills(lambda: save(path, B)):
        before()
        kill()
        state = load(path)
        assert_same(state, A if state["epoch"] == 1 else B)
        assert verify(path) == []
        seen.add((state["epoch"], path.exists()))
        save(path, B)
        assert_same(load(path), B)
        assert visible(tmp_path) == ["c", "one", "zero"]
        assert not old.exists()
    assert {(1, left != "an old one alone"), (2, True)} <= seen  # and (1, False): between renames


def test_p40_killed_and_started_again_with_the_same_process_number(tmp_path, monkeypatch):
    """As in a container, where the first process always has the number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    number = folder._numbers.__reduce__()[1] if hasattr(folder, "_numbers") else None
    assert calls_of(lambda: save(tmp_path / "c", A), kill_at=5) is None
    assert visible(tmp_path) == []
    assert number is None or folder._numbers.__reduce__()[1] == number
    save(tmp_path / "c", B)
    assert_same(load(tmp_path / "c"), B)


LARGE = {"x": torch.ones(50_000), "note": "y" * 100_000}


@pytest.mark.parametrize("limit", [0, 10, 99_000, 150_000, 200_000])
def test_p40_a_file_that_may_not_grow_leaves_the_old_checkpoint(tmp_path, limit):
    save(tmp_path / "c", A)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*File too large"):
            save(tmp_path / "c", LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["c"]
    assert_same(load(tmp_path / "c"), A)
    save(tmp_path / "c", LARGE)
    assert_same(load(tmp_path / "c"), LARGE)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", disk]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_p40_f2_a_full_disk_leaves_the_old_checkpoint(small_disk):
    path = small_disk / "c"
    save(path, A)
    messages = []
    for kilobytes in range(380, 200, -12):  # until it fits: each file of it is the one that fails
        filler = small_disk / "filler"
        filler.write_bytes(bytes(1024 * kilobytes))
        state = {"x": torch.zeros(10_000), "note": "y" * 30_000}
        try:
            save(path, state)
        except CheckpointError as error:
            messages.append(str(error))
            assert_same(load(path), A)
        else:
            assert_same(load(path), state)
            break
        assert names(small_disk) == ["c", "filler"]
        filler.unlink()
    assert len(messages) > 3
    for message in messages:
        assert "No space left on device" in message
        assert "room on the disk" in message
    assert_same(load(path), state)


def test_threads_that_save_to_one_path_leave_a_whole_checkpoint(tmp_path):
    states = [{"epoch": i, "x": torch.full((500,), float(i))} for i in range(4)]

    def write(state):
        for _ in range(5):
            with suppress(CheckpointError):  # another was in between: one of them is told
                save(tmp_path / "c", state)

    threads = [threading.Thread(target=write, args=(state,)) for state in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = load(tmp_path / "c")
    assert_same(state, states[state["epoch"]])
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_the_state_of_a_model_can_be_all_of_a_state(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    save(tmp_path / "c", model.state_dict())
    back = load(tmp_path / "c")
    assert list(back) == list(model.state_dict())
    torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).load_state_dict(back)
    assert list(load(tmp_path / "c", parts=["0.bias"])) == ["0.bias"]


def test_what_has_a_state_dict_is_taken_as_it_is(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    objects = {"model": model, "optimizer": optimizer, "schedule": schedule}
    states = {name: one.state_dict() for name, one in objects.items()}
    given = {**objects, "deep": [{"x": (model,)}]}
    plain = {**states, "deep": [{"x": (states["model"],)}]}
    save(tmp_path / "c", given)
    save(tmp_path / "d", plain)
    assert_same(load(tmp_path / "c"), load(tmp_path / "d"))
    assert verify(tmp_path / "c") == []
    assert digest(given) == digest(plain) == digest(load(tmp_path / "c"))
    assert diff(given, plain) == diff(load(tmp_path / "c"), given) == []
    save_torch(tmp_path / "x.pth", given)
    assert digest(torch.load(tmp_path / "x.pth")) == digest(plain)
    with torch.no_grad():
        model[0].weight.zero_()
    assert [one.name for one in diff(load(tmp_path / "c"), given)] == [
        "model.0.weight", "deep.0.x.0.0.weight"]  # fmt: skip
    restore(tmp_path / "c", **objects)
    assert digest(given) == digest(plain)
    save(tmp_path / "c", model)  # itself, too
    assert_same(load(tmp_path / "c"), load(tmp_path / "d", parts=["model"])["model"])


def test_a_class_and_what_has_no_state_are_refused(tmp_path):
    for value in (torch.nn.Linear, torch.nn.ReLU, object(), print):
        with pytest.raises(
            CheckpointError, match=r"cannot save model: .*what has a state_dict\(\)"
        ):
            save(tmp_path / "c", {"model": value})
    assert not names(tmp_path)
