"""A schedule in a training: `fit(scheduler=...)` and `descend train --schedule`."""
# ruff: noqa: E501  messages are compared whole

import json
import math
import re
import struct

import pytest
import torch
from click.testing import CliRunner
from torch.utils.data import DataLoader

import descend
from cli import commands, tasks
from descend.checkpoint import digest, load
from descend.cli import main
from descend.errors import DivergedError, TrainerError
from descend.report import draw_curves
from descend.schedules import constant, cosine, linear, warmup
from descend.schedules.expressions import parse
from descend.training import Epoch, ResumableLoader, Task
from descend.training.scheduling import spaced
from training.tasks_trained import fit

LOSS = torch.nn.functional.cross_entropy
STEPS = 9  # of three epochs with batches of 10

TASK = tasks.TASK.replace("[:30]", "[:27]")


def toy(loss=LOSS):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator)
    y = (x.sum(1) > 0).long()
    torch.manual_seed(0)
    return Task(torch.nn.Linear(4, 2), (x[:27], y[:27]), (x[30:], y[30:]), loss)


def train(task, optimizer, scheduler=None, **callbacks):
    return fit(
        task, optimizer, epochs=3, batch_size=10,
        scheduler=scheduler, **callbacks,
    )  # fmt: skip


class Recorder:
    """A scheduler that notes when it is stepped."""

    def __init__(self, calls):
        self.calls = calls

    def step(self):
        self.calls.append("schedule")


def test_it_is_stepped_after_each_step_of_the_optimizer_and_before_on_batch():
    task, calls = toy(), []
    optimizer = descend.SGD(task.model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: calls.append("step"))
    train(
        task, optimizer, Recorder(calls),
        on_batch=lambda phase, *_: calls.append(phase), on_epoch=lambda _: calls.append("epoch"),
    )  # fmt: skip
    assert calls == (["step", "schedule", "train"] * 3 + ["evaluate", "epoch"]) * 3


def test_c4_each_step_takes_the_value_of_the_schedule_at_its_number():
    schedule = warmup(3) >> cosine(5)
    task, plain = toy(), toy()
    optimizer = descend.SGD(task.model.parameters(), lr=0.1)
    records = train(task, optimizer, descend.Scheduler(optimizer, lr=schedule))
    loader = ResumableLoader(DataLoader(range(27), batch_size=10, shuffle=True), seed=0)
    done = 0
    x, y = plain.train
    for record in records:
        for part in loader:
            plain.model.zero_grad()
            LOSS(plain.model(x[part]), y[part]).backward()
            with torch.no_grad():
                for parameter in plain.model.parameters():
                    parameter.sub_(schedule(done, base=0.1) * parameter.grad)
            done += 1
        assert record.lr == schedule(done - 1, base=0.1)
    assert done == STEPS
    for mine, theirs in zip(task.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_c5_another_hyperparameter_is_driven_too():
    task, seen = toy(), []
    optimizer = descend.AdamW(task.model.parameters(), lr=0.1)
    scheduler = descend.Scheduler(optimizer, weight_decay=linear(9), beta2=constant(0.5))
    train(
        task, optimizer, scheduler,
        on_batch=lambda *_: seen.append(optimizer.param_groups[0]["weight_decay"]),
    )  # fmt: skip
    assert sorted(set(seen), reverse=True) == [linear(9)(t, base=0.01) for t in range(1, 10)]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.4995)


@pytest.mark.parametrize("library", [descend, torch.optim], ids=["descend", "torch"])
def test_any_scheduler_that_counts_steps_will_do(library):
    ours, other = toy(), toy()
    optimizers = [descend.SGD(task.model.parameters(), lr=0.1) for task in (ours, other)]
    native = descend.Scheduler(optimizers[0], lr=cosine(9))
    named = library.lr_scheduler.CosineAnnealingLR(optimizers[1], 9)
    first = [record.lr for record in train(ours, optimizers[0], native)]
    second = [record.lr for record in train(other, optimizers[1], named)]
    assert first == pytest.approx(second, rel=1e-12)
    torch.testing.assert_close(ours.model.weight, other.model.weight)


def test_a_constant_schedule_changes_no_bit():
    with_one, without = toy(), toy()
    optimizers = [descend.AdamW(task.model.parameters(), lr=0.1) for task in (with_one, without)]
    first = train(with_one, optimizers[0], descend.Scheduler(optimizers[0], lr=constant()))
    second = train(without, optimizers[1])
    assert [r.train_loss for r in first] == [r.train_loss for r in second]
    assert torch.equal(with_one.model.weight, without.model.weight)


def test_a_loss_that_diverged_is_not_scheduled_past():
    calls, seen = [], [0]

    def loss(outputs, targets):
        seen[0] += 1
        return LOSS(outputs, targets) * (math.nan if seen[0] == 3 else 1)

    task = toy(loss)
    with pytest.raises(DivergedError):
        train(task, descend.SGD(task.model.parameters(), lr=0.1), Recorder(calls))
    assert calls == ["schedule"] * 2


def test_what_is_no_scheduler_of_this_optimizer_is_refused_before_a_step():
    task = toy()
    before = task.model.weight.detach().clone()
    one, other = (descend.SGD(task.model.parameters(), lr=0.1) for _ in range(2))
    with pytest.raises(TrainerError, match=r"needs a scheduler with a step\(\), got a Schedule"):
        train(task, one, cosine(9))
    with pytest.raises(TrainerError, match="the Scheduler drives another optimizer than those"):
        train(task, one, descend.Scheduler(other, lr=cosine(9)))
    assert torch.equal(task.model.weight, before)


def width(path):
    """Of a PNG file, in pixels."""
    return struct.unpack(">I", path.read_bytes()[16:20])[0]


def test_a_scheduled_hyperparameter_gets_a_panel(tmp_path):
    records = [Epoch(1, 0.7, 0.5, {}, 0.1, 0.2)]
    draw_curves(records, tmp_path / "without.png")
    draw_curves(records, tmp_path / "none.png", {})
    line = ([0, 0.5, 1], [0.0, 0.1, 0.0])
    draw_curves(records, tmp_path / "with.png", {"lr": line, "weight_decay": line})
    assert (tmp_path / "none.png").read_bytes() == (tmp_path / "without.png").read_bytes()
    assert width(tmp_path / "with.png") == 3 * width(tmp_path / "without.png")


@pytest.fixture(autouse=True)
def task_file(own_folder):
    (own_folder / "t.py").write_text(TASK)


def invoke(*args, out="o"):
    short = ["t.py", "--epochs", 3, "--batch-size", 10, "--out", out]
    return commands.invoke("train", *short, *args)


def lrs(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["lr"] for line in lines]


def test_steps_epochs_and_fractions_say_the_same(tmp_path):
    given = {
        "step": "warmup(3) >> cosine(6)",
        "epoch": "warmup(1) >> cosine(2)",
        "fraction": "warmup(1/3) >> cosine(2/3)",
    }
    results = [invoke("--schedule", text, "--unit", unit, out=unit) for unit, text in given.items()]
    results.append(invoke("--schedule", given["step"], out="default"))
    for result in results:
        assert (result.exit_code, result.stderr) == (0, "")
        assert "\nschedule of lr, 9 steps: warmup(3) >> cosine(6)\n" in result.stdout
        assert "\nadamw, lr 0.001, batches of 10, seed 0\n" in result.stdout
    schedule = warmup(3) >> cosine(6)
    assert [lrs(tmp_path / name) for name in (*given, "default")] == [
        [schedule(step, base=0.001) for step in (2, 5, 8)]
    ] * 4
    assert len({result.stdout.splitlines()[-1] for result in results}) == 1


def test_the_epoch_lines_show_the_lr_and_the_picture_its_curve(tmp_path):
    result = invoke("--schedule", "linear(9)", "--lr", 0.09)
    assert result.exit_code == 0, result.stderr
    shown = re.findall(r"^epoch \d/3 .*  lr (\S+)  ", result.stdout, re.M)
    assert [float(lr) for lr in shown] == pytest.approx([0.07, 0.04, 0.01])
    assert invoke(out="plain").exit_code == 0
    assert width(tmp_path / "o" / "curves.png") == 2 * width(tmp_path / "plain" / "curves.png")


def test_several_hyperparameters_are_scheduled(tmp_path):
    result = invoke(
        "--schedule", "linear(9)", "--schedule", "weight_decay: linear(9, 1, value(0.1))",
        "--schedule", "beta2:constant(0.5)",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    for line in ("lr, 9 steps: linear(9)", "weight_decay, 9 steps: linear(9, end=value(0.1))",
                 "beta2, 9 steps: constant(0.5)"):  # fmt: skip
        assert f"\nschedule of {line}\n" in result.stdout
    group = load(tmp_path / "o")["optimizer"]["param_groups"][0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.0, 0.1, (0.9, 0.4995))


@pytest.mark.parametrize("name", ["sgd", "adafactor", "muon", "lbfgs"])
def test_every_kind_of_optimizer_is_scheduled(tmp_path, name):
    result = invoke("--optimizer", name, "--lr", 0.01, "--schedule", "linear(9)")
    assert (result.exit_code, result.stderr) == (0, "")
    assert lrs(tmp_path / "o") == [linear(9)(step, base=0.01) for step in (2, 5, 8)]


def test_the_checkpoint_holds_the_scheduler_and_it_goes_on_from_there(tmp_path):
    assert invoke("--schedule", "warmup(4) >> cosine(16)").exit_code == 0
    saved = load(tmp_path / "o")
    assert saved["scheduler"]["last_epoch"] == STEPS
    optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))])
    scheduler = descend.Scheduler(optimizer, lr=warmup(4) >> cosine(16))
    scheduler.load_state_dict(saved["scheduler"])
    expected = [(warmup(4) >> cosine(16))(step, base=0.001) for step in range(9, 20)]
    came = []
    for _ in expected:
        came += scheduler.get_last_lr()
        scheduler.step()
    assert came == expected


def test_without_a_schedule_a_run_is_what_it_was(tmp_path):
    plain = invoke(out="plain")
    constant_lr = invoke("--schedule", "constant()", out="constant")
    saved = load(tmp_path / "plain")
    assert set(saved) == {"model", "optimizer", "run", "trainer"}
    assert "schedule" not in plain.stdout
    assert "initial_lr" not in saved["optimizer"]["param_groups"][0]
    other = load(tmp_path / "constant")
    assert constant_lr.exit_code == 0
    assert digest({"model": saved["model"]}) == digest({"model": other["model"]})


@pytest.mark.parametrize(("times", "steps"), [(1, 5), (2, 3)])
def test_f2_ctrl_c_leaves_the_scheduler_where_the_optimizer_is(tmp_path, times, steps):
    (tmp_path / "t.py").write_text(tasks.interrupted(TASK, times))
    result = invoke("--schedule", "linear(9)")
    assert result.exit_code == 130
    saved = load(tmp_path / "o")
    assert saved["scheduler"]["last_epoch"] == steps
    assert int(next(iter(saved["optimizer"]["state"].values()))["step"]) == steps
    assert saved["optimizer"]["param_groups"][0]["lr"] == linear(9)(steps, base=0.001)


def test_likely_mistakes_are_named_before_the_training_and_it_goes_on():
    result = invoke("--schedule", "warmup(500) >> cosine(9500)")
    assert result.exit_code == 0
    assert "epoch 3/3" in result.stdout
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("descend: warning: lr: ") for line in lines)


def test_what_has_no_effect_is_named():
    result = invoke("--lr", 0.1, "--schedule", "value(0.01) * linear(9)",
                    "--optimizer", "sgd", "--schedule", "momentum:linear(9)")  # fmt: skip
    assert result.exit_code == 0
    assert result.stderr == (
        "descend: warning: lr: the schedule gives values, so --lr 0.1 has no effect\n"
        "descend: warning: momentum: it is 0, and so is a factor of it; give values: "
        "value(linear(9))\n"
    )


BAD = {
    "a misspelt function": (["--schedule", "warmup(3) >> cosin(6)"], "--schedule: column 14 of warmup(3) >> «cosin»(6): there is no function cosin; did you mean cosine?"),
    "a named one": (["--schedule", "weight_decay: linear(-1)"], "--schedule weight_decay: column 8 of linear(«-1»): linear: steps must be a finite number of at least 0, got -1"),
    "nothing": (["--schedule", ""], "--schedule: column 1 of «»: it is empty"),
    "code": (["--schedule", "__import__('os').system('touch x')"], "--schedule: column "),
    "two of one": (["--schedule", "linear(9)", "--schedule", "lr:cosine(9)"], "--schedule lr:cosine(9): lr has the schedule linear(9) already; give one, such as their product: (linear(9)) * (cosine(9))"),
    "no such hyperparameter": (["--schedule", "momentun:linear(9)", "--optimizer", "sgd"], "--schedule momentun: SGD has no number of that name; did you mean momentum? allowed: "),
    "no number": (["--schedule", "params:linear(9)"], "--schedule params: AdamW has no number of that name; allowed: lr, "),
    "an option": (["--schedule", "amsgrad:linear(9)"], "--schedule amsgrad: AdamW has no number of that name; "),
    "a name of the scheduler's own": (["--schedule", "last_epoch:linear(9)"], "--schedule last_epoch: AdamW has no number of that name; "),
    "below zero at the end": (["--schedule", "linear(9, 1, -1)"], "--schedule lr: AdamW: lr=-0.001 in step 9 is not allowed: lr must be "),
    "a beta above 1": (["--schedule", "beta2:linear(9, 1, value(2))"], "--schedule beta2: AdamW: betas=(2.0, 2.0) in step 9 is not allowed: betas must be "),
    "unit without a schedule": (["--unit", "epoch"], "--unit epoch: there is no --schedule whose times it could count; see descend train --help"),
    "unknown unit": (["--schedule", "linear(9)", "--unit", "day"], "--unit day: it must be 'step' or 'epoch' or 'fraction', such as --unit epoch"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_clear_line_and_leaves_nothing(tmp_path, name):
    args, message = BAD[name]
    result = invoke(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"descend: error: {message}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.py"]


def test_a_schedule_of_a_run_without_end_is_looked_at_here_and_there():
    assert spaced(0, 3) == [0]
    assert spaced(3, 3) == [0, 1, 2, 3]
    assert spaced(10, 3) == [0, 4, 8, 10]
    assert len(spaced(10**30, 100)) == 101
    result = invoke("--schedule", "linear(1e30, 1, -1)", "--epochs", "9" * 30)
    assert result.stderr.startswith("descend: error: --schedule lr: AdamW: lr=-0.001 in step ")


def test_help_teaches_schedules_that_can_be_read():
    text = CliRunner().invoke(main, ["train", "--help"]).stdout
    assert "--unit [step|epoch|fraction]" in text
    listed = text.split("in each step:\n")[1].split("descend plot")[0].strip().splitlines()
    expressions = [re.split("  +", line.strip())[0] for line in listed]
    assert len(expressions) == 5
    for expression in expressions:
        parse(expression.removeprefix("weight_decay:"))
