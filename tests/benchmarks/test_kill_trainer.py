"""A Trainer script killed at random: the short form of `python benchmarks/kill_trainer.py`."""

import shutil

import pytest

import kill_trainer
import kills
from children import python
from descend import checkpoint
from kills import Life, Reference

KILLS = 4


def test_f2_p40_p44_a_trainer_killed_at_any_instant_ends_as_if_it_had_never_been(tmp_path):
    subject = kill_trainer.subject(2, 3)
    tally = kills.kill_and_compare(KILLS, tmp_path, subject, seed=0, jobs=1)
    assert tally.problems == []
    assert len(tally.kills) == KILLS
    assert tally.runs >= 1  # to the end
    assert tally.compared >= KILLS - 2  # the first may come before there is a checkpoint


@pytest.mark.slow
def test_f2_p40_p44_a_trainer_with_more_kills(tmp_path):
    subject = kill_trainer.subject(30, 3)
    tally = kills.kill_and_compare(40, tmp_path, subject, seed=100, jobs=2)
    assert tally.problems == []
    assert len(tally.kills) == 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that nobody killed, and the process that made it."""
    folder = tmp_path_factory.mktemp("trained")
    subject = kill_trainer.subject(1, 8)
    done = python(*subject.command(0)[1:], cwd=folder)
    (folder / "life.out").write_text(done.stdout)
    (folder / "life.err").write_text(done.stderr)
    shutil.copytree(folder / "run" / "checkpoints", folder / "saved")
    return Reference(subject, folder, folder / "saved", 1.0, 1.0, 0.01, 4, 1)


@pytest.fixture
def copy(trained, tmp_path):
    """The same run again, to be changed."""
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    process = type("ended", (), {"returncode": 0})
    return Life(process, tmp_path / "life.out", tmp_path / "life.err")


def average(state):
    state["trainer"]["callbacks"]["EMA"]["module.net.0.weight"].view(-1)[0] += 1e-7


def wait(state):
    key = next(name for name in state["trainer"]["callbacks"] if "EarlyStopping" in name)
    state["trainer"]["callbacks"][key]["wait"] += 1


def patience(state):
    state["scheduler"]["num_bad_epochs"] += 1


def means(state):
    state["trainer"]["validated"] += 1


@pytest.mark.parametrize("change", [average, wait, patience, means])
def test_any_other_state_of_a_callback_is_a_difference(change, copy, trained):
    run = copy.out.parent / "run"
    assert kills.at_end(copy, run, trained) == []
    path = checkpoint.locate(run)
    state = checkpoint.load(path)
    change(state)
    checkpoint.save(path, state)
    (problem,) = kills.at_end(copy, run, trained)
    assert "at the end: " in problem


def test_another_event_is_a_difference(copy, trained):
    run = copy.out.parent / "run"
    events = next(run.rglob("events.out.tfevents.*"))
    whole = events.read_bytes()
    for changed in (whole[: len(whole) * 2 // 3], whole + whole):
        events.write_bytes(changed)
        (problem,) = kills.at_end(copy, run, trained)
        assert " differs: " in problem


@pytest.mark.parametrize(
    ("printed", "step", "fine"),
    [
        ("", 9, True),
        ("run goes on from step 1,260\nepoch  1/30\n", 1260, True),
        ("run goes on from step 1,260\nepoch  1/30\n", 1239, False),
        ("run is over after 11 epochs: it stopped, ...\n", 42, True),
        ("sanity check: 2 batches of validation\n", None, True),
        ("sanity check: 2 batches of validation\n", 0, False),
        ("sanity check: 2 batches of validation\n", 9, False),
    ],
)
def test_a_process_goes_on_from_the_newest_checkpoint(printed, step, fine, copy):
    copy.out.write_text(printed)
    assert (kills.went_on(copy, step, kill_trainer.subject(1, 3)) == []) is fine
