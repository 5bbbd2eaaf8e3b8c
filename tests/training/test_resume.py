"""`descend train` again: it goes on, with the bits of a run that was never stopped."""

import json
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from descend.checkpoint import diff, load
from descend.checkpoint.series import checkpoints
from descend.cli import main

TASK = """
import os, signal, torch
from descend.training import Task

class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        x = torch.full((4,), index / 30) + 0.1 * torch.randn(4)
        return x, int(index % 2)

calls = [0]
def loss(outputs, targets):
    calls[0] += 1
    if calls[0] == STOP:
        os.kill(os.getpid(), signal.SIGNAL)
    return torch.nn.functional.cross_entropy(outputs, targets)

torch.manual_seed(SEED)
task = Task(
    model=torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)),
    train=Noisy(),
    validation=Noisy(),
    loss=loss,
)
"""
FAILING = TASK.replace("calls[0] += 1", "1 / 0").replace("STOP", "0").replace("SEED", "0")
ARGS = ("--batch-size", "4", "--epochs", "3", "--schedule", "warmup(3) >> cosine(21)")


pytestmark = pytest.mark.usefixtures("own_folder")


def train(*args, stop=0, kind="SIGINT", seed=0, name="task.py"):
    """Train the task, which stops itself in the given call of its loss."""
    text = TASK.replace("STOP", str(stop)).replace("SIGNAL", kind).replace("SEED", str(seed))
    Path(name).write_text(text)
    return CliRunner().invoke(main, ["train", name, *ARGS, *map(str, args)])


def lines(folder):
    text = (Path(folder) / "metrics.jsonl").read_text()
    read = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read]


def without_times(state):
    trainer = state["trainer"]
    trainer.pop("seconds")
    trainer["callbacks"]["EpochRecords"].pop("seconds")
    for record in trainer["callbacks"]["EpochRecords"]["records"]:
        record.pop("seconds")
    trainer["callbacks"]["Command"].pop("files")  # the task's file says where it stops
    state["run"].pop("log")  # how long the times are in digits
    state["run"]["metrics"].pop("seconds")
    return state


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped: its output and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = train("--out", "run")
    assert result.exit_code == 0, result.stderr
    return result, folder / "run"


# An epoch has 8 batches and 8 more of validation
@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("stop", [1, 3, 8, 11, 16, 17, 34], ids="in call {}".format)
def test_f2_stopped_anywhere_it_ends_as_if_it_was_not(whole, stop, kind):
    stopped = train("--out", "run", stop=stop, kind=kind)
    assert stopped.exit_code == {"SIGINT": 130, "SIGTERM": 143}[kind], stopped.stderr
    again = train("--out", "run", seed=9)
    assert again.exit_code == 0, again.stderr
    assert "run goes on after " in again.stdout
    assert again.stderr == (
        "descend: warning: task.py has changed since the run was started: what follows can differ\n"
    )
    assert again.stdout.splitlines()[-1] == whole[0].stdout.splitlines()[-1]
    assert lines("run") == lines(whole[1])
    assert diff(without_times(load(whole[1])), without_times(load("run"))) == []


def test_a_complete_run_is_not_trained_again_but_shown(whole):
    first = train("--out", "run")
    size = len(lines("run"))
    again = train("--out", "run")
    assert again.exit_code == 0
    assert "run is complete with 3 epochs: more --epochs go on, --fresh starts over" in again.stdout
    assert "epoch 1/3" not in again.stdout
    assert first.stdout.splitlines()[-1] == again.stdout.splitlines()[-1]
    assert len(lines("run")) == size


def test_more_epochs_go_on_and_fresh_starts_over(whole):
    def plain(*args):
        return CliRunner().invoke(main, ["train", "task.py", "--batch-size", "4", *args])

    train(stop=1)  # writes the file
    text = TASK.replace("STOP", "0").replace("SIGNAL", "SIGINT").replace("SEED", "0")
    Path("task.py").write_text(text)
    straight = plain("--epochs", "4", "--out", "straight")
    plain("--epochs", "2")
    further = plain("--epochs", "4")
    assert "goes on after 2 epochs" in further.stdout
    assert further.stdout.splitlines()[-1] == straight.stdout.splitlines()[-1]
    fresh = plain("--epochs", "4", "--fresh")
    assert "goes on" not in fresh.stdout
    assert fresh.stdout.splitlines()[-1] == straight.stdout.splitlines()[-1]
    assert len(lines("runs/task-batch4")) == 4


def test_another_command_does_not_go_on_and_changes_nothing():
    train("--out", "run", stop=5)
    before = {path: path.stat().st_mtime_ns for path in checkpoints_of("run")}
    other = train("--out", "run", "--lr", "0.5")
    assert other.exit_code == 2
    assert other.stderr == (
        "descend: error: run is the run of another command: --lr was not given and is 0.5; give "
        "another --out, or --fresh to start over\n"
    )
    assert {path: path.stat().st_mtime_ns for path in checkpoints_of("run")} == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(whole):
    train("--out", "run", "--every-steps", "2", stop=24)
    newest = checkpoints_of("run")[-1] / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    again = train("--out", "run", seed=9)
    assert again.exit_code == 0, again.stderr
    assert "descend: warning: cannot load the checkpoint" in again.stderr
    assert "is used instead" in again.stderr
    assert again.stdout.splitlines()[-1] == whole[0].stdout.splitlines()[-1]
    assert lines("run") == lines(whole[1])


def test_every_steps_saves_more_often():
    train("--out", "run", "--every-steps", "3", stop=8)
    assert [path.name for path in checkpoints_of("run")] == [
        "step-00000003", "step-00000006", "step-00000008",
    ]  # fmt: skip


def test_the_handlers_of_signals_are_given_back():
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    train("--out", "run", stop=5)
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
    Path("fails.py").write_text(FAILING)
    failed = CliRunner().invoke(main, ["train", "fails.py"])  # which keeps the traceback
    assert "division by zero" in failed.stderr
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path):
    (tmp_path / "t.py").write_text(FAILING)
    result = CliRunner().invoke(main, ["train", "t.py", "--out", "run"])
    assert result.exit_code == 2
    assert "the loss, given (30, 2), (30,), failed: ZeroDivisionError" in result.stderr
    assert not (tmp_path / "run").exists()


def checkpoints_of(folder):
    return checkpoints(Path(folder) / "checkpoints")
