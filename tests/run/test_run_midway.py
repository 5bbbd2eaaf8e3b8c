"""descend.Run for loops that validate in mid-epoch, go on after a stop, or keep nothing."""

import os
import signal

import pytest
import torch

import descend
from descend.checkpoint import load
from descend.checkpoint.manifest import read_manifest
from descend.errors import RunError
from run.small import (
    STEPS,
    Parts,
    assert_exact,
    end_of,
    loader,
    log_of,
    mse,
    plain_parts,
    process,
    steps_of,
    surroundings,  # noqa: F401 - a fixture
)

RARELY = {"every_steps": None, "every_minutes": None}


class Owed:
    """Whether a validation is still to be done, as a trainer knows it."""

    def __init__(self):
        self.owed = False

    def state_dict(self):
        return {"owed": self.owed}

    def load_state_dict(self, state):
        self.owed = state["owed"]


def validating(at=None, kind=signal.SIGINT):
    """A model that validates with random numbers after every third step, and a signal in that."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
    optimizer = descend.AdamW(model.parameters(), lr=0.05)
    owed = Owed()

    def validate(run):
        model.eval()
        for part in range(3):
            noise = torch.rand(()).item()
            if (run.step, part) == at:
                signal.raise_signal(kind)
            run.check()
        model.train()
        run.log(noise=noise, ends=run.ends_epoch, position=run.loader.position)
        owed.owed = False

    def body(run, batch):
        if owed.owed:  # of the batch before
            raise AssertionError("a batch before the validation")
        loss = mse(model, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(loss=loss, ends=run.ends_epoch)
        if run.step % 3 == 0:
            owed.owed = True
            run.done()
            validate(run)

    parts = Parts({"model": model, "optimizer": optimizer, "owed": owed}, body)
    parts.validate = validate
    return parts


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("step", [3, 6])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_validation_in_mid_epoch_saves_what_was_before_it(tmp_path, step, part, kind):
    process(tmp_path / "whole", validating, **RARELY)
    ends = KeyboardInterrupt if kind == signal.SIGINT else SystemExit
    with pytest.raises(ends):
        process(tmp_path / "mine", lambda: validating((step, part), kind), **RARELY)
    assert steps_of(tmp_path / "mine")[-1] == step
    saved = load(tmp_path / "mine")
    assert saved["owed"] == {"owed": True}
    assert saved["run"]["loader"]["position"] == step % 4
    # What a trainer does: the validation that is owed first, once the run goes on
    parts = validating()
    run = descend.Run(
        tmp_path / "mine", loader=parts.loader, seed=3, epochs=2, keep=99, **RARELY, **parts.objects
    )
    for batches in run.epochs():
        if parts.objects["owed"].owed:
            run.done()
            parts.validate(run)
        for batch in batches:
            parts.body(run, batch)
    assert run.is_over
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_done_counts_once_and_the_run_goes_on_exactly(tmp_path):
    assert_exact(validating)
    seen = []
    run = descend.Run(tmp_path, loader=loader(), epochs=2)
    for _ in run:
        before = (run.loader.position, run.ends_epoch)
        run.done()
        run.done()
        seen.append((before, (run.loader.position, run.ends_epoch), run.is_over))
    assert [one[0] for one in seen] == [(place, place == 3) for place in range(4)] * 2
    assert [one[1] for one in seen] == [(place + 1, place == 3) for place in range(4)] * 2
    assert not any(one[2] for one in seen)
    assert (run.step, run.is_over) == (STEPS, True)


def test_done_and_break_counts_once(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=3, every_steps=1, keep=99)
    for batches in run.epochs():
        for _ in batches:
            run.done()
            break
        assert run.loader.position == 1
    assert (run.step, run.loader.epoch) == (3, 3)


def test_check_in_a_body_without_done_waits_for_the_end_of_the_batch(tmp_path):
    def body(run):
        if run.step == 3:
            run.done()
        if run.step == 4:
            signal.raise_signal(signal.SIGINT)
            assert run.asked_by == signal.SIGINT
        run.check()

    with pytest.raises(KeyboardInterrupt):
        process(tmp_path, lambda: plain_parts(before_step=body), **RARELY)
    assert steps_of(tmp_path)[-1] == 4
    assert log_of(tmp_path).count(b"\n") == 4


@pytest.mark.parametrize("before", [True, False])
def test_done_outside_of_the_body_is_refused(tmp_path, before):
    run = descend.Run(tmp_path, loader=loader())
    if not before:
        list(run)
    with pytest.raises(RunError, match="no batch is under way"):
        run.done()


# --- reopen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 4, 6, 7])
def test_a_stopped_run_goes_on_where_it_was_once_it_is_reopened(tmp_path, at):
    process(tmp_path / "whole", plain_parts)

    def stop(run):
        if run.step == at:
            run.stop()

    run = process(tmp_path / "mine", lambda: plain_parts(after_step=stop))
    assert (run.is_over, run.step) == (True, at)
    assert list(run) == []
    again = plain_parts()
    again.before = lambda run: run.reopen()
    run = process(tmp_path / "mine", lambda: again)
    assert (run.is_over, run.step) == (True, STEPS)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_reopen_does_nothing_to_other_runs_and_goes_on_in_one_process(tmp_path):
    parts = plain_parts()
    run = descend.Run(tmp_path, loader=loader(), epochs=2, **parts.objects)
    run.reopen()
    for batch in run:
        parts.body(run, batch)
        if run.step == 3:
            run.stop()
            with pytest.raises(RunError, match="being iterated over"):
                run.reopen()
    assert run.is_over
    run.reopen()
    assert not run.is_over
    assert sum(1 for _ in run) == 5
    assert run.is_over
    run.reopen()
    assert run.is_over
    assert list(run) == []


# --- without a folder ------------------------------------------------------------------------


def test_without_a_folder_nothing_is_written_and_all_is_the_same(tmp_path, monkeypatch):
    whole = process(tmp_path / "whole", validating, **RARELY)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    parts = []
    options = {"every_steps": 1, "every_epochs": 1, "best": "loss", "keep": 2, "fresh": True}
    for background in (True, False):
        run = process(
            None,
            lambda: parts.append(validating()) or parts[-1],
            background=background,
            on_save_error="raise",
            **options,
        )
        for name, tensor in whole.objects["model"].state_dict().items():
            assert torch.equal(tensor, parts[-1].objects["model"].state_dict()[name])
        assert run.metrics == whole.metrics
        assert (run.folder, run.step, run.is_over, run.resumed_from) == (None, STEPS, True, None)
        assert repr(run) == f"Run(None: step {STEPS}, over)"
        run.save()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_without_a_folder_a_signal_stops_where_the_batch_is_done(kind):
    seen = []

    def body(run):
        seen.append(run.step)
        if run.step == 3:
            signal.raise_signal(kind)

    before = signal.getsignal(kind)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        process(None, lambda: plain_parts(before_step=body))
    assert seen == [1, 2, 3]
    assert signal.getsignal(kind) == before


def test_without_a_folder_check_stops_in_a_validation():
    for at in ((3, 1), (6, 0)):
        with pytest.raises(KeyboardInterrupt):
            process(None, lambda at=at: validating(at))


def test_without_a_folder_two_runs_stop_and_reopen(monkeypatch):
    monkeypatch.setattr(os, "open", None)  # nothing needs it
    runs = [descend.Run(None, loader=loader(), epochs=2) for _ in range(2)]
    for run in runs:
        for _ in run:
            if run.step == 2:
                run.stop()
        run.reopen()
    assert [sum(1 for _ in run) for run in runs] == [6, 6]


@pytest.mark.parametrize("folder", ["run", None])
def test_metrics_are_a_view_of_what_was_logged_last(tmp_path, folder):
    run = descend.Run(folder and tmp_path / folder, loader=loader())
    seen = run.metrics
    assert seen == {}
    run.log(a=1, b=torch.tensor(2.0))
    run.log(b=float("nan"))
    assert seen == {"a": 1, "b": None}
    with pytest.raises(TypeError):
        seen["a"] = 2
    with pytest.raises(RunError, match="must be a number"):
        run.log(a=[1])
    assert seen == {"a": 1, "b": None}


# --- no number of epochs ---------------------------------------------------------------------


def test_without_a_number_of_epochs_it_ends_where_it_is_stopped(tmp_path):
    def stop(run):
        if run.step == STEPS:
            run.stop()

    process(tmp_path / "whole", lambda: plain_parts(after_step=stop), epochs=None)
    process(tmp_path / "mine", lambda: plain_parts(after_step=stop), die=5, epochs=None)
    run = process(tmp_path / "mine", lambda: plain_parts(after_step=stop), epochs=None)
    assert (run.is_over, run.step) == (True, STEPS)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")
    other = descend.Run(None, loader=loader(), epochs=None)
    assert "epoch 1, 0 of 4 batches done" in repr(other)
    newest = sorted((tmp_path / "mine" / "checkpoints").iterdir())[-1]
    assert read_manifest(newest)["about"]["epochs"] is None
