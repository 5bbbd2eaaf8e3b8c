"""The options of `descend train` beside the usual ones."""

import inspect
import os
import re

import pytest
import torch
from click.testing import CliRunner

import descend
from cli.test_train import RULE, TASK, invoke, state
from descend.checkpoint import load
from descend.cli import main
from descend.optimizers import CATALOGUE
from descend.training.epoch_records import FAR_ABOVE, Epoch, EpochRecords
from descend.training.task_module import TaskModule


@pytest.fixture(autouse=True)
def task_file(own_folder):
    (own_folder / "t.py").write_text(TASK)


def trained(*options):
    result = invoke("t.py", "--epochs", 2, "--batch-size", 8, "--out", "run", *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def groups():
    return load("run", parts=["optimizer"])["optimizer"]["param_groups"]


def refused(*options):
    result = invoke("t.py", *options)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line.removeprefix("descend: error: ")


# --set


def test_hyperparameters_of_every_kind_are_set():
    told = trained(
        *("--optimizer", "adamw", "--set", "betas=0.8, 0.95", "--set", "amsgrad = true"),
        *("--set", "weight_decay=1e-3", "--set", "clip_norm=None"),
    )
    assert "adamw, lr 0.001, betas 0.8 0.95, amsgrad true, weight_decay 0.001, clip_norm" in told
    (group,) = groups()
    assert group["betas"] == (0.8, 0.95)
    assert (group["amsgrad"], group["weight_decay"]) == (True, 1e-3)


def test_a_choice_is_set_by_its_word():
    trained("--optimizer", "muon", "--set", "adjust_lr_fn=match_rms_adamw")
    assert groups()[0]["adjust_lr_fn"] == "match_rms_adamw"


def test_what_is_set_changes_the_training_and_the_name_of_its_folder():
    ends = []
    for options in ([], ["--set", "momentum=0.9"], ["--set", "momentum=0.5"]):
        result = invoke("t.py", "--epochs", 1, "--optimizer", "sgd", *options)
        ends.append((state(result.stdout), re.search(r"run folder: (.*)", result.stdout)[1]))
    assert len({end for end, _ in ends}) == len({folder for _, folder in ends}) == 3
    assert ends[1][1] == "runs/t-sgd-momentum_0.9"


def test_a_run_with_other_hyperparameters_does_not_go_on():
    trained("--set", "eps=1e-6", "--set", "betas=0.5,0.5")
    trained("--set", "betas=(0.5, 0.5)", "--set", "eps=0.000001")  # the same
    other = invoke("t.py", "--out", "run", "--batch-size", 8, "--set", "eps=1e-5")
    assert other.exit_code == 2
    assert "--set was betas=(0.5, 0.5) eps=1e-06 and is eps=1e-05; give" in other.stderr


@pytest.mark.parametrize("name", CATALOGUE)
def test_help_lists_what_each_optimizer_takes(name):
    lines = invoke("--optimizer", name, "--set", "help").stdout.splitlines()
    assert lines[0].startswith(f"--set, with {name}")
    takes = [*inspect.signature(CATALOGUE[name]).parameters]
    known = [key for key in takes if key in CATALOGUE[name].hyperparameters and key != "lr"]
    assert [line.split()[0] for line in lines[1:]] == known
    for line, key in zip(lines[1:], known, strict=True):
        assert CATALOGUE[name].hyperparameters[key].meaning in line


def test_a_rule_of_the_users_own_takes_what_its_constructor_takes(tmp_path):
    rule = RULE.replace("lr: LearningRate = 0.5", "lr: LearningRate = 0.5, scale=1.0")
    (tmp_path / "mine.py").write_text(rule.replace('{"lr": lr}', '{"lr": lr, "scale": scale}'))
    trained("--optimizer", "mine.py:MyRule", "--set", "scale=2")
    assert groups()[0]["scale"] == 2
    told = refused("--optimizer", "mine.py:MyRule", "--set", "scales=2")
    assert told == (
        "--set scales: mine.py:MyRule has no such hyperparameter; did you mean scale? "
        "allowed: scale"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("momentum", "--set momentum: it must be NAME=VALUE, such as --set weight_decay=0.1; "
         "--set help tells which there are"),
        ("=3", "--set =3: it must be NAME=VALUE, such as"),
        ("momentum=", "--set momentum=: it must be NAME=VALUE, such as"),
        ("momentum=-1", "--set momentum=-1: it must be a finite number of at least 0"),
        ("momentum=much", "--set momentum=much: it must be a finite number of at least 0"),
        ("momentum=nan", "--set momentum=nan: it must be a finite number of at least 0"),
        ("nesterov=1", "--set nesterov=1: it must be True or False"),
        ("mometum=1", "--set mometum: sgd has no such hyperparameter; did you mean momentum? "
         "allowed: momentum, dampening, "),
        ("dampening=0,9", "--set dampening=0,9: it must be a finite number"),
        ("lr=1", "--set lr: the learning rate has an option of its own: --lr"),
        ("nesterov=true", "SGD: "),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_refused(given, told, tmp_path):
    assert refused("--optimizer", "sgd", "--set", given).startswith(told)
    assert not (tmp_path / "runs").exists()


def test_a_pair_that_is_none_is_told_with_one():
    assert refused("--set", "betas=0.9") == (
        "--set betas=0.9: it must be 2 finite numbers, each at least 0 and below 1, such as "
        "--set betas=0.9,0.999"
    )


def test_the_wide_signs_of_a_chinese_keyboard_are_read():
    told = trained(
        *("--set", "betas\uff1d0.8\uff0c0.95", "--lr", "0\uff0e01"),
        *("--schedule", "warmup\uff082\uff09>> cosine\uff088\uff09", "--epochs", "\uff12"),
    )
    assert "adamw, lr 0.01, betas 0.8 0.95," in told
    assert "schedule of lr, 8 steps: warmup(2) >> cosine(8)\n" in told
    plotted = CliRunner().invoke(main, ["plot", "linear\uff085\uff0c 1\uff09"])
    assert plotted.stdout.startswith("linear(5")


def test_a_hyperparameter_is_set_once():
    assert refused("--set", "eps=1", "--set", "eps=2") == (
        "--set eps=2: eps has a value already; give one"
    )


# --accumulate


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_on_several_batches_is_one_on_all_their_samples(name):
    def ended(batch_size, accumulate):
        torch.manual_seed(0)
        layers = torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)
        model = torch.nn.Sequential(*layers).double()
        x = torch.randn(37, 3, dtype=torch.float64)
        data = x, x.sum(1, keepdim=True)
        task = descend.Task(model, data, data, torch.nn.functional.mse_loss)
        optimizer = CATALOGUE[name](model.parameters(), lr=0.1)
        records = EpochRecords()
        trainer = descend.Trainer(
            max_epochs=3, accumulate_grad_batches=accumulate, callbacks=[records], seed=3,
            enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(TaskModule(task, optimizer, batch_size))
        losses = [record.train_loss for record in records.records]
        return losses, torch.cat([one.detach().ravel() for one in model.parameters()])

    (whole, expected), (parts, found) = ended(8, 1), ended(2, 4)
    assert parts == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_accumulating_goes_on_bit_for_bit_and_counts_steps():
    whole = trained("--accumulate", 2)
    assert "batches of 8, 2 to a step, seed 0" in whole
    assert load("run")["trainer"]["step"]["windows"] == 2 * 2  # 30 samples in steps of 16
    result = invoke("t.py", "--epochs", 1, "--batch-size", 8, "--accumulate", 2, "--out", "parts")
    assert result.exit_code == 0
    more = invoke("t.py", "--epochs", 2, "--batch-size", 8, "--accumulate", 2, "--out", "parts")
    assert "goes on after 1 epoch;" in more.stdout
    assert state(more.stdout) == state(whole)
    other = invoke("t.py", "--epochs", 2, "--batch-size", 8, "--out", "parts")
    assert "--accumulate was 2 and is not given" in other.stderr


# --workers, --device, --keep, --best


# Python 3.12 warns of forks beside threads, which is what workers are
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_change_nothing():
    alone = state(trained())
    assert state(trained("--fresh", "--workers", 2)) == alone
    assert state(trained("--fresh", "--workers", 1, "--accumulate", 1)) == alone


def test_the_device_is_the_models(tmp_path):
    assert state(trained("--device", "cpu")) == state(trained("--fresh"))
    again = invoke("t.py", "--epochs", 3, "--batch-size", 8, "--out", "run", "--device", "CPU")
    assert again.exit_code == 0
    assert "warning: --device was not given and is CPU: what follows can differ" in again.stderr


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "0"])
def test_a_device_that_is_not_there_is_refused(name):
    told = refused("--device", name)
    assert told.startswith(f"--device {name}: this machine, with this torch, has no such device;")
    assert "allowed: cpu" in told


@pytest.mark.gpu
def test_a_task_trains_on_the_gpu():
    told = trained("--device", "cuda", "--optimizer", "sgd", "--set", "momentum=0.9")
    assert "epoch 2/2" in told


METRICS = TASK.replace(
    "cross_entropy,", "cross_entropy, metrics={'accuracy': descend.training.accuracy, 'f1': f1},"
).replace(
    "import torch",
    """
import torch, descend
told = []
def f1(outputs, targets):
    told.append(1)
    return float(len(told) == 2)
""",
)


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path):
    (tmp_path / "t.py").write_text(METRICS)

    def kept(*options):
        invoke("t.py", "--epochs", 5, "--batch-size", 30, "--out", "run", "--fresh", *options)
        return sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())

    assert kept("--keep", 1) == ["step-00000005"]
    assert kept("--keep", 2) == ["step-00000004", "step-00000005"]
    best = ["step-00000002", "step-00000005"]  # where it is 1
    assert kept("--keep", 1, "--best", "f1:highest") == best
    assert kept("--keep", 1, "--best", "validation_f1:highest") == best
    assert len(kept("--keep", 1, "--best", "accuracy")) in (1, 2)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("recall", "--best recall: no such metric is measured; allowed: train_loss, "
         "validation_loss, validation_accuracy, validation_f1"),
        ("f1", "--best f1: whether it is best when highest or lowest is not known; give "
         "f1:highest or f1:lowest"),
        ("f1:top", "--best f1:top: it must be the name of a metric, with :highest or :lowest after "
         "it, such as --best validation_f1:highest"),
    ],
)  # fmt: skip
def test_a_best_that_cannot_be_told_is_refused(given, told, tmp_path):
    (tmp_path / "t.py").write_text(METRICS)
    assert refused("--best", given) == told


@pytest.mark.parametrize(("option", "least"), [("keep", 1), ("accumulate", 1), ("workers", 0)])
@pytest.mark.parametrize("given", ["-1", "1.5", "x"])
def test_counts_are_whole_numbers(option, least, given):
    told = f"--{option} {given}: it must be a whole number of at least {least}, such as"
    assert refused(f"--{option}", given).startswith(told)


# Names of optimizers


def test_an_unknown_optimizer_beside_a_file_of_that_name_is_told_how_to_name_it(tmp_path):
    def hint(name):
        return re.search(r"did you mean ([^?]*)\?", refused("--optimizer", name))[1]

    assert hint("sdg") == "sgd"
    os.mkfifo(tmp_path / "pipe.py")  # hangs whoever opens it
    (tmp_path / "signum.py").write_text(RULE)
    assert hint("signum") == "a class in signum.py, as signum.py:CLASS"
    (tmp_path / "rules.py").write_text(RULE.replace("MyRule", "Signum"))
    assert hint("signum") == "rules.py:Signum"
    assert refused("--optimizer", "nothing").endswith(f", {max(CATALOGUE)}, or FILE.py:CLASS")


# A training that diverges without an infinity


def test_a_loss_that_grows_without_end_is_no_success(tmp_path):
    growing = TASK.replace("cross_entropy", "mse_loss").replace(
        "y = (x.sum(1) > 0).long()", "y = torch.stack([x.sum(1)] * 2, 1)"
    )
    (tmp_path / "t.py").write_text(growing)
    options = ("--epochs", 3, "--batch-size", 30, "--optimizer", "sgd", "--lr", "3", "--out", "run")
    result = invoke("t.py", *options)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"descend: error: the training loss was \d\S* in the first batch and \d\S* in epoch 3, "
        r"with lr 3: training diverged; try a lower lr; run holds 3 epochs\n",
        result.stderr,
    )
    assert "state:" not in result.stdout
    assert "epoch 3/3" in result.stdout
    again = invoke("t.py", *options)  # it is through, and still no success
    assert (again.exit_code, again.stderr) == (1, result.stderr)


def progress(first, *losses):
    found = EpochRecords()
    found.first = first
    found.records = [Epoch(number, one, one, {}, 0.1, 0.0) for number, one in enumerate(losses, 1)]
    return found


@pytest.mark.parametrize(
    ("first", "losses", "diverged"),
    [
        (2.3, [5e15], True),
        (2.3, [5e15, 2.0], False),  # it came back
        (2.3, [2.3 * FAR_ABOVE * 1.01], True),
        (2.3, [2.3 * FAR_ABOVE * 0.99], False),
        (1e-6, [0.5, 0.4], False),  # next to nothing by luck, and by luck no more
        (1e-6, [1.01 * FAR_ABOVE], True),
        (-5.0, [-3.0], False),
        (-5.0, [5.01 * FAR_ABOVE], True),
        (1e6, [1e5], False),
        (None, [5e15], False),  # of a checkpoint that does not tell
        (2.3, [], False),
    ],
)
def test_where_a_loss_counts_as_diverged(first, losses, diverged):
    found = progress(first, *losses)
    assert (found.divergence is not None) is diverged
    again = EpochRecords()
    again.load_state_dict(found.state_dict())
    assert again.divergence == found.divergence
