"""`descend convert`: files of torch's and checkpoints, one from the other."""

import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import Linear

import descend
from cli import commands
from descend.checkpoint import digest, load, load_torch, save, verify
from descend.checkpoint.manifest import read_manifest

convert = partial(commands.invoke, "convert")


def done(*args):
    result = convert(*args)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*args):
    """The one line that a refusal says."""
    result = convert(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("descend: error: ")
    return line.removeprefix("descend: error: ")


def usual():
    torch.manual_seed(0)
    model = Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "global_step": 40,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.25,
    }


@pytest.fixture
def old(tmp_path):
    torch.save(usual(), tmp_path / "old.pth")
    return tmp_path / "old.pth"


@pytest.fixture
def run(tmp_path):
    """The folder of a run of four steps, saved after each two."""
    model = Linear(3, 1)
    optimizer = descend.AdamW(model.named_parameters(), lr=0.1)
    data = torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=2)
    training = descend.Run(
        tmp_path / "run", loader=data, model=model, optimizer=optimizer, every_steps=2
    )
    for batch in training:
        optimizer.zero_grad()
        loss = model(batch).sum()
        loss.backward()
        optimizer.step()
        training.log(loss=loss)
    return tmp_path / "run"


def test_f4_a_torch_file_becomes_a_checkpoint(tmp_path, old):
    result = done(old, tmp_path / "c")
    assert verify(tmp_path / "c") == []
    state = load(tmp_path / "c")
    assert digest(state) == digest(load_torch(old))
    assert {*state} == {"model", "optimizer", "epoch", "global_step", "loss"}
    assert read_manifest(tmp_path / "c")["about"] == {"step": 40, "converted from": "old.pth"}
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == f"{old} -> {tmp_path / 'c'}"
    assert "model" in lines[2]
    assert lines[2].split()[1:] == ["2", "32", "B"]
    assert lines[3].split()[:2] == ["optimizer", "6"]
    assert lines[-1].startswith("written: a checkpoint with 8 tensors in 5 objects, ")


def test_f4_a_checkpoint_becomes_a_file_that_plain_torch_reads(tmp_path, old):
    done(old, tmp_path / "c")
    result = done(tmp_path / "c", tmp_path / "new.pth")
    state = torch.load(tmp_path / "new.pth", weights_only=True)
    assert digest(state) == digest(load_torch(old))
    model = Linear(3, 2)
    model.load_state_dict(state["model"])
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(state["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert "written: a file of torch's with 8 tensors in 5 objects, " in result.stdout


def test_f4_a_run_becomes_a_file_that_plain_torch_reads(tmp_path, run):
    result = done(run, tmp_path / "new.pth")
    state = torch.load(tmp_path / "new.pth", weights_only=True)
    assert {*state} == {"model", "optimizer", "run"}
    assert state["run"]["step"] == 4
    newest = load(run)
    assert digest({"m": state["model"], "o": state["optimizer"]}) == digest(
        {"m": newest["model"], "o": newest["optimizer"]}
    )
    key = newest["run"]["random"]["numpy"]["state"]["key"]
    assert np.array_equal(state["run"]["random"]["numpy"]["state"]["key"].numpy(), key)
    note = "run.random.numpy.state.key is a NumPy array: it is a tensor in a file of torch's"
    assert result.stderr == f"descend: note: {note}\n"
    assert result.stdout.startswith(f"{run / 'checkpoints' / 'step-00000004'} -> ")


def test_a_run_becomes_a_checkpoint_of_its_own(tmp_path, run):
    result = done(run, tmp_path / "c")
    assert digest(load(tmp_path / "c")) == digest(load(run))
    about = read_manifest(tmp_path / "c")["about"]
    assert about["step"] == 4
    assert about["converted from"] == "step-00000004"
    assert result.stderr == ""


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    with (newest / "tensors.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    result = done(run, tmp_path / "x.pth")
    assert result.stderr.startswith("descend: warning: cannot load the checkpoint ")
    assert "the tensor" in result.stderr
    assert newest.name not in result.stdout
    assert newest.exists()
    result = done(run, tmp_path / "model.pth", "--only", "model")  # which is whole
    assert result.stderr == ""
    assert newest.name in result.stdout


def test_one_object_alone_is_what_its_load_state_dict_takes(tmp_path, run):
    saved = load(run)
    for name in ("model", "optimizer"):
        done(run, tmp_path / "alone.pth", "--only", name, "--only", name, "--force")
        state = torch.load(tmp_path / "alone.pth", weights_only=True)
        assert digest({"x": state}) == digest({"x": saved[name]})
        assert load_torch(tmp_path / "alone.pth").keys() == {name}  # known again
    done(run, tmp_path / "weights.pth", "--only", "model")
    model = Linear(*reversed(saved["model"]["weight"].shape))
    model.load_state_dict(torch.load(tmp_path / "weights.pth"))
    assert digest({"model": model}) == digest({"model": saved["model"]})
    save(tmp_path / "c", {"epoch": 3})
    done(tmp_path / "c", tmp_path / "epoch.pth", "--only", "epoch")
    assert torch.load(tmp_path / "epoch.pth") == {"epoch": 3}  # which is no state


def test_only_some_objects(tmp_path, old, run):
    done(old, tmp_path / "c", "--only", "model")
    assert [*load(tmp_path / "c")] == ["model"]
    done(run, tmp_path / "weights.pth", "--only", "model", "--only", "optimizer")
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert {*state} == {"model", "optimizer"}
    assert refused(run, tmp_path / "x.pth", "--only", "ema").startswith("cannot load")
    said = refused(old, tmp_path / "x.pth", "--only", "ema")
    assert said.startswith(f"cannot load ema of {old}: it holds model, optimizer, epoch")
    assert not (tmp_path / "x.pth").exists()


def test_from_torch_file_to_torch_file(tmp_path, old):
    done(old, tmp_path / "weights.PTH", "--only", "model")
    state = torch.load(tmp_path / "weights.PTH", weights_only=True)
    assert digest(state) == digest(usual()["model_state_dict"])


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.ckpt", "a.pth.tar", "A.PT"])
def test_a_name_says_that_it_is_a_file(tmp_path, old, name):
    done(old, tmp_path / name)
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("name", ["a", "a.tar", "a.checkpoint", "step-00000003"])
def test_any_other_name_is_a_folder(tmp_path, old, name):
    done(old, tmp_path / name)
    assert (tmp_path / name / "manifest.json").is_file()


def test_nothing_is_overwritten_without_force(tmp_path, old):
    done(old, tmp_path / "c")
    done(old, tmp_path / "x.pth")
    before = (tmp_path / "c" / "manifest.json").read_bytes(), (tmp_path / "x.pth").read_bytes()
    for name in ("c", "x.pth"):
        said = refused(old, tmp_path / name, "--only", "model")
        assert said == f"{tmp_path / name} is there already; --force replaces it"
    after = (tmp_path / "c" / "manifest.json").read_bytes(), (tmp_path / "x.pth").read_bytes()
    assert after == before
    for name in ("c", "x.pth"):
        done(old, tmp_path / name, "--only", "model", "--force")
        assert [*load(tmp_path / name)] == ["model"]


def test_force_replaces_nothing_but_what_it_would_write(tmp_path, old):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "diary.txt").write_text("dear diary")
    assert "something else is there" in refused(old, tmp_path / "folder", "--force")
    (tmp_path / "folder.pth").mkdir()
    assert "it is a folder" in refused(old, tmp_path / "folder.pth", "--force")
    (tmp_path / "file").write_text("text")
    assert "it is a file, and a checkpoint is a folder" in refused(
        old, tmp_path / "file", "--force"
    )
    assert (tmp_path / "file").read_text() == "text"
    assert (tmp_path / "folder" / "diary.txt").read_text() == "dear diary"


def test_an_empty_folder_is_not_in_the_way(tmp_path, old):
    (tmp_path / "c").mkdir()
    done(old, tmp_path / "c")
    assert verify(tmp_path / "c") == []


def test_a_source_may_be_its_own_destination(tmp_path, old):
    done(old, old, "--only", "model", "--force")
    assert [*load_torch(old)] == ["model"]
    done(old, tmp_path / "c")
    done(tmp_path / "c", tmp_path / "c", "--force")
    assert [*load(tmp_path / "c")] == ["model"]


def test_the_source_is_left_as_it_is(tmp_path, old, run):
    def content():
        files = [old, *(path for path in run.rglob("*") if path.is_file())]
        return {path: path.read_bytes() for path in files}

    before = content()
    for source in (old, run):
        done(source, tmp_path / f"{source.stem}-c")
        done(source, tmp_path / f"{source.stem}-x.pth")
    assert content() == before


def test_p42_of_a_file_with_code_nothing_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    torch.save({"model": {"w": torch.ones(1)}, "x": Evil()}, tmp_path / "evil.pth")
    said = refused(tmp_path / "evil.pth", tmp_path / "c", "--only", "x")
    assert "x is a posix.mkdir, which only running code could make" in said
    assert not (tmp_path / "c").exists()
    result = done(tmp_path / "evil.pth", tmp_path / "c")
    assert "descend: warning: " in result.stderr
    assert "x (a posix.mkdir): left out, as only running code" in result.stderr
    assert load(tmp_path / "c").keys() == {"model"}
    assert not (tmp_path / "canary").exists()


def test_what_a_checkpoint_cannot_hold_is_named_with_the_way_out(tmp_path):
    content = {"model": {"w": torch.ones(1)}, "extra": {1.5: 3}}
    torch.save(content, tmp_path / "x.pth")
    said = refused(tmp_path / "x.pth", tmp_path / "c")
    assert said.startswith("cannot save extra: its key 1.5 is a float")
    assert said.endswith("; --only model leaves everything else out")
    done(tmp_path / "x.pth", tmp_path / "c", "--only", "model")
    torch.save({"mask": torch.eye(2).to_sparse(), "epoch": 3}, tmp_path / "y.pth")
    assert "stored as torch.sparse_coo" in refused(tmp_path / "y.pth", tmp_path / "d")
    done(tmp_path / "y.pth", tmp_path / "z.pth")


def test_what_a_torch_file_cannot_hold_is_named(tmp_path):
    save(tmp_path / "c", {"model": {"w": torch.ones(1)}, "odd": {"x": np.float16([1.0])}})
    done(tmp_path / "c", tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True)["odd"]["x"].dtype == torch.float16


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.pth", "missing.pth does not exist; give a checkpoint"),
        ("empty", "empty holds no checkpoint; give a checkpoint"),
        ("text.pth", "damaged, or no file of torch.save"),
        ("nothing.pth", "holds nothing that could be converted"),
        ("list.pth", "it holds a list"),
    ],
)
def test_sources_that_cannot_be_used(tmp_path, source, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("hello")
    torch.save({}, tmp_path / "nothing.pth")
    torch.save([1], tmp_path / "list.pth")
    for name in ("c", "x.pth"):
        assert said in refused(tmp_path / source, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_destinations_that_cannot_be_used(tmp_path, old):
    for name in ("c", "x.pth"):
        said = refused(old, tmp_path / "missing" / name)
        assert said.endswith(f"there is no folder {tmp_path / 'missing'}; make it, or give another")


def test_a_name_that_no_system_takes_is_an_error_of_one_line(tmp_path, old):
    long = "x" * 300
    for said in (refused(old, tmp_path / long / "x.pth"), refused(tmp_path / long, tmp_path / "c")):
        assert "File name too long" in said


@pytest.mark.parametrize("depth", [200, 300, 400, 500, 900, 3000])
def test_what_is_nested_deeply_is_converted_or_refused_in_one_line(tmp_path, depth):
    deep: list = [torch.zeros(1)]
    for _ in range(depth):
        deep = [deep]
    try:
        torch.save({"model": {"w": torch.ones(1)}, "x": deep}, tmp_path / "x.pth")
    except RecursionError:
        return
    for name in ("c", "y.pth"):
        result = convert(tmp_path / "x.pth", tmp_path / name)
        assert result.exit_code in (0, 2), result.exception
        assert (tmp_path / name).exists() == (result.exit_code == 0)


def test_a_full_disk_leaves_what_was_there(tmp_path, old, monkeypatch):
    done(old, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    said = refused(old, tmp_path / "x.pth", "--force")
    assert "No space left on device" in said
    assert "--only" not in said
    assert (tmp_path / "x.pth").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_json_is_one_document_and_nothing_else(tmp_path, run):
    result = done(run, tmp_path / "x.pth", "--json")
    key = load(run)["run"]["random"]["numpy"]["state"]["key"]
    document = json.loads(result.stdout)
    assert document == {
        "source": str(run / "checkpoints" / "step-00000004"),
        "destination": str(tmp_path / "x.pth"),
        "format": "torch",
        "objects": {
            "model": {"tensors": 2, "bytes": 16},
            "optimizer": {"tensors": 6, "bytes": 40},
            "run": {"tensors": 2, "bytes": torch.get_rng_state().nbytes + key.nbytes},
        },
        "as_tensors": ["run.random.numpy.state.key"],
        "bytes": (tmp_path / "x.pth").stat().st_size,
    }
    document = json.loads(done(tmp_path / "x.pth", tmp_path / "c", "--json").stdout)
    assert document["format"] == "checkpoint"
    assert document["as_tensors"] == []
    files = (tmp_path / "c").iterdir()
    assert document["bytes"] == sum(file.stat().st_size for file in files)


def test_tied_weights_count_once(tmp_path):
    weight = torch.ones(10)
    save(tmp_path / "c", {"model": {"a": weight, "b": weight, "empty": torch.zeros(0)}})
    document = json.loads(done(tmp_path / "c", tmp_path / "x.pth", "--json").stdout)
    assert document["objects"] == {"model": {"tensors": 2, "bytes": 40}}


def test_a_name_that_is_no_text_and_one_that_does_not_print(tmp_path):
    torch.save({0: torch.ones(1), "a\x1b[31m": 3}, tmp_path / "x.pth")
    result = done(tmp_path / "x.pth", tmp_path / "c")
    assert "\x1b" not in result.stdout
    assert load(tmp_path / "c")["a\x1b[31m"] == 3


def test_the_second_path_must_be_given(tmp_path):
    assert "Missing argument 'DST'" in refused(tmp_path)
