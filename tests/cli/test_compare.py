"""`descend compare` as a user meets it: the answer, the command to go on with, its stops."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cli import commands
from search.small_tasks import RULES, SMALL, written

invoke, document = partial(commands.invoke, "compare"), partial(commands.document, "compare")
pytestmark = pytest.mark.usefixtures("own_folder")

CONTENDERS = ("small.py", "lion", "--budget", "700steps", "--out", "out")


@pytest.fixture(autouse=True)
def files(own_folder):
    written(own_folder, "small.py", SMALL)
    written(own_folder, "rules.py", RULES)


def test_h3_the_answer_and_a_command_that_trains_it_again_to_the_bit():
    result = invoke(*CONTENDERS, "--jobs", 1)
    assert result.exit_code == 0
    found = json.loads(Path("out/results.json").read_text())
    assert " ".join(found["sentence"].split()) in " ".join(result.stdout.split())
    assert found["command"] in result.stdout
    assert "page      out/report.html" in result.stdout
    assert document(*CONTENDERS, "--jobs", 1) == found  # it is over: nothing is trained
    assert Path("out/comparison.png").read_bytes().startswith(b"\x89PNG")
    (best,) = (one for one in found["contenders"] if one["name"] == found["recommended"])
    for command in (found["command"], "descend train --from out/BEST --threads 1"):
        _, _, *words = shlex.split(command)
        trained = commands.document("train", *words, "--out", f"run{len(words)}")
        assert trained["last"]["validation_loss"] == best["values"][0]


def test_it_is_told_which_tasks_the_suite_has():
    result = invoke("small.py", "--suite", "small")
    assert result.exit_code == 2
    assert "--suite small has tasks of its own: leave small.py out" in result.stderr


def started():
    return subprocess.Popen(
        [sys.executable, "-m", "descend", "compare", *CONTENDERS, "--jobs", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_trials(process, count):
    """Until so many trials are measured."""
    until = time.monotonic() + 120
    while len([*Path("out/trials").glob("*/record.json")]) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def children_of(process):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return [int(one) for one in found.stdout.split()]


def is_alive(process):
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_p70_stopped_or_killed_the_same_command_goes_on_to_the_same_results():
    process = started()
    wait_for_trials(process, 3)
    process.send_signal(signal.SIGINT)  # to the one above alone, as a supervisor sends it
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "known so far:" in told
    assert "next: search 1/2; the same command goes on" in told
    assert told.endswith("descend: interrupted\n")
    process = started()
    wait_for_trials(process, 12)
    workers = children_of(process)
    process.kill()
    process.communicate()
    until = time.monotonic() + 30
    while any(map(is_alive, workers)):  # none of them trains on
        assert time.monotonic() < until
        time.sleep(0.05)
    process = started()
    wait_for_trials(process, 20)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = started()
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    results = Path("out/results.json").read_bytes()
    assert invoke(*CONTENDERS, "--jobs", 1, "--out", "whole").exit_code == 0
    assert Path("whole/results.json").read_bytes() == results


@pytest.mark.slow
def test_h3_of_a_users_task_the_lr_that_leaves_its_long_plateau_is_found(own_folder):
    # Longer than a third of the length: short trainings alone would choose a small lr
    shutil.copy(Path(__file__).parents[1] / "users/tunable.py", own_folder)
    result = invoke("tunable.py", "adamw", "sgd", "lion", "--budget", "40s", "--out", "out")
    assert result.exit_code == 0
    found = json.loads(Path("out/results.json").read_text())
    assert "tells too little of the end" in result.stderr
    (own,) = (one for one in found["contenders"] if one["name"] == "adamw")
    assert own["mean"] < 0.9 * found["target"]["value"]
    assert own["lr"] > 5e-3
