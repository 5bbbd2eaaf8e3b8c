"""`descend report`: a page with the curves, the ends and the settings of runs."""

import json
from html.parser import HTMLParser

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import descend
from cli import commands
from descend.report.run_log import RunLog


class Page(HTMLParser):
    """The facts on a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.titles, self.cells, self.paths, self.links = [], [], [], {}, []
        self.marked, self.texts, self.panel = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in ("meta", "input", "path", "circle"):
            self.open.append((tag, found.get("class", "")))
        if tag == "path" and ("g", "r0") in self.open:
            self.paths[self.panel] = found["d"]
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in ("meta", "input", "path", "circle"):
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, kind = self.open[-1] if self.open else ("", "")
        self.texts.append(data)
        if tag == "figcaption" and data.strip():
            self.panel = data.strip()
            self.titles.append(self.panel)
        if tag in ("td", "th"):
            self.cells.append(data)
            if kind in ("differs", "best"):
                self.marked.append(data)


class Line(descend.Module):
    def __init__(self, lr: float = 0.1, note: str = "<b>"):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch):
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch):
        self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self):
        return descend.SGD(self.parameters(), lr=self.hparams.lr)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=5)
    for name, lr in (("slow", 0.01), ("fast", 0.1)):
        torch.manual_seed(0)
        trainer = descend.Trainer(
            folder=f"runs/{name}", max_epochs=3, log_every_n_steps=2, enable_progress_bar=False
        )
        trainer.fit(Line(lr), loader, loader)
    return tmp_path / "runs"


def written(*arguments):
    result = commands.invoke("report", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_the_page_has_curves_ends_and_settings_and_needs_nothing_else(runs):
    assert written("runs/slow", "runs/fast", "--out", "p.html") == "p.html is written\n"
    text = (runs.parent / "p.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.links
    assert "<script" not in text
    assert "http" not in text
    assert page.titles == ["val_loss", "train_loss", "lr"]
    log = RunLog(runs / "fast")
    log.read()
    best = f"{min(log.curves['val_loss'].values):.4g}"
    assert best in page.marked  # of both runs
    assert {"0.01", "0.1"} <= set(page.marked)  # the lr differs
    assert "&lt;b&gt;" in text
    assert "<b>" not in text  # names come from files
    for word in ("SGD", "over", "seed", "torch"):
        assert word in page.cells


def test_settings_of_one_name_and_all_groups_are_told_apart(tmp_path, monkeypatch):
    """A hyperparameter called model hides no model, nor does one in a group of them get lost."""
    monkeypatch.chdir(tmp_path)

    class Grouped(Line):
        def __init__(self, model, seed=5):
            descend.Module.__init__(self)
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(3, 1)

        def configure_optimizers(self):
            weight, bias = self.layer.parameters()
            groups = [{"params": [weight]}, {"params": [bias], "lr": 0.25}]
            return descend.SGD(groups, lr=0.5)

    loader = DataLoader(TensorDataset(torch.ones(4, 3), torch.ones(4, 1)))
    for name, layers in (("a", 2), ("b", 3)):
        trainer = descend.Trainer(folder=name, max_epochs=1, enable_progress_bar=False)
        trainer.fit(Grouped({"deep": {"layers": layers}}), loader)
    (tmp_path / "c").mkdir()  # of which nothing is known: it makes no difference
    (tmp_path / "c" / "metrics.jsonl").write_text("")
    written("a", "b", "c")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"model.deep.layers", "Grouped", "0.5 0.25", "hparams"} <= {*page.cells, *page.texts}
    assert {"2", "3"} <= set(page.marked)
    assert "0.5 0.25" not in page.marked


def test_one_run_has_its_name_and_a_default_file(runs):
    assert written("runs/fast") == "report.html is written\n"
    text = (runs.parent / "report.html").read_text(encoding="utf-8")
    assert "<title>fast</title>" in text
    assert Page(text).marked == []


def test_gaps_and_long_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "long"
    folder.mkdir()
    lines = [
        {"step": step, "epoch": 1, "loss": None if 4000 <= step < 6000 else 1 / step}
        for step in range(1, 20_001)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    written("long")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    path = Page(text).paths["loss"]
    assert path.count("M") == 2  # a gap
    assert 300 < path.count("L") < 700
    assert len(text) < 40_000


def test_no_finite_value_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nan").mkdir()
    (tmp_path / "nan" / "metrics.jsonl").write_text(
        '{"step": 1, "epoch": 1, "loss": null}\n{"step": 2, "epoch": 1, "loss": null}\n'
    )
    written("nan")
    assert "no finite value" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_no_run_is_refused_and_nothing_is_written(runs):
    (runs.parent / "empty").mkdir()
    result = commands.invoke("report", "runs/fast", "empty")
    assert result.exit_code == 2
    assert result.stderr == (
        "descend: error: empty is no run: it has no metrics.jsonl; give the folder of a run\n"
    )
    assert not (runs.parent / "report.html").exists()
    result = commands.invoke("report", "runs/fast", "--out", "none/report.html")
    assert (result.exit_code, "cannot be written" in result.stderr) == (2, True)


def test_a_log_is_read_as_it_grows_and_from_the_start_where_it_was_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "epoch": 1, "a": 1.0}\n{"step": 2, "epo')
    log = RunLog(tmp_path)
    assert log.read()
    assert log.curves["a"].steps == [1]
    assert not log.read() or log.curves["a"].steps == [1]
    path.write_text('{"step": 1, "epoch": 1, "a": 1.0}\n{"step": 2, "epoch": 2, "a": 0.5}\n')
    log.read()
    assert (log.curves["a"].values, log.step, log.epoch) == ([1.0, 0.5], 2, 2)
    path.write_text('{"step": 1, "epoch": 1, "a": 3.0}\n')
    log.read()
    assert (log.curves["a"].values, log.step) == ([3.0], 1)
