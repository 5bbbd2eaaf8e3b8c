"""`descend train` as a user meets it: its output, its folder, its errors."""
# ruff: noqa: E501  messages are compared whole

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from children import python
from cli import commands
from cli.tasks import TASK, interrupted
from descend.checkpoint import digest, load
from descend.cli import COMMANDS, main
from descend.optimizers import CATALOGUE
from terminal import in_terminal, screen
from training.idx_files import NAMES, idx_bytes, write_folder

invoke = partial(commands.invoke, "train")


def start(*args, cwd, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", "from descend.cli import main; main()", *map(str, args)],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | environment,
    )  # fmt: skip


def state(stdout):
    last = stdout.splitlines()[-1]
    assert re.fullmatch(r"state: [0-9a-f]{32}", last)
    return last


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The whole default training, once, as a process of its own."""
    folder = tmp_path_factory.mktemp("digits")
    process = start("train", "--out", "run", cwd=folder)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stderr == ""
    return folder / "run", stdout


def test_the_digits_are_learnt_to_98_percent(digits):
    _, stdout = digits
    (test,) = re.findall(r"^test accuracy: (\d+\.\d) %$", stdout, re.MULTILINE)
    assert float(test) >= 98.0
    epochs = re.findall(
        r"^epoch +\d+/20  train loss \d\.\d{4}  validation accuracy \d+\.\d\d %  lr 0\.001  "
        r"\d+\.\d\d s$",
        stdout,
        re.MULTILINE,
    )
    assert len(epochs) == 20
    state(stdout)


def test_the_run_folder_holds_everything(digits):
    folder, stdout = digits
    assert sorted(p.name for p in folder.iterdir()) == [
        ".lock", "checkpoints", "curves.png", "metrics.jsonl",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [*range(1, 21), 20]
    assert [line["step"] for line in lines] == [*range(21, 421, 21), 420]
    assert set(lines[0]) == {
        "step", "epoch", "train_loss", "validation_loss", "validation_accuracy", "lr", "seconds",
    }  # fmt: skip
    assert set(lines[-1]) == {"step", "epoch", "test_loss", "test_accuracy"}
    assert f"test accuracy: {100 * lines[-1]['test_accuracy']:.1f} %" in stdout
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    saved = load(folder)
    where = saved["run"]["loader"]
    assert (where["epoch"], where["position"], where["seed"]) == (20, 0, 0)
    printed = digest({"model": saved["model"], "optimizer": saved["optimizer"]})
    assert state(stdout) == f"state: {printed}"


def test_equal_seeds_end_equal_in_two_processes_whatever_the_threads(tmp_path):
    ends = []
    for threads in "12":
        words = ("train", "--epochs", 2, "--seed", 7, "--out", threads)
        process = start(*words, cwd=tmp_path, OMP_NUM_THREADS=threads)
        stdout, _ = process.communicate(timeout=100)
        ends.append(state(stdout))
    other = state(invoke("--epochs", 2, "--seed", 8).stdout)
    assert ends[0] == ends[1] != other


def test_the_users_task_is_trained_and_repeats(tmp_path):
    (tmp_path / "my_task.py").write_text(TASK)
    first, second, other = (
        invoke("my_task.py", "--epochs", 3, *options)
        for options in ([], ["--fresh"], ["--seed", 1])
    )
    assert first.exit_code == 0, first.stderr
    assert re.search(
        r"^epoch 3/3  train loss \S+  validation loss \S+  lr 0\.001", first.stdout, re.M
    )
    assert "test" not in first.stdout
    assert state(first.stdout) == state(second.stdout) != state(other.stdout)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"my_task", "my_task-seed1"}
    assert not (tmp_path / "__pycache__").exists()


# SparseAdam takes sparse gradients, which the task here has not.
@pytest.mark.parametrize("name", [*sorted({*CATALOGUE} - {"sparseadam"}), "AdamW"])
def test_every_optimizer_of_the_catalogue_trains(tmp_path, name):
    (tmp_path / "my_task.py").write_text(TASK)
    result = invoke("my_task.py", "--optimizer", name, "--lr", "0.03", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert f"{name.lower()}, lr 0.03," in result.stdout


RULE = """
from descend.engine.hyperparameters import LearningRate
from descend.engine.rule import Rule
from descend.optimizers import Optimizer


def update(param, grad, *, lr: float):
    return (param - lr * grad,)


class MyRule(Optimizer):
    rule = Rule(update, lambda options, step: {"lr": options["lr"]}, counts_steps=False)

    def __init__(self, params, lr: LearningRate = 0.5):
        super().__init__(params, {"lr": lr})
"""


def test_a_rule_of_the_users_own_trains_as_one_of_the_catalogue(tmp_path):
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "my_file.py").write_text(RULE)
    own, known = (
        invoke("my_task.py", "--optimizer", name, "--lr", "0.1", "--epochs", 3)
        for name in ("my_file.py:MyRule", "sgd")
    )
    assert own.exit_code == 0, own.stderr
    assert "my_file.py:MyRule, lr 0.1," in own.stdout
    losses = [re.findall(r"loss (\S+)", result.stdout) for result in (own, known)]
    assert losses[0] == losses[1] != []


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_folder_of_idx_files_is_trained(tmp_path, gzipped):
    write_folder(tmp_path / "data", gzipped=gzipped)
    result = invoke("--data", "data", "--epochs", 8, "--batch-size", 16)
    assert result.exit_code == 0, result.stderr
    (test,) = re.findall(r"^test accuracy: (\d+\.\d) %$", result.stdout, re.MULTILINE)
    assert float(test) > 90


def test_folders_whose_names_differ_after_a_dot_are_different_runs(tmp_path):
    for number in (0, 1):
        write_folder(tmp_path / f"digits-1.{number}", rows=8, columns=8, classes=4)
        result = invoke("--data", f"digits-1.{number}", "--epochs", 1)
        assert result.exit_code == 0, result.stderr
        assert f"\nrun folder: runs/digits_1.{number}\n" in result.stdout


@pytest.mark.slow
def test_g2_a_real_fashion_mnist_is_trained():
    folder = "/usr/share/datasets/fashion-mnist"
    if not os.path.isdir(folder):
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    result = invoke("--data", folder, "--epochs", 2)
    (test,) = re.findall(r"^test accuracy: (\d+\.\d) %$", result.stdout, re.MULTILINE)
    assert float(test) > 85


RAISES = TASK.replace("y = ", "1 / 0\ny = ")
IN_LOSS = TASK.replace("loss=torch.nn.functional.cross_entropy", "loss=lambda o, t: o.nothing")
IN_TORCH = TASK.replace("Linear(8, 2)", "Linear(9, 2)")
DIVERGES = TASK.replace("cross_entropy,", "cross_entropy, metrics={},").replace(
    "x[:30]", "x[:30] * 1e30"
)


def broken_data(name, content):
    def make(folder):
        write_folder(folder / "data")
        if content is None:
            (folder / "data" / name).unlink()
        else:
            (folder / "data" / name).write_bytes(content)

    return make


def task_file(text, name="t.py"):
    return lambda folder: (folder / name).write_text(text)


def full_folder(folder):
    (folder / "full").mkdir()
    (folder / "full" / "metrics.jsonl").touch()


IMAGES = np.zeros((200, 28, 28))
BAD = {
    "negative lr": (None, ["--lr", "-1"], "--lr -1: it must be a finite number above 0, such as --lr 0.001; see descend train --help"),
    "lr of zero": (None, ["--lr", "0"], "--lr 0: it must be a finite number above 0, such as --lr 0.001; see descend train --help"),
    "lr of nan": (None, ["--lr", "nan"], "--lr nan: it must be a finite number above 0, such as --lr 0.001; see descend train --help"),
    "lr of words": (None, ["--lr", "fast"], "--lr fast: it must be a finite number above 0, such as --lr 0.001; see descend train --help"),
    "no epochs": (None, ["--epochs", "0"], "--epochs 0: it must be a whole number of at least 1, such as --epochs 20; see descend train --help"),
    "half an epoch": (None, ["--epochs", "0.5"], "--epochs 0.5: it must be a whole number of at least 1, such as --epochs 20; see descend train --help"),
    "no batch": (None, ["--batch-size", "0"], "--batch-size 0: it must be a whole number of at least 1, such as --batch-size 64; see descend train --help"),
    "negative seed": (None, ["--seed", "-1"], "--seed -1: it must be a whole number from 0 to 4294967295, such as --seed 0; see descend train --help"),
    "seed too large": (None, ["--seed", "4294967296"], "--seed 4294967296: it must be a whole number from 0 to 4294967295, such as --seed 0; see descend train --help"),
    "unknown optimizer": (None, ["--optimizer", "adamm"], "--optimizer adamm: there is no such optimizer; did you mean adam? allowed: " + ", ".join(CATALOGUE) + ", or FILE.py:CLASS"),
    "missing rule": (None, ["--optimizer", "my_file.py:MyRule"], "my_file.py: there is no such file; give a Python file that defines a descend.Optimizer"),
    "rule without lr": (task_file(RULE.replace("lr: LearningRate = 0.5", "rate=1").replace('"lr": lr', '"rate": rate').replace('options["lr"]', 'options["rate"]')), ["--optimizer", "t.py:MyRule"], "--optimizer t.py:MyRule: its constructor takes no lr; descend train sets and shows it"),
    "unknown option": (None, ["--epoch", "3"], "No such option '--epoch'. (Did you mean one of: '--epochs', '--keep'?); see descend train --help"),
    "option without value": (None, ["--lr"], "Option '--lr' requires an argument; see descend --help"),
    "two task files": (None, ["a.py", "b.py"], "Got unexpected extra argument (b.py); see descend train --help"),
    "task and data": (None, ["a.py", "--data", "d"], "TASK.py (a.py) and --data (d) exclude each other: give one of the two; see descend train --help"),
    "missing folder": (None, ["--data", "d"], "--data d: the folder is missing; give the folder that holds train-images-idx3-ubyte(.gz) and the three files beside it"),
    "file for a folder": (lambda f: (f / "d").touch(), ["--data", "d"], "--data d: the folder is a file; give the folder that holds train-images-idx3-ubyte(.gz) and the three files beside it"),
    "folder that cannot be looked at": (None, ["--data", "d" * 300], f"--data {'d' * 300}: the folder cannot be read (File name too long); give the folder that holds train-images-idx3-ubyte(.gz) and the three files beside it"),
    "missing idx file": (broken_data(NAMES[3], None), ["--data", "data"], "--data data: t10k-labels-idx1-ubyte is missing, and so is t10k-labels-idx1-ubyte.gz; the folder must hold train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, gzipped or not"),
    "cut off": (broken_data(NAMES[0], idx_bytes(IMAGES)[:-1]), ["--data", "data"], "data/train-images-idx3-ubyte: the header promises 156800 bytes (200x28x28), and the file cannot hold more than 156799: it is cut off or damaged; get it again"),
    "too long": (broken_data(NAMES[0], idx_bytes(IMAGES) + b"x"), ["--data", "data"], "data/train-images-idx3-ubyte: the header promises 156800 bytes (200x28x28), and the file holds more: it is cut off or damaged; get it again"),
    "empty": (broken_data(NAMES[0], b""), ["--data", "data"], "data/train-images-idx3-ubyte: the file is cut off after 0 bytes, within its header of 16; get it again"),
    "no images": (broken_data(NAMES[0], idx_bytes(np.zeros((0, 28, 28)))), ["--data", "data"], "data/train-images-idx3-ubyte: the file is empty: its header says 0x28x28 images"),
    "labels for images": (broken_data(NAMES[0], idx_bytes([1, 2])), ["--data", "data"], "data/train-images-idx3-ubyte: the file starts with 0x00000801, and an IDX file of images starts with 0x00000803; give the images file in the format of MNIST"),
    "gzip cut off": (broken_data(NAMES[0], gzip.compress(idx_bytes(IMAGES))[:-9]), ["--data", "data"], "data/train-images-idx3-ubyte: the gzip file is cut off; get it again"),
    "counts differ": (broken_data(NAMES[1], idx_bytes(np.arange(199) % 10)), ["--data", "data"], "data/train-labels-idx1-ubyte: it holds 199 labels, and data/train-images-idx3-ubyte holds 200 images: each image needs one label; get both from one source"),
    "sizes differ": (broken_data(NAMES[2], idx_bytes(np.zeros((50, 9, 28)))), ["--data", "data"], "data/t10k-images-idx3-ubyte: its images are 9x28 pixels, and those of data/train-images-idx3-ubyte are 28x28: both must be of one size"),
    "a class only in the test": (broken_data(NAMES[3], idx_bytes(np.arange(50))), ["--data", "data"], "data/t10k-labels-idx1-ubyte: it holds the label 49, and data/train-labels-idx1-ubyte only 0 to 9: every class needs training images"),
    "tiny images": (lambda f: write_folder(f / "data", rows=3, columns=3, classes=3), ["--data", "data"], "data/train-images-idx3-ubyte: its images are 3x3 pixels, and the network needs at least 4x4"),
    "one image": (lambda f: write_folder(f / "data", classes=1, sizes=(1, 1)), ["--data", "data"], "data/train-labels-idx1-ubyte: no class has two images, so that none is left for validation; add images"),
    "missing task": (None, ["t.py"], "t.py: there is no such file; give a Python file that defines a descend.Task"),
    "task is no python": (task_file("", "t.txt"), ["t.txt"], "t.txt is not a Python file: its name must end in .py; it must define a descend.Task"),
    "task is a folder": (lambda f: (f / "t.py").mkdir(), ["t.py"], "t.py is a folder; give a Python file that defines a descend.Task"),
    "no task": (task_file("x = 1"), ["t.py"], "t.py defines no descend.Task: add one, such as task = descend.Task(model=..., train=..., validation=..., loss=...), or a function that returns one: def task(width: int = 64) -> descend.Task"),
    "two tasks": (task_file(TASK + "import dataclasses\nother = dataclasses.replace(task)\n"), ["t.py"], "t.py defines 2 tasks (task, other), and one is needed: keep one per file"),
    "task with a syntax error": (task_file("x = 1\ny = = 2\n"), ["t.py"], "t.py, line 2: SyntaxError: invalid syntax"),
    "task with a null byte": (task_file("x\0"), ["t.py"], None),
    "task raises": (task_file(RAISES), ["t.py"], "t.py, line 5: ZeroDivisionError: division by zero"),
    "task exits": (task_file("import sys\nsys.exit(0)"), ["t.py"], "t.py, line 2: the file ended the program (sys.exit)"),
    "task with a bad model": (task_file(TASK.replace("model=torch.nn.Sequential", "model=")), ["t.py"], None),
    "task of arrays": (task_file(TASK.replace("x[:30], y[:30]", "x[:30].numpy(), y[:30].numpy()")), ["t.py"], "t.py, line 6: Task: train must be a pair of tensors (inputs, targets), or a dataset with __len__ and __getitem__ that gives pairs (input, target), and holds NumPy arrays; torch.from_numpy(array) makes tensors of them"),
    "optimizer not for this model": (task_file(RULE.replace("super()", "params = list(params)\n        if len(params) > 1:\n            raise KeyError('one only')\n        super()")), ["--optimizer", "t.py:MyRule"], "t.py, line 17: KeyError: 'one only'"),
    "optimizer that fails in a step": (task_file(RULE + "\n    def step(self, closure=None):\n        if MyRule.__dict__.get('called') or setattr(MyRule, 'called', True):\n            raise KeyError('later')\n"), ["--optimizer", "t.py:MyRule"], "t.py, line 19: KeyError: 'later'"),
    "task raises in training": (task_file(IN_LOSS), ["t.py"], "t.py, line 10: the loss, given (30, 2), (30,), failed: AttributeError: 'Tensor' object has no attribute 'nothing'"),
    "task fails within torch": (task_file(IN_TORCH), ["t.py"], "t.py: the model, given (30, 4), failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied (30x8 and 9x2)"),
    "folder is not empty": (full_folder, ["--out", "full"], "--out full: the folder holds files already, and no run that could go on; give a new or an empty folder, or remove this one"),
    "folder is a file": (lambda f: (f / "o").touch(), ["--out", "o"], "--out o: the folder cannot be written: File exists; give another with --out"),
    "folder within a file": (lambda f: (f / "o").touch(), ["--out", "o/x"], "--out o/x: the folder cannot be written: Not a directory; give another with --out"),
    "folder that nobody can write": (None, ["--out", "/proc/descend"], "--out /proc/descend: the folder cannot be written: No such file or directory; give another with --out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_clear_line_and_status_2(tmp_path, name):
    prepare, args, message = BAD[name]
    if prepare is not None:
        prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("descend: error: ")
    assert result.stderr.count("\n") == 1
    if message is not None:
        assert result.stderr == f"descend: error: {message}\n"
    assert "epoch " not in result.stdout
    left = [path for path in sorted(tmp_path.rglob("*")) if path.name != "runs"]
    assert left == before


def test_a_task_whose_name_is_too_long_ends_with_one_clear_line():
    result = invoke("t" * 300 + ".py")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_an_error_leaves_no_traceback_in_a_process(tmp_path):
    process = start("train", "--data", "nowhere", cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith("descend: error: --data nowhere: the folder is missing;")


def test_divergence_is_reported_with_status_1(tmp_path):
    (tmp_path / "t.py").write_text(DIVERGES)
    result = invoke("t.py", "--optimizer", "sgd", "--lr", "1e30", "--batch-size", 10, "--out", "o")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"descend: error: the training loss became (nan|inf) in batch \d of 3 of epoch 1, with lr 1e\+30: training diverged; try a lower lr, .*\n",
        result.stderr,
    )
    assert "state:" not in result.stdout


def test_f2_ctrl_c_leaves_the_run_folder_whole(tmp_path):
    process = start("train", "--epochs", 1000, "--out", "run", cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert re.fullmatch(
        r"descend: interrupted after \d+ epochs? and \d+ batch(?:es)?; run holds all up to there, and "
        r"the same command goes on\n",
        stderr,
    )
    assert "state:" not in stdout
    epochs, batches = map(int, re.findall(r"\d+", stderr)[:2])
    saved = load(tmp_path / "run")
    where = saved["run"]["loader"]
    assert (where["epoch"], where["position"]) == (epochs, batches)
    step = next(iter(saved["optimizer"]["state"].values()))["step"]
    assert int(step) == epochs * 21 + batches  # 1293 samples in batches of 64
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, epochs + 1))
    assert (tmp_path / "run" / "curves.png").exists()
    assert not [p for p in (tmp_path / "run").rglob(".*") if p.name != ".lock"]


@pytest.mark.parametrize(
    ("times", "message", "epochs", "batches"),
    [
        (
            1,
            "interrupted after 1 epoch and 2 batches; o holds all up to there, and the same command goes on",
            1,
            2,
        ),
        (2, "interrupted", 1, 0),
    ],
)
def test_f2_ctrl_c_within_a_step_saves_no_half_step(tmp_path, times, message, epochs, batches):
    (tmp_path / "t.py").write_text(interrupted(TASK, times))
    handler = signal.getsignal(signal.SIGINT)
    result = invoke("t.py", "--batch-size", 10, "--out", "o")
    assert (result.exit_code, result.stderr) == (130, f"descend: {message}\n")
    saved = load(tmp_path / "o")
    where = saved["run"]["loader"]
    assert (where["epoch"], where["position"]) == (epochs, batches)
    step = next(iter(saved["optimizer"]["state"].values()))["step"]
    assert int(step) == 3 * epochs + batches
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_live_bar_on_a_terminal_and_the_state_still_last(tmp_path):
    pty = pytest.importorskip("pty")
    (tmp_path / "t.py").write_text(TASK)
    leader, follower = pty.openpty()
    code = "from descend.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", "t.py", "--epochs", "3"],
        cwd=tmp_path, stdout=follower, stderr=subprocess.PIPE, env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    text = shown.decode()
    assert "━" in text
    assert "epoch 3/3  train loss" in text
    state(text)


def test_no_command_is_a_question_for_help():
    assert CliRunner().invoke(main, []).stdout == CliRunner().invoke(main, ["--help"]).stdout


def test_help_does_not_wait_for_torch():
    code = "import sys; from descend.cli import main\n"
    code += "try: main(['train', '--help'])\nfinally: print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = python("-c", code)
    assert done.stdout.endswith("Show this message and exit.\n[]\n")


def test_the_example_in_the_help_works(tmp_path):
    text = CliRunner().invoke(main, ["train", "--help"]).stdout
    lines = text.split("descend.Task:\n")[1].split("\n\n")[0]
    (tmp_path / "my_task.py").write_text("\n".join(line.strip() for line in lines.splitlines()))
    assert invoke("my_task.py", "--epochs", 1).exit_code == 0


def test_a_misspelt_command_is_corrected():
    result = CliRunner().invoke(main, ["trian"])
    assert result.exit_code == 2
    assert result.stderr == (
        "descend: error: there is no command 'trian'; did you mean train? the commands: "
        f"{', '.join(COMMANDS)}; see descend --help\n"
    )


def test_the_command_line_module_imports_neither_torch_nor_the_commands():
    code = "import sys; sys.modules['descend'] = m = type(sys)('descend'); m.__path__, m.__version__ = [sys.argv[1]], '0'\n"
    code += "import descend.cli; print([m for m in ('torch', 'rich', 'descend.cli.train') if m in sys.modules])"
    import descend

    root = os.path.dirname(descend.__file__)
    done = python("-c", code, root)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "args",
    [
        ["train", "--help"],
        ["train", "t.py", "--data", "d"],
        ["train", "--epochs", "0"],
        ["train", "--seed", "-1"],
        ["train", "--schedule", "cosin(3)"],
        ["inspect", "--help"],
        ["diff", "--help"],
        ["verify", "--help"],
        ["verify-resume", "--help"],
        ["bench", "--help"],
        ["bench", "--rounds", "0"],
        ["plot", "--help"],
        ["convert", "--help"],
        ["convert", "old.pth", "none/c"],
    ],
    ids=" ".join,
)
def test_what_needs_no_torch_imports_none(args):
    code = "import sys; from descend.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules], file=sys.stderr)"
    done = python("-c", code, *args)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert invoke("--epochs", 1, "--out", "o").exit_code == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_on_a_terminal_the_bar_is_gone_in_the_end_and_no_line_is_in_it(tmp_path):
    status, text = in_terminal("-m", "descend", "train", "--epochs", 2, cwd=tmp_path)
    left, shown = screen(text)
    assert status == 0
    assert re.search(r"━ +\S+ epoch 1/2, batch \d+/21", shown)
    assert [line.split(" ")[0] for line in left if line] == [
        "the", "adamw,", "epoch", "epoch", "test", "run", "state:"
    ]  # fmt: skip
