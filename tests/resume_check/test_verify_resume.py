"""`descend verify-resume`: whether a script resumes bit for bit, shown by killing it.

A script takes two seconds to start, so each test of a whole check has as few starts as it can.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cli import commands
from descend.checkpoint import save
from descend.checkpoint.folder import remove
from descend.checkpoint.state_diff import Difference
from descend.cli import main
from descend.errors import OutputError
from descend.resume_check import check, kill_instants, run_comparison, run_watch, script_process
from descend.resume_check.check import Kill, ResumeCheck, check_resume
from descend.resume_check.run_comparison import Comparison, LogDifference
from descend.resume_check.script_process import Script, ScriptError
from descend.run.stop_signals import exit_on

SCRIPT = """
import argparse, time
import torch
import descend

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--json", action="store_true")
arguments = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(0)  # the seed
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
optimizer = descend.SGD(model.parameters(), lr=0.05, momentum=0.9)
schedule = descend.lr_scheduler.ExponentialLR(optimizer, 0.9)
x = torch.randn(20, 3)


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return len(x)

    def __getitem__(self, index):
        return x[index] + 0.1 * torch.randn(3), x[index].sum(0, keepdim=True)


loader = torch.utils.data.DataLoader(
    Noisy(), batch_size=4, shuffle=True, num_workers=arguments.workers
)
# the objects
run = descend.Run(
    "runs/mine", loader=loader, epochs=arguments.epochs, seed=1,
    model=model, optimizer=optimizer, schedule=schedule,
)
# before the loop
for inputs, targets in run:
    loss = (model(inputs) - targets).square().mean()
    # the loss
    loss.backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    run.log(loss=loss, lr=schedule.get_last_lr()[0])
    time.sleep(0.04)
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(check.tempfile, "tempdir", str(scratch))
    yield
    assert not list(scratch.iterdir()), "something was left in the folder for temporary files"


def script(*changes, text=SCRIPT):
    """The script above, changed at some of its lines."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path("my_script.py").write_text(text)
    return "my_script.py"


invoke = partial(commands.invoke, "verify-resume")


def alive(marker):
    """The processes with something in their command line or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(marker).encode() in text and state != "Z" and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def test_p44_a_right_script_is_found_bit_exact_and_gets_its_arguments():
    timed = script(("run.log(loss=loss,", "run.log(seconds=time.perf_counter(), loss=loss,"))
    got = invoke("--kills", 2, "--json", timed, "--epochs", 2, "--json")
    assert got.exit_code == 0, got.output
    document = json.loads(got.stdout)
    assert document["verdict"] == "bit-exact"
    assert document["equal"] is True
    assert document["arguments"] == ["--epochs", "2", "--json"]
    assert document["steps"] == 10  # of two epochs, not of three
    assert document["every_steps"] == 2
    assert document["left_out"] == ["seconds"]
    assert document["differences"] == []
    assert document["log_difference"] is None
    compared = document["compared"]
    assert sorted(compared["objects"]) == ["model", "optimizer", "run", "schedule"]
    assert compared["lines"] == 10
    assert compared["keys"] == ["step", "epoch", "loss", "lr"]
    assert compared["tensors"] >= 8
    assert len(document["kills"]) >= 2
    assert all(kill["moment"] in ("save", "removal", "training") for kill in document["kills"])
    resumes = [kill["resumes_from"] or "step-0" for kill in document["kills"]]
    assert any(0 < int(name.removeprefix("step-")) < 10 for name in resumes)
    assert not Path("runs").exists()  # the script's own folder is not touched


def test_p44_state_that_is_not_given_to_run_is_found_and_said_where():
    forgetful = script(
        ("# before the loop", "scale = 1.0"),
        ("# the loss", "scale *= 0.9\n    loss = scale * loss"),
    )
    got = invoke("--kills", 1, "--every-steps", 1, forgetful)
    assert got.exit_code == 1, got.output
    assert "my_script.py does NOT resume bit for bit." in got.output
    assert "a second one was equal" in got.output
    step = int(got.output.partition("the first line that differs is line ")[2].split(",")[0])
    assert f"line {step}, step {step}\n" in got.output
    assert "loss: " in got.output
    assert "it had resumed from step-" in got.output
    assert "model.0.weight: " in got.output
    assert "Likely causes" in got.output


def test_a_script_that_is_not_seeded_is_called_not_repeatable():
    # It saves after each step itself, so that there is no need to ask whether saving changes it
    got = invoke(
        "--kills", 1, script(("torch.manual_seed(0)", ""), ("seed=1", "seed=1, every_steps=1"))
    )
    assert got.exit_code == 1, got.output
    assert "my_script.py is not repeatable: two runs of it differ without any kill." in got.output
    assert "the first line that differs is line 1, step 1" in got.output
    assert "model.0.weight: 12 of 12 elements" in got.output
    assert "torch.manual_seed" in got.output
    assert "kill 1" not in got.output


def test_a_script_without_a_run_is_refused():
    got = invoke(script(text="print('trained')"))
    assert got.exit_code == 2
    assert "| trained" in got.stderr
    assert "my_script.py makes no descend.Run and fits no descend.Trainer" in got.stderr
    assert "for batch in run" in got.stderr


def test_a_run_that_nothing_iterates_over_is_refused(tmp_path):
    unused = script(
        text="import os, pathlib; pathlib.Path(os.environ['DESCEND_RUN_FOLDER']).mkdir()"
    )
    with pytest.raises(ScriptError, match=r"makes a descend\.Run, but iterates over none"):
        check_resume(Script(Path(unused)))


def test_a_script_that_fails_by_itself_is_refused_with_the_end_of_its_output():
    text = "import sys\nprint('reading')\nfor i in range(40): print(i)\nsys.exit('no data')"
    got = invoke("--json", script(text=text))
    assert got.exit_code == 2
    assert got.stdout == ""
    assert "| 39\n| no data\n" in got.stderr
    assert "| reading" not in got.stderr  # only the end
    assert "my_script.py fails by itself, without any kill (exit status 1): no data" in got.stderr


def test_an_option_behind_the_script_is_explained():
    text = "import sys; sys.exit(f'what is {sys.argv[1]}?')"
    got = invoke(script(text=text), "--kills", "3")
    assert got.exit_code == 2
    assert "what is --kills?; --kills went to the script" in got.stderr
    assert "options of this command come before it" in got.stderr


def test_an_option_of_this_command_with_a_value_is_explained_too_but_none_that_is_the_scripts():
    text = "import sys; sys.exit(f'unrecognized: {sys.argv[1]}')"
    got = invoke(script(text=text), "--kills=3", "--seed", "1")
    assert got.exit_code == 2
    assert "unrecognized: --kills=3; --kills went to the script: options" in got.stderr


def test_a_script_that_dies_by_a_signal_says_which():
    with pytest.raises(ScriptError, match=r"killed by signal 11\): it wrote nothing"):
        check_resume(Script(Path(script(text="import os; os.kill(os.getpid(), 11)"))))


def test_several_runs_in_one_folder_are_explained_where_they_collide():
    message = "descend.errors.RunError: f holds a run of a, and this one is of b; give ..."
    with pytest.raises(ScriptError, match="several runs cannot share"):
        check_resume(Script(Path(script(text=f"import sys; sys.exit({message!r})"))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "missing.py does not exist"),
        (["."], "is a folder; give a Python file"),
        (["--kills", 0, "my_script.py"], "--kills"),
        (["--every-steps", 0, "my_script.py"], "--every-steps"),
        ([], "SCRIPT"),
        (["--out", "taken", "my_script.py"], "the folder taken is not empty"),
        (["--out", "my_script.py", "my_script.py"], "the folder my_script.py cannot be made"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_status_2(arguments, message):
    script(text="")
    Path("taken").mkdir()
    Path("taken/mine.txt").write_text("dear")
    got = invoke(*arguments)
    assert got.exit_code == 2
    assert message in got.stderr
    assert got.stderr.startswith("descend: error: ")
    assert got.stderr.count("\n") == 1
    assert Path("taken/mine.txt").read_text() == "dear"


def test_a_folder_to_keep_that_cannot_be_made_is_an_output_error():
    with pytest.raises(OutputError, match="is not empty"):
        check_resume(Script(Path(script(text=""))), keep=Path())


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(("kind", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_check_leaves_no_process_and_no_folder(tmp_path, kind, status):
    text = """
        import os, pathlib, subprocess, sys, time
        child = [sys.executable, "-c", "import time; time.sleep(60)", "child-of-my-script"]
        subprocess.Popen(child)
        pathlib.Path("started").touch()
        time.sleep(60)
    """
    path = script(text="\n".join(line.strip() for line in text.splitlines()))
    scratch = tmp_path / "scratch"
    process = subprocess.Popen(
        [sys.executable, "-c", "from descend.cli import main; main()", "verify-resume", path],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not Path("started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(alive(scratch)) >= 3
    process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert alive(scratch) == []
    assert not list(scratch.iterdir())


# What needs no script, or one that only pretends


def course(steps, batches=4):
    times = [2 + step / 10 for step in steps]
    return run_watch.Course(3 + times[-1], [(step, 1) for step in steps], times, 0.01, batches)


@pytest.mark.parametrize(
    ("steps", "kills", "expected"),
    [
        ([0, 40, 80], 5, 7),  # 80 steps: a save for each of twice as many kills
        ([0, 4, 8, 12, 16, 20, 24], 2, 3),  # between epochs alone will not do
        ([0, 4, 24], 2, 3),  # nor every fourth step, which is the same
        (range(25), 5, None),  # its own saves are enough
        ([0, 1], 5, 1),
    ],
)
def test_runs_with_kills_save_often_enough_and_within_epochs(steps, kills, expected):
    assert kill_instants.often_enough(course(list(steps)), kills) == expected


def test_instants_are_spread_over_the_run_half_of_them_in_saves():
    run = course(list(range(0, 44, 4)))
    for seed in range(50):
        targets = kill_instants.kill_targets(random.Random(seed), run, 8)
        assert sum(target.in_save for target in targets) == 4
        steps = [-1 if target.after is None else target.after[0] for target in targets]
        assert steps == sorted(steps)
        assert max(steps) >= 28
        assert all(0 <= target.delay <= 0.41 for target in targets)
    (single,) = kill_instants.kill_targets(random.Random(0), run, 1)
    assert not single.in_save
    again = [kill_instants.kill_targets(random.Random(7), run, 5) for _ in range(2)]
    assert again[0] == again[1]


def test_what_a_kill_interrupted_is_told_from_what_it_left(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    assert run_watch.look(tmp_path) == (None, frozenset(), frozenset(), (0, 0))
    checkpoints.mkdir()
    start = run_watch.look(tmp_path)
    (checkpoints / ".step-00000000.0123abcd.tmp").mkdir()
    kill = check._kill_record(1, tmp_path, start)
    assert (kill.step, kill.moment, kill.resumes_from) == (0, "save", None)

    (checkpoints / "step-00000004").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 6}\n{"st')
    start = run_watch.look(tmp_path)
    assert start.saves == frozenset()  # what is left of the first
    assert check._kill_record(1, tmp_path, start).moment == "training"
    (checkpoints / ".step-00000003.1123abcd.tmp").mkdir()
    kill = check._kill_record(1, tmp_path, start)
    assert (kill.step, kill.moment, kill.resumes_from) == (6, "removal", "step-00000004")
    (checkpoints / ".step-00000004-2.2123abcd.tmp").mkdir()
    assert check._kill_record(1, tmp_path, start).moment == "save"


def test_real_saves_and_removals_are_seen_as_such(tmp_path, monkeypatch):
    checkpoints, seen = tmp_path / "checkpoints", []
    checkpoints.mkdir()
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(run_watch.look(tmp_path)))
    for step in (4, 8):
        save(checkpoints / f"step-{step:08d}", {"w": torch.ones(2)})
    assert seen[0].newest is None
    assert len(seen[0].saves) == 1
    assert seen[-2].newest == (4, 1)
    assert len(seen[-2].saves) == 1
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: seen.append(run_watch.look(tmp_path)))
        remove(checkpoints / "step-00000004")
    assert seen[0].newest == (8, 1)
    assert (len(seen[0].saves), len(seen[0].removals)) == (0, 1)


PRETENDING = """
import os, pathlib, shutil, sys, time
folder = pathlib.Path(os.environ["DESCEND_RUN_FOLDER"])
checkpoints = folder / "checkpoints"
first = not checkpoints.exists()
checkpoints.mkdir(parents=True, exist_ok=True)
def put(step):
    (folder / "metrics.jsonl").write_text('{"step": 1}\\n')
    if (checkpoints / f"step-{step:08d}").exists():
        return
    shutil.copytree("saved", checkpoints / f".step-{step:08d}.{os.getpid()}-0.tmp")
    (checkpoints / f".step-{step:08d}.{os.getpid()}-0.tmp").rename(checkpoints / f"step-{step:08d}")
whole = "whole" in folder.name
"""


def pretending(text):
    """A script that leaves what a run does, and takes no time to start."""
    save("saved", {"model": {"w": torch.ones(2)}, "run": {"step": 2}}, about={"step": 1})
    return Script(Path(script(text=PRETENDING + text)))


def test_a_script_that_starts_over_is_not_taken_for_one_that_resumes():
    result = check_resume(
        pretending(
            "shutil.rmtree(checkpoints); checkpoints.mkdir()\n"
            "for step in range(10):\n    put(step)\n    time.sleep(0.02)\n"
        ),
        kills=2,
    )
    assert result.verdict == "starts over"
    assert len(result.kills) == 1


def test_a_script_that_fails_when_it_is_started_again_is_reported():
    result = check_resume(
        pretending(
            "if not first: print('CheckpointWarning: so it is'); sys.exit(3)\n"
            "for step in range(10):\n    put(step)\n    time.sleep(0.02)\n"
        ),
        kills=1,
    )
    assert (result.verdict, result.status) == ("fails", 3)
    assert result.output.endswith("CheckpointWarning: so it is")
    assert result.warnings == ("CheckpointWarning: so it is",)
    assert len(result.kills) == 1


def test_a_script_that_fails_the_second_time_is_reported():
    result = check_resume(pretending("pathlib.Path('once').mkdir(); put(0); put(1)"))
    assert (result.verdict, result.status) == ("fails", 1)
    assert "FileExistsError" in result.output
    assert result.kills == ()


def test_a_script_that_trains_no_more_when_it_is_started_again_is_reported():
    once = "if pathlib.Path('once').exists(): sys.exit()\npathlib.Path('once').touch()\n"
    got = invoke(pretending(f"{once}put(0); put(1)").path)
    assert got.exit_code == 1
    assert "my_script.py leaves no checkpoint when it is started again." in got.output
    assert "files\nand folders that exist already" in got.output
    result = check_resume(pretending("if not whole: sys.exit()\nput(0); put(1)"), kills=1)
    assert (result.verdict, result.status) == ("fails", 0)


def test_a_script_that_never_ends_when_started_again_is_given_up(monkeypatch):
    monkeypatch.setattr(check, "GRACE", 0.5)
    monkeypatch.setattr(check, "SLOWER", 1)
    result = check_resume(
        pretending(
            "for step in range(10):\n"
            "    if first: put(step)\n"
            "    time.sleep(0.02 if first else 60)\n"
        ),
        kills=1,
    )
    assert result.verdict == "never ends"


def test_saves_too_short_to_be_seen_do_not_stop_the_kills():
    unseen = PRETENDING.replace(
        'f".step-{step:08d}.{os.getpid()}-0.tmp"', 'f".unseen-{os.getpid()}"'
    )
    save("saved", {"model": {"w": torch.ones(2)}, "run": {"step": 2}}, about={"step": 1})
    text = f"{unseen}\nfor step in range(12):\n    put(step)\n    time.sleep(0.05)\n"
    result = check_resume(Script(Path(script(text=text))), kills=4)
    assert result.verdict == "bit-exact"
    assert len(result.kills) >= 4
    assert {kill.moment for kill in result.kills} == {"training"}


def test_a_run_that_is_over_too_soon_is_followed_by_another(monkeypatch):
    wait, hits = check._await, []

    def one_hit_in_each_run(process, folder, *arguments):
        if folder in hits:
            return wait(process, folder, None, *arguments[1:])
        ended = wait(process, folder, *arguments)
        hits.extend([folder] * (ended == "at the instant"))
        return ended

    monkeypatch.setattr(check, "_await", one_hit_in_each_run)
    running = "for step in range(5):\n    put(step)\n    time.sleep(0.05)\n"
    told = []
    result = check_resume(pretending(running), kills=2, tell=told.append)
    assert result.verdict == "bit-exact"
    assert result.runs == 2
    assert [kill.run for kill in result.kills] == [1, 2]
    assert [line.partition(":")[0] for line in told[-2:]] == ["kill 1 of 2", "kill 2 of 2"]


def test_kills_that_show_nothing_are_not_taken_for_a_proof(monkeypatch):
    told = []
    start, end = "put(0); time.sleep(0.1)", "put(9); time.sleep(0.1)"
    with pytest.raises(ScriptError, match="never from between its first checkpoint and its last"):
        check_resume(pretending(f"{start}\n{end}\n"), kills=1, tell=told.append)
    assert any(line.startswith("kill 1 of 1") for line in told)
    monkeypatch.setattr(check, "_await", lambda process, *_: process.wait() or "by itself")
    with pytest.raises(ScriptError, match="went on 0 times after a kill"):
        check_resume(pretending("put(1)"), kills=1)


def test_of_what_saving_changes_it_says_where_and_leaves_times_out():
    def run(loss, seconds):
        lines = [{"step": 1, "loss": loss, "seconds": seconds}]
        return run_comparison.Outcome({"model": {"w": torch.tensor(loss)}}, lines)

    found = ResumeCheck("bit-exact", 1, 1.0, 1, 1)
    whole, again, alike = run(0.5, 1), run(0.25, 2), run(0.5, 3)
    saving = check._unequal(found, whole, again, alike, ())
    assert (saving.verdict, saving.left_out) == ("changed by saving", ("seconds",))
    assert saving.comparison.log.keys == ("loss",)
    assert [one.name for one in saving.comparison.state] == ["model.w"]
    for third in (None, again):
        other = check._unequal(found, whole, again, third, ())
        assert (other.verdict, other.left_out) == ("not repeatable", ())
        assert other.comparison.log.keys == ("loss", "seconds")


def test_the_end_of_a_long_output_is_shown_as_a_terminal_would(tmp_path):
    bars = "".join(f"\r{n}%" for n in range(101))
    lines = [*("x" * 4000 for _ in range(200)), "tail: CheckpointWarning: so\r", bars, "é" * 600]
    (tmp_path / "run.txt").write_text("ResumeWarning: it is\n" + "\n".join(lines) + "\r\n\n")
    shown = script_process.tail(tmp_path / "run").split("\n")
    assert len(shown) <= script_process.TAIL
    assert shown[-3:] == ["tail: CheckpointWarning: so", "100%", "é" * 500 + "..."]
    found = script_process.warnings_in(tmp_path / "run")
    assert found == ["ResumeWarning: it is", "CheckpointWarning: so"]
    (tmp_path / "run.txt").write_text("")
    assert script_process.tail(tmp_path / "run") == ""


def test_a_check_under_nohup_outlives_the_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_on(signal.SIGTERM, signal.SIGHUP):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_differences_are_told_in_full_and_json_has_no_nan():
    from descend.cli.verify_resume import _document, _report

    found = tuple(Difference(f"w{n}", "2 of 2 elements", 2, 2, float("nan"), 1.0) for n in range(9))
    line = {"step": 12, "loss": 0.5, "lr": None}
    result = ResumeCheck(
        "not bit-exact", 20, 1.5, 2, 3,
        kills=(
            Kill(1, 4, "save", None),
            Kill(1, 9, "training", "step-00000008"),
            Kill(1, 15, "removal", "step-00000014"),
        ),
        runs=1,
        left_out=("seconds",),
        comparison=Comparison(
            ("model", "run"), 12, 3, 20, ("step", "loss", "lr"),
            (*found, Difference("run.n", "1 and 2")),
            LogDifference(12, 12, ("loss", "lr"), line, {"step": 12, "loss": 0.25}),
        ),
        warnings=("ResumeWarning: threads 1 there, 2 here",),
    )  # fmt: skip
    text = "\n".join(_report(Path("a.py"), result))
    for piece in (
        "a.py does NOT resume bit for bit.",
        "3 in 1 run, saving every 2 steps",
        "at steps 4, 9, 15",
        "1 in the middle of a save",
        "the start, step-00000008, step-00000014",
        "the first line that differs is line 12, step 12",
        "loss: 0.5 in the whole run, 0.25 in the killed run",
        "lr: null in the whole run, nothing in the killed run",
        "it had resumed from step-00000008 before",
        "9 of 12 differ at the end",
        "w7: 2 of 2 elements",
        "and 1 more",
        "run.n: 1 and 2",
        "seconds: ",
        "threads 1 there, 2 here",
    ):
        assert piece in text, piece
    assert "w8" not in text
    document = json.loads(_document(Path("a.py"), (), result))
    assert len(document["differences"]) == 10
    assert document["differences"][0]["largest"] is None
    assert document["log_difference"]["keys"] == ["loss", "lr"]


# Whole checks that take longer


@pytest.mark.slow
def test_p44_a_right_script_with_two_workers_is_bit_exact_after_many_kills():
    got = invoke(
        "--kills", 12, "--out", "kept", "--seed", 3, script(), "--epochs", 6, "--workers", 2
    )
    assert got.exit_code == 0, got.output
    assert "my_script.py resumes bit for bit." in got.output
    assert "kills         12 in " in got.output
    assert "0 in the middle of a save" not in got.output
    assert {"whole-1", "whole-2", "killed-1"} <= {path.name for path in Path("kept").iterdir()}
    again = CliRunner().invoke(main, ["diff", "kept/whole-1", "kept/killed-1"])
    assert again.exit_code == 0, again.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        # an average that is evaluated, and that each process begins anew
        [
            ("# before the loop", "average = [p.detach().clone() for p in model.parameters()]"),
            (
                "run.log(",
                "for a, p in zip(average, model.parameters()): a.lerp_(p.detach(), 0.1)\n"
                "    run.log(average=average[0].sum(), ",
            ),
        ],
        # a generator of the script's own
        [
            ("# before the loop", "generator = torch.Generator().manual_seed(5)"),
            ("# the loss", "loss = loss * torch.rand((), generator=generator)"),
        ],
        # a schedule that nobody saves
        [(", schedule=schedule", "")],
    ],
    ids=["average", "generator", "schedule"],
)
def test_p44_every_kind_of_forgotten_state_is_found(changes):
    result = check_resume(Script(Path(script(*changes))), kills=3, every_steps=1)
    assert result.verdict == "not bit-exact"
    assert result.comparison.log is not None
    assert result.comparison.log.step > 0


@pytest.mark.slow
def test_an_average_that_is_given_to_run_is_bit_exact():
    right = script(
        ("# the objects", "average = torch.optim.swa_utils.AveragedModel(model)"),
        ("model=model,", "model=model, average=average,"),
        ("run.log(", "average.update_parameters(model)\n    run.log("),
    )
    result = check_resume(Script(Path(right)), kills=3)
    assert result.verdict == "bit-exact"
    assert "average" in result.comparison.objects


@pytest.mark.slow
def test_a_state_dict_that_draws_random_numbers_is_found_to_be_changed_by_saving():
    noisy = script(
        (
            "# the objects",
            "class Drawing:\n"
            "    def state_dict(self):\n        torch.rand(1)\n        return {}\n"
            "    def load_state_dict(self, state):\n        pass\n",
        ),
        ("model=model,", "model=model, drawing=Drawing(),"),
    )
    got = invoke("--kills", 1, noisy)
    assert got.exit_code == 1
    assert "my_script.py is changed by saving" in got.output


@pytest.mark.slow
def test_p44_a_script_that_asks_for_fresh_is_not_called_bit_exact():
    got = invoke("--kills", 2, script(("seed=1", "seed=1, fresh=True")))
    assert got.exit_code == 1, got.output
    assert "it starts over each time it is started" in got.output


@pytest.mark.slow
def test_p44_a_script_whose_folder_has_another_name_each_time_is_not_called_bit_exact():
    result = check_resume(
        Script(Path(script(('"runs/mine"', 'f"runs/{time.time()}"')))), kills=1, every_steps=1
    )
    assert result.verdict == "fails"
    assert "runs/1" in result.output


@pytest.mark.slow
def test_a_script_with_two_runs_is_refused():
    second = SCRIPT[SCRIPT.index("run = descend.Run") :].replace("runs/mine", "runs/other")
    with pytest.raises(ScriptError, match="several runs cannot share"):
        check_resume(Script(Path(script(text=SCRIPT + second))), kills=1)
