"""`descend train` killed at random: the short form of `python benchmarks/kill_train.py`."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

import kill_train
import kills
from descend import checkpoint
from descend.cli import main
from descend.run.run_folder import prepare_folder
from kills import Kill, Life, Plan, Reference, Tally

KILLS = 6


# One test for all: each of them would start a dozen processes of its own
def test_f2_p40_p44_killed_at_any_instant_it_ends_as_if_it_had_never_been(tmp_path):
    tally = kills.kill_and_compare(KILLS, tmp_path, kill_train.subject(4, 3), seed=0, jobs=1)
    # Nothing lost before the newest checkpoint, all of them whole, every bit as without the kills
    assert tally.problems == []
    assert len(tally.kills) == KILLS
    assert {one.kind for one in tally.kills} == {*kills.SHARES}
    halves = [one for one in tally.kills if one.half is not None]
    assert len(halves) >= 3  # those that were aimed
    assert all(one.newest is not None for one in halves)
    assert tally.runs >= 1  # to the end
    assert tally.compared >= KILLS - 1  # the first may come before there is a checkpoint


@pytest.mark.slow
def test_f2_p40_p44_with_more_kills(tmp_path):
    tally = kills.kill_and_compare(60, tmp_path, kill_train.subject(30, 3), seed=100, jobs=2)
    assert tally.problems == []
    assert len(tally.kills) == 60


STEPS = kill_train.STEPS_PER_EPOCH
SUBJECT = kill_train.subject(1, 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that nobody killed, in this process: a run folder, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    words = kill_train.subject(1, 8).command(0)[4:]
    words[words.index("run")] = str(folder / "run")
    result = CliRunner().invoke(main, ["train", *words], catch_exceptions=False)
    assert result.exit_code == 0
    (folder / "life.out").write_text(result.stdout)
    (folder / "life.err").write_text("")
    shutil.copytree(folder / "run" / "checkpoints", folder / "saved")
    return Reference(SUBJECT, folder, folder / "saved", 1.0, 1.0, 0.01, 4, 1)


@pytest.fixture
def copy(trained, tmp_path):
    """The same run again, to be changed: as a process that is over has left it."""
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    process = type("ended", (), {"returncode": 0})
    return Life(process, tmp_path / "life.out", tmp_path / "life.err")


def run_of(life):
    return life.out.parent / "run"


def newest(run):
    return checkpoint.locate(run)


def saved_again(path, change):
    """A checkpoint that is whole, and of another state."""
    state = checkpoint.load(path)
    change(state)
    checkpoint.save(path, state)


def weight(state):
    next(iter(state["model"].values())).view(-1)[0] += 1e-7


def moment(state):
    state["optimizer"]["state"][0]["exp_avg"].view(-1)[0].neg_()


def rate(state):
    state["optimizer"]["param_groups"][0]["lr"] += 1e-12


def time_of_schedule(state):
    state["scheduler"]["last_epoch"] += 1


def position(state):
    state["run"]["loader"]["position"] += 1


def durations(state):
    state["run"]["log"] += 2
    state["run"]["metrics"]["seconds"] += 1.5
    state["trainer"]["seconds"] += 1.5
    records = state["trainer"]["callbacks"]["EpochRecords"]
    records["seconds"] += 1.5
    records["records"][0]["seconds"] += 1.5


def test_equal_runs_are_equal_whatever_they_took(copy, trained):
    assert kills.at_end(copy, run_of(copy), trained) == []
    assert kills.after_kill(run_of(copy), Kill("", (STEPS, 1)), trained) == ([], 1)
    saved_again(newest(run_of(copy)), durations)
    assert kills.at_end(copy, run_of(copy), trained) == []


@pytest.mark.parametrize("change", [weight, moment, rate, time_of_schedule, position])
def test_any_other_bit_of_a_checkpoint_is_a_difference(change, copy, trained):
    saved_again(newest(run_of(copy)), change)
    (end,) = kills.at_end(copy, run_of(copy), trained)
    (after,), compared = kills.after_kill(run_of(copy), Kill("", None), trained)
    assert "at the end" in end
    assert ("step-00000021" in after, compared) == (True, 1)


def line_lost(lines):
    del lines[0]


def line_twice(lines):
    lines.append(lines[-1])


def lr_changed(lines):
    lines[0]["lr"] *= 1 + 1e-15


def step_changed(lines):
    lines[-1]["step"] += 1


@pytest.mark.parametrize("change", [line_lost, line_twice, lr_changed, step_changed])
def test_any_difference_of_the_log_is_one(change, copy, trained):
    log = run_of(copy) / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    change(lines)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = kills.at_end(copy, run_of(copy), trained)
    assert "metrics.jsonl differs" in first
    assert "line" in second


def test_a_log_that_a_checkpoint_does_not_know_is_a_difference(copy, trained):
    log = run_of(copy) / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines, lines[-1]]))  # written after the checkpoint: it is cut there
    assert kills.after_kill(run_of(copy), Kill("", None), trained) == ([], 1)
    log.write_text("".join([lines[0].replace('"epoch": 1', '"epoch": 2'), *lines[1:]]))
    problems, _ = kills.after_kill(run_of(copy), Kill("", None), trained)
    assert "the log up to step-00000021 differs" in problems[0]
    log.unlink()
    problems, _ = kills.after_kill(run_of(copy), Kill("", None), trained)
    assert "the log up to step-00000021 differs" in problems[0]


def test_other_printed_digests_and_statuses_and_leftovers_are_differences(copy, trained):
    text = copy.out.read_text()
    copy.out.write_text(text.replace("state: ", "state: 0"))
    assert "printed was" in kills.at_end(copy, run_of(copy), trained)[0]
    copy.out.write_text(text)
    (run_of(copy) / "checkpoints" / ".step-00000021.1-1.tmp").mkdir()
    assert "left behind" in kills.at_end(copy, run_of(copy), trained)[0]
    copy.process.returncode = 2
    copy.errors.write_text("descend: error: no")
    assert "ended with 2: descend: error: no" in kills.at_end(copy, run_of(copy), trained)[0]


def test_a_lost_checkpoint_is_a_loss(copy, trained):
    run = run_of(copy)
    shutil.rmtree(newest(run))
    (lost,), _ = kills.after_kill(run, Kill("", (STEPS, 1)), trained)
    assert "step 21 was complete, and step-00000016 is left" in lost
    assert kills.after_kill(run, Kill("", (16, 1)), trained) == ([], 1)
    shutil.rmtree(run / "checkpoints")
    assert "lost every" in kills.after_kill(run, Kill("", (0, 1)), trained)[0][0]
    assert kills.after_kill(run, Kill("", None), trained) == ([], 0)


@pytest.mark.parametrize("name", kills.STAGES)
def test_a_checkpoint_that_is_not_whole_is_damage(name, copy, trained):
    content = (newest(run_of(copy)) / name).read_bytes()
    (newest(run_of(copy)) / name).write_bytes(content[:-1])
    problems, _ = kills.after_kill(run_of(copy), Kill("", None), trained)
    assert any("damaged" in problem for problem in problems)
    (newest(run_of(copy)) / name).unlink()
    problems, _ = kills.after_kill(run_of(copy), Kill("", None), trained)
    assert len(problems) >= 1


@pytest.mark.parametrize(
    ("printed", "step", "fine"),
    [
        ("", 9, True),
        ("digits\nrun goes on after 2 epochs and 12 of 21 batches; --fresh\n", 54, True),
        ("digits\nrun goes on after 2 epochs; --fresh\n", 42, True),
        ("digits\nrun is complete with 2 epochs: more --epochs go on\n", 42, True),
        ("digits\nepoch  1/30\n", None, True),
        ("digits\nepoch  1/30\n", 9, False),
        ("digits\nrun goes on after 2 epochs; --fresh\n", 45, False),
        ("digits\nrun goes on after 2 epochs; --fresh\n", None, False),
    ],
)
def test_a_process_goes_on_from_the_newest_checkpoint(printed, step, fine, copy):
    copy.out.write_text(printed)
    assert (kills.went_on(copy, step, SUBJECT) == []) is fine


def test_kills_are_planned_in_their_shares():
    found = kills.plans(200, seed=0)
    kinds = [plan.kind for plan in found]
    assert [kinds.count(kind) for kind in kills.SHARES] == [70, 20, 90, 20]
    assert kinds != sorted(kinds)
    assert found == kills.plans(200, seed=0) != kills.plans(200, seed=1)
    assert [len(kills.plans(count, 0)) for count in (1, 2, 3)] == [1, 2, 3]


def test_what_is_being_removed_is_no_half_save(tmp_path):
    folder = tmp_path / "checkpoints"
    assert kills.look(tmp_path) == (None, {})
    for name in ("step-00000006", "step-00000009", ".step-00000003.77ab.tmp", "other", ".other.tmp",
                 ".step-00000012.77-5.tmp"):  # fmt: skip
        (folder / name).mkdir(parents=True)
    newest, half = kills.look(tmp_path)
    assert newest == (9, 1)
    assert half == {(12, 1): folder / ".step-00000012.77-5.tmp"}


WRITER = """
import time
from pathlib import Path
folder = Path("run/checkpoints")
folder.mkdir(parents=True)
print("starting", flush=True)
for step in range(1, 2000):
    half = folder / f".step-{step:08}.1-{step}.tmp"
    half.mkdir()
    (half / "state.json").touch()
    time.sleep(0.01)
    half.rename(folder / f"step-{step:08}")
    time.sleep(0.01)
"""


@pytest.mark.parametrize("kind", [*kills.SHARES])
def test_a_kill_comes_as_planned(kind, tmp_path):
    life = kills.start(tmp_path, [sys.executable, "-c", WRITER], "life")
    saved = Reference(SUBJECT, tmp_path, tmp_path, 0.01, 1.0, 0.02, 40, 10)
    killed = kills.kill(life, Plan(kind, 0.5, 0.9), tmp_path / "run", saved)
    assert (killed.kind, life.process.returncode) == (kind, -9)
    if kind in (kills.IN_SAVE, kills.AFTER_EPOCH):
        assert killed.half == {"state.json"}
        ((step, _),) = kills.look(tmp_path / "run")[1]
        assert killed.newest == (step - 1, 1)
        assert step >= 4  # 0.5 of 2 * 40 / 10 saves
        assert step % STEPS == 0 or kind == kills.IN_SAVE
    if kind == kills.START:
        assert killed.newest is None


@pytest.mark.parametrize("kind", [*kills.SHARES])
def test_a_process_that_is_through_before_is_not_killed(kind, tmp_path):
    life = kills.start(tmp_path, [sys.executable, "-c", "print('done')"], "life")
    saved = Reference(SUBJECT, tmp_path, tmp_path, 20.0, 99.0, 0.02, 40, 1)
    assert kills.kill(life, Plan(kind, 1.0, 1.0), tmp_path / "run", saved) is None
    assert life.process.returncode == 0


def test_the_command_line_refuses_what_it_cannot_do(tmp_path, capsys):
    (tmp_path / "file").touch()
    for words in (["--kills", "0"], ["--keep", str(tmp_path)], ["--seed", "-1"]):
        with pytest.raises(SystemExit):
            kill_train.main(words)
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("problems", [[], ["model.weight: 1 of 9 elements"]])
def test_the_summary_and_the_status_say_what_came_of_it(problems, tmp_path, capsys, monkeypatch):
    tensors = "tensors.safetensors"
    halves = [set(), {"state.json"}, {"state.json", tensors, ".tmp9"}, {"state.json", tensors}]
    hits = [Kill("in a save", (3, 1), frozenset(half)) for half in halves]
    tally = Tally([], 4, hits, problems, 1, 1)
    monkeypatch.setattr(kills, "kill_and_compare", lambda *_, **__: tally)
    assert kill_train.main(["--keep", str(tmp_path / "kept")]) == len(problems)
    printed = capsys.readouterr().out
    rows = [line.rsplit(maxsplit=1) for line in printed.splitlines()]
    for name, value in (
        ("kills that left half a checkpoint", "4"), ("  nothing yet", "1"),
        ("  up to state.json", "2"), ("  up to tensors.safetensors", "1"),
    ):  # fmt: skip
        assert [name, value] in rows
    assert ("all as if it had never been killed" in printed) is not problems
    assert all(problem in printed for problem in problems)


def test_kills_that_never_come_are_a_problem_and_no_endless_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "uninterrupted", lambda folder, *_: Reference(
        SUBJECT, folder, folder, 9.0, 9.0, 0.1, 9, 1))  # fmt: skip
    monkeypatch.setattr(kills, "_said", lambda _: set())
    monkeypatch.setattr(kills, "at_end", lambda *_: [])
    idle = replace(SUBJECT, command=lambda seed: ["true"])
    tally = kills.kill_and_compare(3, tmp_path, idle, seed=0, jobs=1)
    assert tally.problems == ["5 runs ended before a kill came: no kill hits"]
    assert (tally.kills, tally.runs) == ([], 5)


def test_saves_that_cannot_be_seen_are_a_problem(tmp_path):
    idle = replace(SUBJECT, command=lambda seed: ["true"])
    with pytest.raises(RuntimeError, match=r"no save of .*/run was seen"):
        kills.uninterrupted(tmp_path, idle, 0, 1)


def test_a_failure_of_the_command_is_a_problem_and_ends_it(tmp_path):
    words = [sys.executable, "-c", "raise SystemExit('descend: error: no')"]
    failing = replace(SUBJECT, command=lambda seed: words)
    tally = kills.kill_and_compare(3, tmp_path, failing, seed=0, jobs=1)
    (problem,) = tally.problems
    assert "the uninterrupted run failed: descend: error: no" in problem


def test_f2_killed_while_it_proves_that_its_folder_can_be_written_it_starts_again(tmp_path):
    (tmp_path / ".12345.tmp").touch()  # what is there between the probe and its removal
    prepare_folder(tmp_path)
