"""Loggers: what they write is in their files once, however often the process dies."""

import csv
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.data import DataLoader, TensorDataset

import descend
from children import python
from descend.errors import OutputError, ResumeWarning, TrainerError

GUIDE = Path(__file__).parents[2] / "docs/trainer.md"
X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))

# What a user runs, who loses the process at some batch in all: argument 2, and how: argument 3
SCRIPT = """
import os, signal, sys
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset
import descend

class Net(descend.Module):
    def __init__(self, lr=0.05, layers=(3, 1), name="linear"):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(*layers)

    def training_step(self, batch, batch_idx):
        loss = mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        if batch_idx == 2:
            self.log(f"of_epoch_{self.current_epoch}", loss)  # a new column each time
        if self.current_epoch * 6 + batch_idx == int(sys.argv[2]):
            self.trainer.loggers[0].experiment.add_histogram("weights", self.net.weight, 1)
            os.kill(os.getpid(), signal.SIGKILL) if sys.argv[3] == "kill" else os._exit(9)
        if batch_idx == 4:
            tensorboard = self.trainer.loggers[0].experiment
            tensorboard.add_text("epoch", str(self.current_epoch), self.global_step)
            tensorboard.add_scalars("both", {"a": loss, "b": 2 * loss}, self.global_step)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return descend.SGD(self.parameters(), lr=self.hparams.lr)

descend.seed_everything(0)
x = torch.randn(24, 3)
data = TensorDataset(x, x.sum(1, keepdim=True))
trainer = descend.Trainer(
    folder=sys.argv[1], max_epochs=3, every_steps=4, log_every_n_steps=1,
    enable_progress_bar=False,
    logger=[descend.TensorBoardLogger(), descend.CSVLogger(),
            descend.TensorBoardLogger("logs", "events"), descend.CSVLogger("logs", "tables")])
module = Net()
trainer.fit(module, DataLoader(data, 4, shuffle=True), DataLoader(data, 12))
trainer.test(module, DataLoader(data, 12))
"""


def events(folder):
    """All values in the event files of a folder, and of those in it: (tag, step, value)."""
    found = []
    for path in sorted(folder.rglob("events*"), key=lambda path: path.stat().st_mtime_ns):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                content = value.metadata.plugin_data.content  # of hyperparameters
                shown = value.tensor.SerializeToString(deterministic=True) or content
                found.append((f"{path.parent.relative_to(folder)}:{value.tag}", event.step, shown))
    return found


def trained(folder, batch=-1, how="exit", status=0):
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    python(script, "run", batch, how, status=status, cwd=folder)


def test_h7_no_line_is_there_twice_after_kills(tmp_path):
    """Before a new column and after, in an epoch and at its end, and when all is over."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trained(whole)
    for batch, how in ((3, "exit"), (9, "kill"), (12, "kill"), (17, "exit")):
        trained(killed, batch, how, status=-9 if how == "kill" else 9)
    trained(killed)
    trained(killed)  # which is over: it is tested once more
    expected = events(whole / "run/tensorboard")
    assert len(expected) > 80
    assert sorted(events(killed / "run/tensorboard")) == sorted(expected)
    assert sorted(events(killed / "logs/events/version_0")) == sorted(
        events(whole / "logs/events/version_0")
    )
    for place in ("run", "logs/tables/version_0"):
        table = (whole / place / "metrics.csv").read_bytes()
        assert (killed / place / "metrics.csv").read_bytes() == table
    rows = [*csv.DictReader((killed / "run/metrics.csv").read_text().splitlines())]
    assert [row["step"] for row in rows if row["lr"]] == [*map(str, range(1, 19))]
    assert rows[-1]["test_loss"]
    assert not (killed / "logs/events/version_1").exists()
    hparams = json.loads((killed / "logs/tables/version_0/hparams.json").read_text())
    assert hparams == {"lr": 0.05, "layers": [3, 1], "name": "linear"}


def test_h7_tensorboard_reads_curves_and_hyperparameters(tmp_path):
    trained(tmp_path)
    read = EventAccumulator(str(tmp_path / "run/tensorboard"))
    read.Reload()
    assert {"loss", "val_loss", "test_loss", "lr", "epoch"} <= set(read.Tags()["scalars"])
    assert [event.step for event in read.Scalars("loss")][:18] == [*range(1, 19)]
    data = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    shown = HParamsPluginData.FromString(data).session_start_info.hparams
    assert (shown["lr"].number_value, shown["name"].string_value) == (0.05, "linear")


def note(logger, folder, step=2):
    """A logger that has noted some steps, and where it stands at them."""
    logger.begin(folder, False)
    logger.log_hyperparams({"lr": 0.1})
    for number in range(1, step + 1):
        logger.log_metrics({"loss": 1 / number}, number)
    return logger.state_dict()


@pytest.mark.parametrize("kind", [descend.TensorBoardLogger, descend.CSVLogger])
def test_a_load_changes_nothing_and_begin_cuts(kind, tmp_path):
    logger = kind()
    state = note(logger, tmp_path)
    logger.log_metrics({"loss": 9.0, "later": 1.0}, 3)
    logger.finalize("failed")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    other = kind()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert all(path.read_bytes() == content for path, content in before.items())
    other.begin(tmp_path, True)
    assert other.state_dict()["files"] == state["files"]
    assert not any(b"later" in path.read_bytes() for path in before)
    other.begin(tmp_path, False)  # a fresh start: of the one before nothing is left
    assert not any(path.exists() for path in before)


def test_half_a_record_does_not_remain(tmp_path):
    """A power cut may leave less of a file than the checkpoint tells."""
    logger = descend.TensorBoardLogger()
    state = note(logger, tmp_path, 5)
    logger.finalize("failed")
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    logger.load_state_dict(state)
    with pytest.warns(ResumeWarning, match="not what it was"):
        logger.begin(tmp_path, True)
    logger.log_metrics({"loss": 0.5}, 6)
    logger.finalize("success")
    steps = [step for tag, step, _ in events(tmp_path / "tensorboard") if tag == ".:loss"]
    assert steps == [1, 2, 3, 4, 6]


def test_files_of_others_are_left_alone_and_links_not_followed(tmp_path):
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    run.mkdir()
    other = elsewhere / "events.out.tfevents.1.of.others"
    other.write_bytes(b"precious")
    (run / "tensorboard").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="symbolic link"):
        descend.TensorBoardLogger().begin(run, False)
    (run / "metrics.csv").symlink_to(other)
    with pytest.raises(OutputError, match="symbolic link"):
        descend.CSVLogger().begin(run, False)
    logger = descend.TensorBoardLogger(tmp_path, version="elsewhere")
    note(logger, run)
    logger.begin(run, False)
    assert other.read_bytes() == b"precious"
    assert [*elsewhere.iterdir()] == [other]
    for _ in range(2):  # without a run's folder nothing is its own
        note(descend.TensorBoardLogger(tmp_path, version="elsewhere"), None)
    assert len([*elsewhere.iterdir()]) == 3


def test_versions_count_up_and_a_run_keeps_its_own(tmp_path):
    first, second = (descend.CSVLogger(tmp_path, "digits") for _ in range(2))
    state = note(first, None)
    note(second, None)
    assert [one.log_dir.name for one in (first, second)] == ["version_0", "version_1"]
    again = descend.CSVLogger(tmp_path, "digits")
    again.load_state_dict(state)
    again.begin(None, True)
    assert again.version == 0
    second.begin(None, False)  # another fit
    assert second.version == 2


def test_no_folder_no_tensorboard_and_a_full_disk(tmp_path, monkeypatch):
    with pytest.raises(TrainerError, match="save_dir too"):
        descend.TensorBoardLogger(name="digits")
    with pytest.raises(TrainerError, match="this trainer has none; give Trainer"):
        descend.TensorBoardLogger().begin(None, False)
    logger = descend.CSVLogger()
    state = note(logger, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.warns(UserWarning, match="the training goes on"):
            logger.log_metrics({"loss": 0.5}, 3)
        logger.log_metrics({"loss": 0.25}, 4)
    logger.log_metrics({"loss": 0.125}, 5)
    assert logger.state_dict()["files"]["lines"] == state["files"]["lines"] + 3
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainerError, match=r"pip install 'descend\[tensorboard\]'"):
        descend.TensorBoardLogger().begin(tmp_path, False)


class Server:
    """A stand-in for W&B's and MLflow's, which keep what they are told over processes."""

    def __init__(self):
        self.runs, self.ended = {}, []

    # wandb.init, and its run

    def init(self, id, resume, **options):
        assert resume == "allow"
        lines = self.runs.setdefault(id, [])
        return SimpleNamespace(
            summary={"step": lines[-1][0]} if lines else {},
            config=SimpleNamespace(update=lambda params, allow_val_change: lines),
            log=lambda metrics: lines.append((metrics["step"], metrics)),
            finish=lambda *, exit_code: self.ended.append(exit_code),
        )

    # mlflow.set_experiment and its client

    def MlflowClient(self):  # noqa: N802 - their name
        return self

    def set_experiment(self, name):
        return SimpleNamespace(experiment_id=name)

    def create_run(self, experiment_id, run_name):
        self.runs[run_name] = []
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def get_run(self, run_id):
        names = {name for _, metrics in self.runs[run_id] for name in metrics}
        return SimpleNamespace(data=SimpleNamespace(metrics=dict.fromkeys(names, 0.0)))

    def get_metric_history(self, run_id, name):
        return [SimpleNamespace(step=step) for step, of in self.runs[run_id] if name in of]

    def log_param(self, run_id, key, value):
        assert run_id in self.runs

    def log_metric(self, run_id, key, value, step):
        self.runs[run_id].append((step, {key: value}))

    def set_terminated(self, run_id, status):
        self.ended.append(status)


class Small(descend.Module):
    def __init__(self, fails_at=None):
        super().__init__()
        self.net = torch.nn.Linear(3, 1)
        self.fails_at = fails_at
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fails_at:
            raise RuntimeError("lost")
        loss = self.net(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_loss", 1.0)

    def configure_optimizers(self):
        return descend.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("name", "module", "given"),
    [("WandbLogger", "wandb", {"project": "p"}), ("MLflowLogger", "mlflow", {"experiment": "p"})],
)
def test_loggers_of_the_guide(name, module, given, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    scope = {}
    exec(next(block for block in blocks if f"class {name}" in block), scope)
    server = Server()
    monkeypatch.setitem(sys.modules, module, server)
    loader = DataLoader(TensorDataset(X), 4)

    def fit(fails_at=None):
        logger = scope[name](**given)
        assert isinstance(logger, descend.Logger)
        trainer = descend.Trainer(
            folder=tmp_path, max_epochs=2, every_steps=4, log_every_n_steps=1, logger=logger,
            enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(Small(fails_at), loader)
        trainer.test(Small(), loader)

    with pytest.raises(RuntimeError, match="lost"):
        fit(fails_at=7)
    fit()
    ((_, lines),) = server.runs.items()
    steps = [step for step, metrics in lines if "loss" in metrics]
    assert steps == [*range(1, 13)]
    assert any("test_loss" in metrics for _, metrics in lines)
    assert server.ended[:2] in ([1, 0], ["FAILED", "FINISHED"])


def test_tensorboard_is_imported_when_it_is_used():
    assert importlib.util.find_spec("tensorboard")
    code = """
import sys, descend
descend.TensorBoardLogger("logs")
print("tensorboard" in sys.modules)
"""
    assert python("-c", code).stdout.split() == ["False"]


@pytest.mark.parametrize("kind", [descend.CSVLogger, descend.TensorBoardLogger])
def test_of_runs_that_start_at_once_each_has_a_version_of_its_own(kind, tmp_path):
    first, second = (kind(tmp_path, name="x") for _ in range(2))
    assert first.version == second.version == 0  # as they were made, there was none
    for logger in (first, second):
        logger.begin(None, False)
    assert [first.version, second.version] == [0, 1]
    for logger in (first, second):
        logger.log_metrics({"loss": 1.0}, 1)
        logger.finalize("success")
    assert sorted(one.name for one in (tmp_path / "x").iterdir()) == ["version_0", "version_1"]
