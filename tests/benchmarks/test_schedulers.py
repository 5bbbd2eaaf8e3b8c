"""The measurement of schedulers: who takes part, that they do the same, what is told of them."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner

import schedulers
from children import python
from descend.bench import Spread, measure_parts
from schedulers import (
    FORMS,
    OURS,
    TORCH,
    Form,
    SchedulerCase,
    SchedulerTimes,
    measure_scheduler,
    scheduler_cases,
    scheduler_entries,
    scheduler_parts,
    scheduler_targets,
)

ALL = {case.name: case for case in scheduler_cases()}
STEPS = 60
SMALL = (
    Form("1 group", 1, False, 0.5),
    Form("3 groups", 3, False, 1),
    Form("tensors", 2, True, 1),
)


@pytest.fixture(autouse=True)
def without_the_garbage_collector(monkeypatch):
    """It takes longer than all else here."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def test_every_scheduler_of_torch_takes_part():
    known = {*torch.optim.lr_scheduler.__all__, "SWALR"} - {"LRScheduler"}
    assert known <= {name.split()[0] for name in ALL}
    assert "Scheduler(warmup >> cosine)" in ALL


def test_the_warmups_take_part_where_there_is_something_to_compare_with(monkeypatch):
    monkeypatch.setattr(schedulers, "find_spec", lambda name: None)
    assert {case.beside for case in scheduler_cases()} == {TORCH}
    monkeypatch.setattr(schedulers, "find_spec", lambda name: object())
    found = {case.name for case in scheduler_cases() if case.beside == "pytorch_warmup"}
    assert found == {
        "LinearWarmup", "ExponentialWarmup", "UntunedLinearWarmup", "UntunedExponentialWarmup",
        "RAdamWarmup",
    }  # fmt: skip


@pytest.mark.parametrize("form", SMALL, ids=lambda form: form.name)
@pytest.mark.parametrize("name", ALL)
def test_both_sides_do_the_same(name, form):
    case = ALL[name]
    if form.tensor and not case.tensors:
        pytest.skip("pytorch_warmup forgets what it has dampened where the lr is a tensor")
    lrs = []
    for library, build in ((OURS, case.ours), (TORCH, case.theirs)):
        optimizer = schedulers._optimizer(library, case.optimizer, form)
        step = build(optimizer, STEPS)
        optimizer.step()
        came = []
        for _ in range(STEPS - 2):
            came.append([float(group["lr"]) for group in optimizer.param_groups])
            step()
        lrs.append(came)
    # torch's LinearLR begins above 0, a tensor has single precision, and the periods of
    # pytorch_warmup are cut to whole ones: 1999 for 2000
    relative = 1e-4 if form.tensor else 1e-9 if case.beside == TORCH else 2e-3
    allowed = {"rtol": relative, "atol": 1e-7 if form.tensor else 2e-9}
    ours, theirs = (torch.tensor(came, dtype=torch.float64) for came in lrs)
    torch.testing.assert_close(ours, theirs, **allowed)
    assert len(optimizer.param_groups) == form.groups
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) is form.tensor


class Clockwork:
    """A clock that goes on by what a step costs."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def costing(self, nanoseconds):
        def build(optimizer, steps):
            def step():
                self.now += nanoseconds

            return step

        return build


def test_the_ratio_is_theirs_over_ours():
    clock = Clockwork()
    case = SchedulerCase("mine", clock.costing(200), clock.costing(600))
    found = measure_scheduler(case, FORMS[1], 3, turn_ns=2_000, clock=clock)
    assert (found.ours, found.theirs) == (Spread(2e-7, 2e-7, 2e-7), Spread(6e-7, 6e-7, 6e-7))
    assert found.ratio.median == pytest.approx(3)
    assert (found.case, found.form, found.groups, found.tensor) == ("mine", "50 groups", 50, False)
    assert found.share is None


def test_the_share_is_ours_of_a_step_of_adamw(monkeypatch):
    clock = Clockwork()

    class AdamW(torch.optim.AdamW):
        def step(self, closure=None):
            clock.now += 1_000

    monkeypatch.setattr(schedulers, "_class", lambda library, name, part="": {
        "AdamW": AdamW, "SGD": torch.optim.SGD,
    }[name])  # fmt: skip
    case = SchedulerCase("mine", clock.costing(200), clock.costing(600))
    found = measure_scheduler(case, FORMS[0], 3, turn_ns=2_000, clock=clock)
    assert found.share.median == pytest.approx(0.2)


@pytest.mark.parametrize("name", ALL)
def test_everything_can_be_measured_and_nothing_warns(name):
    case = ALL[name]
    for form in FORMS if case.tensors else FORMS[:2]:
        found = measure_scheduler(case, form, 1, turn_ns=1)
        assert 0 < found.ours.low <= found.ours.median <= found.ours.high
        assert found.theirs.median > 0
        assert (found.share is not None) is (form == FORMS[0])
        assert found.beside == case.beside


def test_schedules_outlast_the_longest_run(monkeypatch):
    asked = []
    taken = [0, 0]

    def counting(side):
        def build(optimizer, steps):
            asked.append(steps)

            def step():
                taken[side] += 1

            return step

        return build

    case = SchedulerCase("mine", counting(0), counting(1))
    measure_scheduler(case, FORMS[1], 3, turn_ns=10**9)
    assert max(taken) < asked[0] == asked[1]


@pytest.fixture
def few(monkeypatch):
    """Two cases and short turns, so that these tests are about what is told."""
    cases = [ALL["StepLR"], ALL["LambdaLR"]]
    monkeypatch.setattr("schedulers.scheduler_cases", lambda: cases)
    measure = schedulers.measure_scheduler
    monkeypatch.setattr(
        schedulers,
        "measure_scheduler",
        lambda case, form, rounds: measure(case, form, rounds, turn_ns=1),
    )
    return cases


def test_a_run_reports_its_parts_and_restores_the_threads(few):
    said, before = [], torch.get_num_threads()
    parts = scheduler_parts(few, 1)
    found = measure_parts(parts, rounds=1, threads=before + 1, progress=said.append)
    assert torch.get_num_threads() == before
    assert found.machine.threads == before + 1
    assert len(said) == len(found.of(SchedulerTimes)) == len(parts) == 8
    assert said[:2] == ["StepLR, 1 group", "LambdaLR, 1 group"]
    assert not found.interrupted


def test_each_form_promises_how_slow_its_slowest_is(few):
    found = measure_parts(scheduler_parts(few, 1), rounds=1)
    told = scheduler_targets(found)
    assert [target.target for target in told] == [form.least for form in FORMS]
    for target, form in zip(told, FORMS, strict=True):
        rows = {one.case: one.ratio for one in found.of(SchedulerTimes) if one.form == form.name}
        assert target.measured == min(rows.values(), key=lambda ratio: ratio.high)
        assert target.of == (min(rows, key=lambda case: rows[case].high),)
    warmups = dataclasses.replace(
        found,
        found=tuple(
            dataclasses.replace(one, beside="pytorch_warmup") for one in found.of(SchedulerTimes)
        ),
    )
    assert {target.status for target in scheduler_targets(warmups)} == {"not measured"}
    nothing = scheduler_targets(measure_parts([], rounds=1))
    assert {target.status for target in nothing} == {"not measured"}


def invoke(*arguments):
    return CliRunner().invoke(schedulers.main, arguments, catch_exceptions=False)


def test_tables_show_every_form_and_what_is_promised(few):
    result = invoke("--rounds", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    for words in (
        "one step of a scheduler, 1 group", "one step of a scheduler, 50 groups, lr a tensor",
        "StepLR", "LambdaLR", "torch over descend", "share of AdamW", "float32, 1 round", "±",
        "what descend promises", "a scheduler's step, 50 groups, the slowest", ">= 1x within noise",
    ):  # fmt: skip
        assert words in result.stdout, words
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_json_is_one_document_and_nothing_else(few):
    result = invoke("--rounds", "1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    read = json.loads(result.stdout)
    assert len(read["schedulers"]) == 8
    assert set(read["schedulers"][0]["ratio"]) == {"median", "low", "high"}
    assert [target["unit"] for target in read["targets"]] == ["x"] * 4
    assert {*scheduler_entries(measure_parts([], rounds=1))} < {*read}


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_prints_what_was_measured_before(few, monkeypatch, as_json):
    measure = schedulers.measure_scheduler

    def until_tensors(case, form, rounds):
        if form.tensor:
            raise KeyboardInterrupt
        return measure(case, form, rounds)

    monkeypatch.setattr(schedulers, "measure_scheduler", until_tensors)
    result = invoke("--rounds", "1", *(["--json"] if as_json else []))
    assert result.exit_code == 130
    assert result.stderr == (
        "descend: interrupted; printed is what was measured before: 4 of 8 pairs of a scheduler "
        "and what it drives\n"
    )
    if as_json:
        assert json.loads(result.stdout)["interrupted"]
    else:
        assert "50 groups" in result.stdout


def test_ctrl_c_at_once_says_that_there_is_nothing(few, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedulers, "measure_scheduler", interrupted)
    result = invoke("--json")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "descend: interrupted before anything was measured\n"


def test_the_script_runs_by_itself_and_its_help_teaches():
    done = python(schedulers.__file__, "--help")
    for words in ("pytorch_warmup", "default: 21", "--json"):
        assert words in " ".join(done.stdout.split()), words
