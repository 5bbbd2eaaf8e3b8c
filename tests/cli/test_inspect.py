"""`descend inspect` as a user meets it: what it says of whole and of damaged checkpoints."""
# ruff: noqa: E501  messages are compared whole

import doctest
import json
import math
import os
import random
import re
import shutil
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import descend
from cli import commands
from descend import checkpoint as ck
from descend import format
from descend.checkpoint import contents
from descend.checkpoint.hashing import hash_tensor
from descend.checkpoint.manifest import MANIFEST, STATE, TENSORS, manifest_text, read_manifest
from descend.checkpoint.tensors_file import TensorsFile
from descend.cli import main
from descend.errors import FormatError
from descend.report import tables
from descend.report.tables import Screen, facts, table

invoke = partial(commands.invoke, "inspect")
document = partial(commands.document, "inspect")


def told(*args, status=0):
    """The lines that are printed."""
    result = invoke(*args)
    assert result.exit_code == status, (result.stdout, result.stderr)
    assert "\x1b" not in result.output
    assert all(line == line.rstrip() for line in result.stdout.splitlines())
    return result.stdout


def rows(text, first):
    """The cells of the table whose header begins with two words."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == first.split())
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    return [re.split(r" {2,}", line.strip()) for line in lines[start + 1 : end]]


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    optimizer = descend.AdamW(
        [
            {"params": model[0].parameters(), "lr": 0.003},
            {"params": model[1].parameters(), "weight_decay": 0.25},
        ],
        lr=0.001,
    )
    return model, optimizer


def go(folder, epochs=2, **options):
    """A run of 4 batches an epoch that logs a loss which falls and an accuracy which rises."""
    model, optimizer = trained()
    data = torch.utils.data.TensorDataset(torch.randn(16, 4), torch.randint(0, 2, (16,)))
    run = descend.Run(
        folder,
        model=model,
        optimizer=optimizer,
        loader=torch.utils.data.DataLoader(data, 4, shuffle=True),
        epochs=epochs,
        background=False,
        every_minutes=None,
        **options,
    )
    for x, y in run:
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(loss=1 / run.step, accuracy=run.step / 100)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A run with checkpoints at steps 3, 4, 6 and 8."""
    folder = tmp_path_factory.mktemp("made") / "mine"
    go(folder, every_steps=3, keep=4)
    return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of it, called `mine`, in the current folder."""
    shutil.copytree(made, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    return Path("mine")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


NEWEST = Path("mine/checkpoints/step-00000008")


def test_a_checkpoint_is_described(run):
    text = told(NEWEST)
    assert text.startswith(
        "mine/checkpoints/step-00000008: a checkpoint, whole, every byte is what was saved\n"
    )
    size = sum(file.stat().st_size for file in NEWEST.iterdir())
    assert re.search(rf"^size +\S+ kB \({size:,} bytes\)$", text, re.M)
    assert re.search(r"^step +8$", text, re.M)
    assert re.search(r"^epochs +2 done$", text, re.M)
    assert re.search(r"^metrics +accuracy 0\.08, loss 0\.125$", text, re.M)
    assert f"torch {torch.__version__}, numpy {np.__version__}" in text
    assert re.search(r"^on .*\b1 thread, no GPU$", text, re.M) or torch.cuda.is_available()
    assert re.search(r"^here +the same machine and versions$", text, re.M)
    objects = {row[0]: row[1:] for row in rows(text, "object tensors")}
    assert objects["model"][:3] == ["4", "58", "232 B"]
    assert objects["model"][-1] == "float32"
    assert objects["optimizer"][:3] == ["12", "120", "480 B"]
    assert set(objects) == {"model", "optimizer", "run"}
    first, second = rows(text, "optimizer group")
    assert first[:4] == ["optimizer", "0", "2", "0.003"]
    assert second[:3] == ["1", "2", "0.001"]
    assert "weight_decay 0.25" in second[-1]
    assert "betas 0.9 0.999" in second[-1]


def test_in_the_middle_of_an_epoch_the_batches_done_are_told(run):
    text = told("mine/checkpoints/step-00000006")
    assert re.search(r"^epochs +1 done, and 2 of 4 batches of the next$", text, re.M)


def test_the_document_says_the_same(run):
    found = document(NEWEST)
    assert found["kind"] == "checkpoint"
    assert (found["whole"], found["verified"], found["damages"]) == (True, True, [])
    assert found["bytes"] == sum(file.stat().st_size for file in NEWEST.iterdir())
    assert found["step"] == 8
    assert (found["epochs_done"], found["batches_done"], found["batches_per_epoch"]) == (2, 0, 4)
    assert found["metrics"] == {"accuracy": 0.08, "loss": 0.125}
    model = found["objects"]["model"]
    assert (model["tensors"], model["elements"], model["bytes"]) == (4, 58, 232)
    assert [group["lr"] for group in found["optimizers"]["optimizer"]] == [0.003, 0.001]
    assert found["optimizers"]["optimizer"][1]["betas"] == [0.9, 0.999]
    assert found["produced_by"]["torch"] == torch.__version__
    assert found["different_here"] == []
    written = datetime.fromisoformat(found["written"])
    assert written.timestamp() == pytest.approx((NEWEST / MANIFEST).stat().st_mtime, abs=1)
    assert "tensors" not in found


@pytest.mark.parametrize("name", [MANIFEST, STATE, TENSORS])
def test_a_file_of_a_checkpoint_stands_for_it(run, name):
    assert document(NEWEST / name) == document(NEWEST)


@pytest.mark.parametrize("path", ["mine", "mine/checkpoints", "mine/"])
def test_a_run_is_a_table_and_its_newest_in_detail(run, path):
    text = told(path)
    table, best = rows(text, "checkpoint step"), rows(text, "metric lowest")
    assert [row[0] for row in table] == [f"step-0000000{n}" for n in (3, 4, 6, 8)]
    assert [row[1:3] for row in table] == [["3", "0.75"], ["4", "1"], ["6", "1.5"], ["8", "2"]]
    assert [row[5] for row in table] == ["whole"] * 3 + ["whole, used"]
    assert table[0][6:] == ["0.03", "0.333333"]
    assert best == [
        ["accuracy", "0.03", "step-00000003", "0.08", "step-00000008"],
        ["loss", "0.125", "step-00000008", "0.333333", "step-00000003"],
    ]
    assert "step-00000008 would be used: whole, every byte is what was saved" in text
    assert "the log has" not in text
    assert text.split("would be used")[1].split("\n", 1)[1] == told(NEWEST).split("\n", 1)[1]


def test_a_run_says_how_long_its_log_is_and_what_going_on_would_cut(run):
    assert told("mine").startswith("mine: a run, 4 checkpoints, 8 lines of log\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "epoch": 2}\n{"step": 10, "ep')
    assert "the log has 2 lines from after the checkpoint that would be used" in told("mine")
    log = document("mine")["log"]
    assert (log["lines"], log["after"]) == (10, 2)
    (run / "metrics.jsonl").unlink()
    assert document("mine")["log"] is None
    assert told("mine").startswith("mine: a run, 4 checkpoints\n")


def test_p41_a_damaged_tensor_is_named_and_the_one_before_is_used(run):
    flip(NEWEST / TENSORS, -3)
    result = invoke("mine")
    assert result.exit_code == 1
    name = re.search(
        r"^step-00000008 is damaged:\n  the tensor (\S+) in tensors\.safetensors is not what was saved: its hash differs$",
        result.stdout,
        re.M,
    )[1]
    assert name in json.loads((NEWEST / MANIFEST).read_text())["tensors"]
    assert [row[5] for row in rows(result.stdout, "checkpoint step")] == ["whole"] * 2 + [
        "whole, used",
        "damaged",
    ]
    assert "step-00000006 would be used: whole" in result.stdout
    assert "the log has 2 lines from after the checkpoint" in result.stdout
    assert rows(result.stdout, "metric lowest")[1][3:] == ["0.333333", "step-00000003"]
    assert result.stderr == f"descend: error: damaged: {NEWEST}\n"
    found = document("mine", status=1)
    assert found["used"] == "mine/checkpoints/step-00000006"
    assert found["best"]["loss"]["lowest"] == {"value": 1 / 6, "checkpoint": "step-00000006"}
    assert [one["whole"] for one in found["checkpoints"]] == [True, True, True, False]
    assert found["newest"]["name"] == "step-00000006"


def test_a_damaged_tensor_does_not_hide_what_else_is_there(run):
    flip(NEWEST / TENSORS, -3)
    text = told(NEWEST, status=1)
    assert text.startswith(f"{NEWEST}: a checkpoint, damaged\n  the tensor ")
    assert rows(text, "object tensors")[0][:4] == ["model", "4", "58", "232 B"]
    assert rows(text, "optimizer group")[0][3] == "0.003"
    assert "damaged descriptions" not in text  # these are whole


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda: flip(NEWEST / MANIFEST, 300), "manifest.json is not what was saved"),
        ((NEWEST / MANIFEST).unlink, "manifest.json is missing"),
        (lambda: os.truncate(NEWEST / MANIFEST, 40), "manifest.json is not what was saved"),
        (lambda: flip(NEWEST / STATE, 30), "state.json is not what was saved"),
        (lambda: os.truncate(NEWEST / STATE, 30), "state.json "),
        ((NEWEST / STATE).unlink, "state.json cannot be read (No such file"),
        (lambda: os.truncate(NEWEST / TENSORS, 500), "tensors.safetensors has 500 bytes and had"),
        ((NEWEST / TENSORS).unlink, "tensors.safetensors cannot be read ("),
        (lambda: flip(NEWEST / TENSORS, 20), "tensors.safetensors is not what was saved: the hash"),
    ],
)  # fmt: skip
def test_whatever_is_damaged_is_named(run, damage, what):
    damage()
    for options in ([], ["--tensors"], ["--no-verify"]):
        if "hash" in what and options == ["--no-verify"]:
            continue  # which reads nothing of that file
        text = told(NEWEST, *options, status=1)
        assert text.splitlines()[1].startswith(f"  {what}"), text
        assert document(NEWEST, *options, status=1)["damages"][0].startswith(what)
        assert "step-00000006 would be used: " in told("mine", status=1)


def test_of_a_checkpoint_without_its_state_the_tensors_are_described(run):
    (NEWEST / STATE).unlink()
    text = told(NEWEST, "--tensors", status=1)
    assert "as far as the damaged descriptions tell" in text
    assert rows(text, "object tensors")[0] == ["model", "4", "58", "232 B", "float32"]
    assert len(rows(text, "tensor dtype")) == 18


def test_of_a_checkpoint_without_its_manifest_the_state_is_described(run):
    (NEWEST / MANIFEST).unlink()
    text = told(NEWEST, status=1)
    assert rows(text, "object tensors")[0] == ["model", "4", "-", "-"]
    assert rows(text, "optimizer group")[0][3] == "0.003"


def test_nothing_left_but_an_empty_folder_of_that_name(run):
    shutil.rmtree(NEWEST)
    NEWEST.mkdir()
    text = told("mine", status=1)
    assert "step-00000008 is damaged:\n  manifest.json is missing" in text
    assert "step-00000006 would be used" in text
    assert invoke(NEWEST).exit_code == 2


def test_where_none_is_whole_the_newest_is_described_as_far_as_it_goes(run):
    for path in Path("mine/checkpoints").iterdir():
        os.truncate(path / TENSORS, 100)
    text = told("mine", status=1)
    assert "none can be used: the run cannot go on" in text
    assert "step-00000008 is the newest: damaged" in text
    assert rows(text, "optimizer group")[0][3] == "0.003"
    found = document("mine", status=1)
    assert (found["used"], found["best"]) == (None, {})


def test_every_bit_flip_and_truncation_of_a_checkpoint_is_seen_and_none_crashes(here):
    model, optimizer = trained()
    ck.save("c", {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    draw = random.Random(0)
    for _ in range(60):
        file = Path("c") / draw.choice([MANIFEST, STATE, TENSORS])
        before = file.read_bytes()
        content, kind = bytearray(before), draw.randrange(4)
        place = draw.randrange(len(content))
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content[place : place + 1] = draw.choice(
                [b"9", b"[", b"null", b'"', b"-", b"{}", b"\0"]
            )
        else:
            content[place] ^= 1 << draw.randrange(8)
        if content == before:
            continue
        file.write_bytes(content)
        assert told("c", "--tensors", status=1).startswith("c: a checkpoint, damaged\n  ")
        assert document("c", "--tensors", status=1)["whole"] is False
        invoke("c", "--no-verify")
        file.write_bytes(before)
    assert document("c")["whole"]


def test_without_verifying_no_tensor_is_read(run, monkeypatch):
    flip(NEWEST / TENSORS, -3)
    read = TensorsFile.read

    def scalar(file, name):
        values = read(file, name)
        assert values.numel() <= 8  # one element, which is shown
        return values

    monkeypatch.setattr(TensorsFile, "read", scalar)
    text = told("mine", "--no-verify")
    assert [row[5] for row in rows(text, "checkpoint step")] == ["not verified"] * 3 + [
        "not verified, used"
    ]
    assert "step-00000008 would be used: not verified" in text
    found = document(NEWEST, "--no-verify")
    assert (found["whole"], found["verified"]) == (None, False)
    (NEWEST / STATE).write_text("{}")
    assert "state.json has 2 bytes and had" in told(NEWEST, "--no-verify", status=1)


def test_all_tensors_are_listed_with_hashes(run):
    listed = document(NEWEST, "--tensors")["tensors"]
    saved = ck.load(NEWEST)
    assert len(listed) == 18
    for one in listed:
        if one["name"].startswith("model."):
            tensor = saved["model"][one["name"].removeprefix("model.")]
            assert one["hash"] == hash_tensor(tensor)
            assert one["shape"] == list(tensor.shape)
            assert one["bytes"] == tensor.nbytes
            assert one["dtype"] == "float32"
    text = rows(told(NEWEST, "--tensors"), "tensor dtype")
    assert [row[0] for row in text] == [one["name"] for one in listed]
    assert [row[-1] for row in text] == [one["hash"] for one in listed]
    assert ["model.0.weight", "float32", "8 x 4", "128 B"] in [row[:4] for row in text]
    assert ["optimizer.state.0.step", "float32", "number", "4 B"] in [row[:4] for row in text]
    newest = document("mine", "--tensors")["newest"]["tensors"]
    assert newest == listed


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("exp_avg_sq", 4),
        ("model.*.weight", 2),
        ("model.?.bias", 2),
        ("*", 18),
        ("", 18),
        ("0.w", 1),
    ],
)
def test_a_pattern_chooses_tensors(run, pattern, count):
    assert len(document(NEWEST, "--match", pattern)["tensors"]) == count
    assert len(rows(told(NEWEST, "--match", pattern), "tensor dtype")) == count


def test_a_pattern_that_fits_nothing_is_refused(run):
    result = invoke(NEWEST, "--match", "modle")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "descend: error: --match modle: none of its 18 tensors fits; they are called "
        "model.0.bias, ...\n"
    )


def test_layers_are_listed_in_their_order(here):
    ck.save("c", {"model": {f"layer.{i}.w": torch.zeros(1) for i in range(12)}})
    names = [one["name"] for one in document("c", "--tensors")["tensors"]]
    assert names == [f"model.layer.{i}.w" for i in range(12)]


def test_tensors_that_are_the_same_memory_count_once(here):
    weight = torch.ones(10)
    ck.save("c", {"model": {"a": weight, "b": weight, "c": torch.zeros(10)}, "ema": {"d": weight}})
    objects = document("c")["objects"]
    held = {name: (one["tensors"], one["shared"], one["bytes"]) for name, one in objects.items()}
    assert sorted(held.values()) == [(0, 1, 0), (2, 1, 80)] or sorted(held.values()) == [
        (1, 0, 40),
        (1, 2, 40),
    ]
    same = [one for one in document("c", "--tensors")["tensors"] if one["same_as"]]
    assert len(same) == 2
    assert told("c", "--tensors").count(f"= {same[0]['same_as']}") == 2


def test_a_checkpoint_of_the_users_own_shows_its_plain_values(here):
    state = {
        "model": {"w": torch.ones(3)},
        "epoch": 3,
        "loss": float("nan"),
        "best": np.float32(0.5),
        "scale": torch.tensor(65536.0),
        "name": "x" * 200,
        "big": 2**80,
        "on": True,
        "none": None,
        "kind": torch.bfloat16,
        "z": 1 + 2j,
        "raw": b"abc",
        "history": [1.0, 2.0],
        "weights": torch.zeros(3, 4),
        "counts": np.arange(4),
    }
    ck.save("c", state, about={"step": 7, "note": ["a", 1]})
    found = document("c")
    assert found["values"] == {
        "epoch": 3, "loss": None, "best": 0.5, "scale": 65536.0, "name": "x" * 200,
        "big": 2**80, "on": True, "none": None, "kind": "bfloat16", "z": "(1+2j)",
        "raw": "3 bytes",
    }  # fmt: skip
    assert (found["step"], found["epoch"]) == (7, 3)
    assert found["about"] == {"note": ["a", 1]}
    assert {name: (one["tensors"], one["elements"]) for name, one in found["objects"].items()} == {
        "model": (1, 3), "history": (0, 0), "weights": (1, 12), "counts": (1, 4),
    }  # fmt: skip
    text = told("c")
    assert "loss nan" in text
    assert "best 0.5" in text
    assert "x" * 57 + "..." in text
    assert re.search(r"^about +note a 1$", text, re.M)
    assert ["model", "1", "3", "12 B", "float32"] in rows(text, "object tensors")


def test_an_lr_that_is_a_tensor_is_read(here):
    state = {"state": {}, "param_groups": [{"params": [0], "lr": torch.tensor(0.125)}]}
    ck.save("c", {"optimizer": state})
    torch.save({"optimizer": state}, "c.pth")
    for path in ("c", "c.pth"):
        assert document(path)["optimizers"]["optimizer"][0]["lr"] == 0.125
        assert rows(told(path), "optimizer group")[0][3] == "0.125"
    os.truncate("c/tensors.safetensors", 30)
    lr = document("c", status=1)["optimizers"]["optimizer"][0]["lr"]
    assert lr == "a float32 tensor of shape ()"


def test_optimizers_are_found_wherever_they_are(here):
    group = {"params": [0, 1], "lr": 0.5}
    state = {"both": {"gan": {"state": {}, "param_groups": [group, {**group, "lr": math.inf}]}}}
    ck.save("c", state)
    found = document("c")["optimizers"]
    assert found == {"both.gan": [{"parameters": 2, "lr": 0.5}, {"parameters": 2, "lr": None}]}
    assert [row[-1] for row in rows(told("c"), "optimizer group")] == ["0.5", "inf"]


def test_many_groups_are_cut_short_in_the_text_alone(here):
    groups = [{"params": [i], "lr": i} for i in range(50)]
    ck.save("c", {"optimizer": {"state": {}, "param_groups": groups}})
    listed = rows(told("c"), "optimizer group")
    assert len(listed) == 21
    assert listed[-1] == ["and 30 more groups, which --json lists"]
    assert len(document("c")["optimizers"]["optimizer"]) == 50


def test_gradients_that_wait_for_a_step_are_told(here):
    model, optimizer = trained()
    data = torch.utils.data.TensorDataset(torch.randn(8, 4))
    loader = torch.utils.data.DataLoader(data, 2)
    run = descend.Run(
        "mine", model=model, optimizer=optimizer, loader=loader, every_steps=1, background=False
    )
    for (x,) in run:
        model(x).sum().backward()
        if run.step == 3:
            run.stop()
    found = document("mine")["newest"]
    assert found["waiting_gradients"] == 4
    assert "in the middle of an accumulation: those of 4 parameters" in told("mine")


def test_what_is_different_here_is_told(run, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9")
    there = json.loads((NEWEST / MANIFEST).read_text())["produced_by"]["torch"]
    assert re.search(
        rf"^here +torch {re.escape(there)} there, 9\.9 here: going on from it can give other bits$",
        told(NEWEST),
        re.M,
    )
    assert document(NEWEST)["different_here"] == [f"torch {there} there, 9.9 here"]


def test_what_a_program_may_set_itself_is_no_difference_of_the_machine(run, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert "the same machine and versions" in told(NEWEST)
    assert document(NEWEST)["different_here"] == []


def test_what_was_set_aside_and_what_was_left_unfinished_is_told(run):
    checkpoints = run / "checkpoints"
    (checkpoints / "step-00000003").rename(checkpoints / "step-00000003.damaged")
    (checkpoints / ".step-00000009.77-0.tmp").mkdir()
    text = told("mine")
    assert text.startswith("mine: a run, 3 checkpoints")
    assert "set aside, because a run found it damaged: step-00000003.damaged" in text
    assert "1 unfinished save, which the run removes when it goes on" in text
    assert document("mine")["left"] == {
        "set_aside": ["step-00000003.damaged"],
        "unfinished": [".step-00000009.77-0.tmp"],
    }


def test_a_run_without_checkpoints_is_described(here):
    Path("mine/checkpoints").mkdir(parents=True)
    Path("mine/metrics.jsonl").write_text('{"step": 1}\n')
    text = told("mine")
    assert text.startswith("mine: a run, 0 checkpoints, 1 line of log\n")
    assert "no checkpoint yet" in text
    found = document("mine")
    assert (found["checkpoints"], found["used"], found["newest"]) == ([], None, None)
    assert invoke("mine", "--tensors").exit_code == 2


def test_metrics_that_are_no_numbers_or_missing_in_some(here):
    folder = Path("mine/checkpoints")
    folder.mkdir(parents=True)
    kinds = [{"loss": 0.5, "a b": "good", "on": True}, {"loss": None}, {"x\ny": 1}, {"loss": 0.25}]
    for number, metrics in enumerate(kinds):
        ck.save(folder / f"step-{number:08d}", {"n": 1}, about={"step": number, "metrics": metrics})
    text = told("mine")
    table = rows(text, "checkpoint step")
    assert table[0][4:] == ["whole", "good", "0.5", "true", "-"]
    assert table[1][4:] == ["whole", "-", "null", "-", "-"]
    assert table[2][4:] == ["whole", "-", "-", "-", "1"]
    assert "x\\ny" in text
    assert document("mine")["best"] == {
        "loss": {
            "lowest": {"value": 0.25, "checkpoint": "step-00000003"},
            "highest": {"value": 0.5, "checkpoint": "step-00000000"},
        }
    }


def test_more_metrics_than_columns_are_named(here):
    metrics = {f"metric{i}": i for i in range(9)}
    Path("mine/checkpoints").mkdir(parents=True)
    ck.save("mine/checkpoints/step-00000001", {"n": 1}, about={"metrics": metrics})
    text = told("mine")
    assert "and the metrics metric4, metric5, metric6, metric7, metric8" in text
    assert "metric8 8" in text


def test_the_lr_and_the_time_come_after_the_metrics_and_are_never_the_best(here):
    Path("mine/checkpoints").mkdir(parents=True)
    for number in (1, 2):
        metrics = {"lr": 0.1, "a": number, "seconds": 2.0, "z": number}
        ck.save(f"mine/checkpoints/step-{number:08d}", {"n": 1}, about={"metrics": metrics})
    assert rows(told("mine"), "checkpoint size")[1][4:] == ["2", "2", "0.1", "2"]
    assert list(document("mine")["best"]) == ["a", "z"]


def test_a_folder_of_checkpoints_and_runs_is_a_table(run):
    ck.save("best", {"model": {"w": torch.ones(2)}, "epoch": 5, "step": 11})
    flip(NEWEST / TENSORS, -3)
    text = told(".", status=1)
    assert text.startswith(".: a folder, 1 run, 5 checkpoints\n")
    (best,) = rows(text, "checkpoint step")
    assert best[:3] == ["best", "11", "5"]
    assert rows(text, "run optimizer")[0][:4] == ["mine", "AdamW", "1/2", "damaged"]
    assert "mine/checkpoints/step-00000008 is damaged:" in text
    assert "would be used" not in text
    found = document(".", status=1)
    assert (found["kind"], found["used"], found["newest"]) == ("folder", None, None)
    assert [one["name"] for one in found["checkpoints"]] == ["best"] + [
        f"mine/checkpoints/step-0000000{n}" for n in (3, 4, 6, 8)
    ]
    result = invoke(".", "--tensors")
    assert result.exit_code == 2
    assert "give one of them" in result.stderr


def test_f4_a_file_of_torchs_is_described(here):
    model, optimizer = trained()
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "epoch": 3,
            "loss": float("inf"),
            7: {"odd": torch.zeros(2)},
        },
        "old.pth",
    )
    text = told("old.pth")
    assert text.startswith("old.pth: a file of torch's, whole as far as its CRC-32s tell\n")
    assert re.search(r"^values +epoch 3, loss inf$", text, re.M)
    assert rows(text, "object tensors")[0][:4] == ["model", "4", "58", "232 B"]
    assert rows(text, "optimizer group")[0][:4] == ["optimizer", "0", "2", "0.003"]
    found = document("old.pth", "--tensors")
    assert found["kind"] == "torch file"
    assert (found["values"], found["produced_by"]) == ({"epoch": 3, "loss": None}, {})
    hashes = {one["name"]: one["hash"] for one in found["tensors"]}
    assert hashes["model.0.weight"] == hash_tensor(model[0].weight)
    assert set(hashes) > {"7.odd", "optimizer.state.0.exp_avg"}


def test_a_lightning_checkpoint_is_described(here):
    model, optimizer = trained()
    torch.save(
        {
            "epoch": 4,
            "global_step": 1200,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": model.state_dict(),
            "optimizer_states": [optimizer.state_dict(), optimizer.state_dict()],
            "lr_schedulers": [{"last_epoch": 4}],
        },
        "last.ckpt",
    )
    found = document("last.ckpt")
    assert (found["step"], found["epoch"]) == (1200, 4)
    assert set(found["optimizers"]) == {"optimizer_0", "optimizer_1"}
    assert set(found["objects"]) == {"model", "optimizer_0", "optimizer_1", "scheduler"}


def test_odd_tensors_of_torchs_files_are_described(here):
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "empty": torch.zeros(0, 3),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "nested": [({"x": torch.zeros(1, dtype=torch.bool)},)],
        "array": np.arange(3),
    }
    torch.save({"model": odd}, "odd.pth")
    found = {one["name"]: one for one in document("odd.pth", "--tensors")["tensors"]}
    assert found["model.sparse"]["hash"] is None
    assert (found["model.empty"]["shape"], found["model.empty"]["bytes"]) == ([0, 3], 0)
    assert found["model.nested.0.0.x"]["dtype"] == "bool"
    assert "model.sparse" in told("odd.pth", "--tensors")


def test_a_file_that_is_nested_without_end_is_refused(here):
    deep = [torch.zeros(1)]
    for _ in range(5000):
        deep = [deep]
    endless: list = []
    endless.append(endless)
    for name, value in (("deep", deep), ("endless", endless)):
        try:
            torch.save({"model": value}, f"{name}.pth")
        except RecursionError:
            continue
        result = invoke(f"{name}.pth")
        assert result.exit_code == 2
        assert result.stderr.startswith("descend: error: ")
    assert Path("endless.pth").exists()


def test_p42_of_a_file_with_code_none_is_run(here):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, ("ran",))

    torch.save({"model": {"w": torch.zeros(1)}, "evil": Evil()}, "evil.pth")
    result = invoke("evil.pth")
    assert result.exit_code == 0
    assert result.stdout.startswith("evil.pth: a file of torch's, whole")
    assert "evil (a posix.mkdir): left out, as only running code" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not Path("ran").exists()


def test_a_damaged_file_of_torchs_is_named(here):
    torch.save({"model": {"w": torch.arange(100.0)}}, "old.pth")
    content = Path("old.pth").read_bytes()
    place = content.index(torch.arange(100.0).numpy().tobytes())
    flip(Path("old.pth"), place + 41)
    text = told("old.pth", status=1)
    assert text.startswith(
        "old.pth: a file of torch's, damaged\n  the part old/data/0 is not what was saved: its "
        "CRC-32 differs\n"
    )
    Path("old.pth").write_bytes(content[:-10])
    text = told("old.pth", status=1)
    assert "damaged\n  the list of its parts is missing at its end\n" in text
    document("old.pth", status=1)


def test_a_file_of_torchs_of_before_1_6_has_no_checksums(here):
    torch.save({"model": {"w": torch.ones(2)}}, "old.pth", _use_new_zipfile_serialization=False)
    assert told("old.pth").startswith(
        "old.pth: a file of torch's, without checksums that could be verified\n"
    )
    assert document("old.pth")["whole"] is None


NAMES = [
    "a b",
    "ä.ß",
    "層",
    "x" * 300,
    "[bold]no[/]",
    "\x1b[31mred",
    "a\nb",
    "$tensor",
    "",
    "..",
    "\u202e",
]


def test_names_with_odd_characters_are_shown_and_none_reaches_the_terminal(here):
    state = {"model": {name: torch.full((2,), i) for i, name in enumerate(NAMES)}}
    ck.save("c", {**state, **{name: {"x": 1} for name in NAMES}})
    text = told("c", "--tensors")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "model.\\x1b[31mred" in text
    assert "model.a\\nb" in text
    assert "model.[bold]no[/]" in text
    assert "model.層" in text
    names = {one["name"] for one in document("c", "--tensors")["tensors"]}
    assert names == {f"model.{name}" for name in NAMES}
    torch.save(state, "c.pth")
    assert {one["name"] for one in document("c.pth", "--tensors")["tensors"]} == names


def test_a_path_with_odd_characters(here):
    name = "a\nb\x1b[31m \u202e層"
    ck.save(name, {"n": 1})
    assert told(name).startswith("a\\nb\\x1b[31m \\u202e層: a checkpoint, whole")
    assert document(name)["path"] == name


def test_where_the_output_knows_no_such_characters_they_are_spelt_out(here):
    ck.save("c", {"層": {"w": torch.ones(1)}})
    result = CliRunner(charset="latin-1").invoke(main, ["inspect", "c"])
    assert result.exit_code == 0
    assert rows(result.stdout, "object tensors")[0][:2] == ["\\u5c64", "1"]


def test_thousands_of_tensors_take_a_line_each(here):
    count = 2000
    ck.save("c", {"model": {f"layer.{i}.weight": torch.zeros(2) for i in range(count)}})
    assert rows(told("c"), "object tensors") == [["model", "2,000", "4,000", "16.0 kB", "float32"]]
    assert len(rows(told("c", "--tensors"), "tensor dtype")) == count
    assert len(document("c", "--tensors")["tensors"]) == count


def test_many_damages_are_cut_short_in_the_text_alone(here):
    ck.save("c", {"model": {f"l{i}": torch.zeros(64) for i in range(100)}})
    file = Path("c") / TENSORS
    content = bytearray(file.read_bytes())
    content[-100 * 256 :] = b"\1" * 25600
    file.write_bytes(content)
    text = told("c", status=1)
    assert text.count("the tensor model.l") == 20
    assert "  and 80 more, which --json names" in text
    assert len(document("c", status=1)["damages"]) == 100


def test_an_empty_state_and_empty_tensors(here):
    ck.save("c", {})
    text = told("c")
    assert "whole" in text
    assert "object" not in text
    assert document("c")["objects"] == {}
    ck.save("d", {"model": {}, "opt": {"param_groups": [], "state": {}}, "e": torch.zeros(0, 2)})
    listed = {row[0]: row[1:] for row in rows(told("d"), "object tensors")}
    assert listed == {"model": ["-"] * 3, "opt": ["-"] * 3, "e": ["1", "0", "0 B", "float32"]}
    assert document("d")["optimizers"] == {"opt": []}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "nothing does not exist; give a checkpoint or the folder of a run"),
        (lambda: Path("nothing").mkdir(), "nothing holds no checkpoint; give a checkpoint, the folder of a run, or a file of torch's"),
        (lambda: (Path("nothing").mkdir(), Path("nothing/x.pth").touch()), "nothing holds no checkpoint; did you mean nothing/x.pth?"),
        (lambda: Path("nothing").write_text("hello"), "cannot load nothing: it is damaged, or no file of torch.save"),
        (lambda: Path("nothing").touch(), "cannot load nothing: it is empty, damaged, or no file of torch.save"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_in_one_line(here, make, message):
    make()
    for options in ([], ["--json"], ["--no-verify"], ["--tensors"]):
        result = invoke("nothing", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"descend: error: {message}")
        assert result.stderr.count("\n") == 1


def test_an_archive_of_something_else_is_refused(here):
    import zipfile

    with zipfile.ZipFile("thing.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    result = invoke("thing.pt")
    assert (result.exit_code, result.stdout) == (2, "")


def test_what_the_system_refuses_to_read_is_an_error_of_one_line(here, monkeypatch):
    ck.save("c", {"n": 1})

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    Path("d").mkdir()
    result = invoke("d")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"descend: error: .*\bd\b.*: Permission denied.*\n", result.stderr)


def test_a_checkpoint_that_a_training_removes_meanwhile_is_left_out(run, monkeypatch):
    from descend.checkpoint import damages

    original = damages.damages_of

    def removing(path, progress):
        if path.name == "step-00000003":
            shutil.rmtree(path)
        return original(path)

    monkeypatch.setattr(damages, "damages_of", removing)
    assert len(document("mine")["checkpoints"]) == 3


def test_a_time_that_no_calendar_has_is_left_out(here):
    ck.save("c", {"n": 1})
    os.utime("c/manifest.json", (2**40, 2**40))
    assert "whole" in told("c")
    document("c")


def other_format(path):
    manifest = read_manifest(path)
    text = manifest_text({**manifest, "format": "descend checkpoint 9"})
    (path / MANIFEST).write_text(text)


def test_another_format_is_called_neither_whole_nor_damaged(here):
    ck.save("c", {"n": 1})
    other_format(Path("c"))
    for options in ([], ["--no-verify"], ["--json"]):
        result = invoke("c", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "its format is 'descend checkpoint 9'" in result.stderr


def test_p41_a_run_whose_newest_cannot_be_read_does_not_go_on_from_an_older_one(run):
    other_format(NEWEST)
    for options in ([], ["--no-verify"]):
        result = invoke("mine", *options)
        assert result.exit_code == 2
        assert result.stderr == f"descend: error: not readable: {NEWEST}\n"
        assert rows(result.stdout, "checkpoint step")[-1][5] == "not readable"
        assert "step-00000008 cannot be read:\n  its format is " in result.stdout
        assert "none can be used: the run cannot go on" in result.stdout
        assert "step-00000008 is the newest: not readable" in result.stdout
    found = document("mine", status=2)
    assert found["used"] is None
    assert [one["whole"] for one in found["checkpoints"]] == [True] * 3 + [None]
    assert found["checkpoints"][3]["error"].startswith("its format is ")
    with pytest.raises(FormatError):
        ck.load("mine")


def test_p41_a_newer_one_that_is_damaged_is_passed_over_before_one_that_cannot_be_read(run):
    other_format(Path("mine/checkpoints/step-00000006"))
    flip(NEWEST / TENSORS, -3)
    found = document("mine", status=1)
    assert found["used"] is None
    with pytest.raises(FormatError):
        ck.load("mine")


def test_what_the_system_refuses_just_now_is_no_damage(run, monkeypatch):
    original = os.open

    def refuse(path, *args, **options):
        if Path(path).parent.name == NEWEST.name and Path(path).name == STATE:
            raise PermissionError(13, "Permission denied")
        return original(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    for options in ([], ["--no-verify"]):
        result = invoke("mine", *options)
        assert result.exit_code == 2
        assert (
            "step-00000008 cannot be read:\n  state.json cannot be read (Permission"
            in result.stdout
        )


def test_a_checkpoint_in_a_folder_that_lost_its_manifest_is_found(here):
    ck.save("best", {"n": 1})
    ck.save("last", {"n": 1})
    (Path("best") / MANIFEST).unlink()
    assert [row[-1] for row in rows(told(".", status=1), "checkpoint size")] == ["damaged", "whole"]


def test_values_that_json_has_no_word_for(here):
    ck.save("c", {"step": torch.tensor(1 + 2j), "epoch": torch.tensor([[4]])})
    assert document("c")["values"] == {"step": "(1+2j)", "epoch": 4}
    pair = torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    torch.save({"model": {"w": torch.ones(1)}, "pair": pair}, "c.pth")
    assert document("c.pth")["values"] == {"pair": "a float4_e2m1fn_x2 tensor of shape (1,)"}


def test_p40_a_replacement_cut_short_is_found_under_its_other_name(here):
    ck.save("c", {"n": 1})
    os.rename("c", ".c.old")  # what a process killed between two renames leaves; load takes it
    assert ck.load("c") == {"n": 1}
    assert document("c")["whole"]


def test_on_a_terminal_there_are_colours_and_long_texts_are_folded(run, monkeypatch):
    flip(NEWEST / TENSORS, -3)
    screen = Screen(colour=True, width=60, encoding="utf-8")
    monkeypatch.setattr(tables, "screen", lambda: screen)
    text = invoke("mine", color=True).stdout
    assert "\x1b[32mwhole, used\x1b[0m" in text
    assert "\x1b[1;31mdamaged\x1b[0m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(len(line) for line in plain.splitlines() if "every byte" not in line) <= 60
    assert len(rows(plain.replace("\nand the metric loss", ""), "checkpoint step")) == 4
    assert "and the metric loss" in plain  # for which there was no room
    assert "written" not in plain.split("\n\n")[1]


def test_a_name_or_a_hash_is_never_in_two_pieces(run, monkeypatch):
    monkeypatch.setattr(tables, "screen", lambda: Screen(False, 40, "utf-8"))
    hashes = [one["hash"] for one in document(NEWEST, "--tensors")["tensors"]]
    text = told(NEWEST, "--tensors")
    assert all(one in text for one in hashes)


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch, name):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert tables.screen().colour
    assert tables.screen().width >= 40
    monkeypatch.setenv(name, "dumb")
    assert not tables.screen().colour


def test_columns_are_straight_whatever_is_in_them():
    plain = Screen(colour=False, width=None, encoding="utf-8")
    lines = table(["a", "b"], [["層", "1"], [("x", "good"), "10"], ["", ""]], plain)
    assert lines == ["a    b", "層   1", "x   10", ""]
    coloured = Screen(colour=True, width=None, encoding="utf-8")
    assert re.sub(
        r"\x1b\[[0-9;]*m",
        "",
        "\n".join(table(["a", "b"], [["層", "1"], [("x", "good"), "10"]], coloured)),
    ) == "\n".join(lines[:3])
    assert table(["a"], [], plain) == []
    assert facts([], plain) == []


@pytest.mark.parametrize("module", [contents, tables, format], ids=lambda one: one.__name__)
def test_the_examples_run(module):
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted
