"""Searches in processes of their own: killed, and several on one search."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cli.commands import invoke

pytest.importorskip("optuna")
SPACE = ["--space", "lr=log(1e-3,1)", "warmup=float(0,0.2)"]
USUAL = ["tune", "small.py", *SPACE, "--steps", "18", "--confirm", "1"]


def started(*options):
    """A search in a process, and in a group that a kill of the process leaves alone."""
    return subprocess.Popen(
        [sys.executable, "-c", "from descend.cli import main; main()", *USUAL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def until(condition, process):
    """Wait for something to happen in a search that has not ended."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def results(folder):
    return Path(folder, "results.json").read_bytes()


def test_p70_a_search_that_is_killed_and_interrupted_goes_on_to_the_same_end(small):
    options = ["--trials", "6", "--jobs", "2", "--out", "out"]
    process = started(*options, "--jobs", "1")
    until(Path("out/trials/0001").exists, process)
    process.kill()
    process.communicate()
    process = started(*options)
    until(Path("out/trials/0005").exists, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "known so far: 4 of 6 trials\n  the best: trial " in said
    assert "next: trials 4, 5 go on; the same command goes on" in said
    assert said.endswith("descend: interrupted\n")
    assert invoke(*USUAL, *options, "--jobs", 1).exit_code == 0
    assert invoke(*USUAL, "--trials", 6, "--jobs", 1, "--out", "whole").exit_code == 0
    assert results("out") == results("whole")


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_p70_a_search_killed_at_20_instants_goes_on_to_the_same_end(small, jobs):
    options = ["--trials", "16", "--jobs", jobs]
    ended(started(*options, "--out", "whole"))
    pick, kills = random.Random(0), 0
    while kills < 20:
        process = started(*options, "--out", "killed")
        try:
            process.communicate(timeout=pick.uniform(1.5, 4))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    ended(started(*options, "--out", "killed"))
    assert results("killed") == results("whole")


@pytest.mark.slow
def test_h3_the_users_task_is_tuned_as_its_table_says(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).parents[1] / "users/tunable.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    space = ["--space", "lr=log(1e-4,1e-1)", "width=int(8,64)"]
    done = invoke("tune", "tunable.py", *space, "--trials", 12, "--out", "out")
    assert done.exit_code == 0, done.output
    found = json.loads(results("out"))
    assert len(found["trials"]) == 12
    assert found["best"]["value"] < 1.6  # with the defaults 2.06


def study(journal):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(journal))
    return optuna.load_study(study_name=None, storage=storage)


def check(trials):
    """All of them are there, each once, and each is over."""
    found = json.loads(results("out"))["trials"]
    assert [one["number"] for one in found] == [*range(trials)]
    assert {one["state"] for one in found} <= {"done", "paused", "diverged"}
    known = study("journal.log").trials
    times = Counter(one.user_attrs["trial"] for one in known if not one.user_attrs["begun"])
    assert times == Counter(range(trials))  # what went on after a pause is not another trial
    assert {one.state.name for one in known} <= {"COMPLETE", "PRUNED"}
    params = [tuple(one["params"].values()) for one in found]
    assert len({*params}) == trials


def test_p70_what_a_dead_process_leaves_goes_on_in_another(small):
    options = ["--trials", "10", "--out", "out", "--storage", "journal.log", "--jobs", "1"]
    one = started(*options)
    until(Path("out/trials/0000").exists, one)
    other = started(*options)
    until(Path("out/trials/0005").exists, other)
    one.kill()
    one.communicate()
    ended(other)
    check(10)


@pytest.mark.slow
def test_p70_four_processes_one_of_them_killed_do_60_trials(small):
    options = ["--trials", "60", "--out", "out", "--storage", "journal.log", "--jobs", "1"]
    processes = [started(*options) for _ in range(4)]
    until(Path("out/trials/0020").exists, processes[0])
    processes[1].kill()
    processes[1].communicate()
    for number in (0, 2, 3):
        ended(processes[number])
    check(60)
    owners = Counter(one.user_attrs["owner"] for one in study("journal.log").trials)
    assert len(owners) >= 3
