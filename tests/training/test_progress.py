"""ProgressBars: lines anywhere, bars on a terminal, and nothing in between two drawings."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import descend
from children import python
from descend.training.callbacks import progress
from terminal import in_terminal, screen
from training.small_trainings import Interrupt, Net, loader, trained, validation

TIME = r"  [\d.]+ (s|ms|us)"


def fit(**options):
    return trained(None, enable_progress_bar=True, **options)


def test_without_a_terminal_there_is_a_line_for_each_epoch(capsys):
    trainer, net = fit(max_epochs=10, limit_train_batches=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sanity check: 2 batches of validation"
    assert len(lines) == 11
    for number, line in enumerate(lines[1:], start=1):
        found = re.fullmatch(
            rf"epoch {number:2}/10  val_loss \S+  train_loss_epoch \S+{TIME}", line
        )
        assert found, line
    trainer.test(net, validation())
    trainer.validate(net, validation(), verbose=False)
    trainer.predict(net, validation())
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"test  test_loss \S+{TIME}", line)
    trainer.fit(net, loader(), validation())  # `verbose` was that of a test
    assert len(capsys.readouterr().out.splitlines()) == 11
    trainer.validate(net, validation())
    assert re.match(r"validation  val_loss \S+  ", capsys.readouterr().out)


def test_a_validation_in_the_middle_of_an_epoch_has_its_line(capsys):
    fit(max_epochs=2, val_check_interval=0.5)
    starts = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert starts[1:] == ["epoch 1/2, step 3", "epoch 1/2", "epoch 2/2, step 9", "epoch 2/2"]


def test_values_that_are_not_for_the_bar_are_shown_where_there_are_no_others(capsys):
    class Quiet(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(batch))

    fit(max_epochs=1, net=Quiet())
    assert re.search(rf"epoch 1/1  val_loss \S+{TIME}\n$", capsys.readouterr().out)


def test_without_progress_nothing_is_printed(capsys):
    trainer, net = trained(None, descend.EarlyStopping("val_loss", patience=0, min_delta=100.0))
    assert trainer.current_epoch == 2
    trainer.test(net, validation())
    assert capsys.readouterr().out == ""


def test_without_a_terminal_rich_is_not_imported():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from training.small_trainings import trained\n"
        "trained(None, enable_progress_bar=True)\n"
        "assert 'rich' not in sys.modules"
    )
    python("-c", code, cwd=Path(__file__).parents[2])


class Clock:
    """A clock that goes on by so much each time it is read."""

    def __init__(self, each):
        self.now, self.each = 0.0, each

    def monotonic(self):
        self.now += self.each
        return self.now


@pytest.fixture
def terminal(monkeypatch, capsys):
    """A terminal of 120 columns; the function gives what was written to it, without colours."""
    monkeypatch.setattr(progress, "on_terminal", lambda **where: True)
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "120", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    return lambda: re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)


def test_on_a_terminal_there_are_bars_with_the_values(terminal, monkeypatch):
    monkeypatch.setattr(progress, "time", Clock(0.2))
    trainer, net = fit(max_epochs=2)
    shown = terminal()
    assert re.search(
        r"epoch 1/2 +━+\S* 2/6 +[\d.]+ (it/s|s/it) +\S+ train_loss_step 0?\.?\d+", shown
    )
    assert re.search(r"epoch 2/2 .*6/6 .*train_loss_step \S+ +val_loss \S+ +train_loss_ep", shown)
    assert re.search(r"epoch 1/2 .*6/6 .*\nvalidation .*1/3 ", shown)
    assert re.search(r"\repoch 1/2  val_loss \S+  train_loss_epoch \S+  ", shown)
    trainer.test(net, validation())
    trainer.predict(net, validation())
    assert re.search(r"test +━+.* 2/3 ", after := terminal())
    assert re.search(r"prediction +━+.* 2/3 ", after)


def test_they_are_drawn_when_they_are_due_and_not_before(terminal, monkeypatch):
    drawn = []
    draw_if_due = progress.ProgressBars._draw_if_due

    def noting(self, *given):
        before = self._due
        draw_if_due(self, *given)
        if self._due != before:
            drawn.append(clock.now)

    monkeypatch.setattr(progress.ProgressBars, "_draw_if_due", noting)
    clock = Clock(0.03)
    monkeypatch.setattr(progress, "time", clock)
    fit(max_epochs=6)
    apart = [later - one for one, later in itertools.pairwise(drawn)]
    assert 10 < len(drawn) < 40
    assert all(0.1 <= one < 0.4 for one in apart)


def test_no_thread_draws(terminal, monkeypatch):
    import threading

    threads = []

    class Look(descend.Callback):
        def on_train_batch_end(self, *arguments):
            threads.append(threading.active_count())

    monkeypatch.setattr(progress, "time", Clock(0.2))
    before = threading.active_count()
    trained(None, Look(), enable_progress_bar=True)
    assert {*threads} == {before}


def test_a_loader_without_length_has_a_bar_without_end(terminal, monkeypatch):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(4), torch.ones(1))] * 12)

    monkeypatch.setattr(progress, "time", Clock(0.2))
    trainer = descend.Trainer(max_steps=3)
    trainer.fit(Net(), DataLoader(Stream(), batch_size=4))
    assert re.search(r"epoch 1 .* 2/\? ", terminal())


def test_what_goes_on_in_the_middle_of_an_epoch_begins_there(tmp_path, terminal, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, Interrupt(9), enable_progress_bar=True)
    terminal()
    monkeypatch.setattr(progress, "time", Clock(0.2))
    trained(tmp_path, Interrupt(-1), enable_progress_bar=True)
    shown = terminal()
    assert "goes on from step 9" in shown
    first = re.search(r"epoch (\d)/3 +━+\S* (\d)/6", shown)
    assert first.groups() == ("2", "3")


SCRIPT = """
import sys, time
sys.path.insert(0, "tests")
import descend
from training.small_trainings import Interrupt, trained

class Slow(descend.Callback):
    def on_train_batch_end(self, *arguments):
        time.sleep(0.12)
    on_validation_batch_end = on_train_batch_end
    def on_train_epoch_end(self, *arguments):
        print("printed by hand")

trained(None, Slow(), Interrupt(int(sys.argv[1])), enable_progress_bar=True, max_epochs=2)
"""


@pytest.mark.parametrize("interrupt", [-1, 8])
def test_in_a_real_terminal_bars_are_drawn_and_gone_at_the_end(interrupt):
    status, text = in_terminal("-c", SCRIPT, interrupt, cwd=Path(__file__).parents[2])
    assert (status == 0) == (interrupt == -1)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is there again
    left, shown = screen(text)
    assert re.search(r"epoch 1/2 .* 4/6 ", shown)
    assert re.search(r"validation .* 2/3 ", shown)
    kinds = [line.split("  ")[0] for line in left if line]
    first = ["sanity check: 2 batches of validation", "printed by hand", "epoch 1/2"]
    if interrupt == -1:
        assert kinds == [*first, "printed by hand", "epoch 2/2"]
    else:
        told = next(n for n, line in enumerate(kinds) if line.startswith("stopping when"))
        assert kinds[:3] == first
        assert kinds[told + 1] == "Traceback (most recent call last):"
        assert kinds[-1] == "KeyboardInterrupt"
