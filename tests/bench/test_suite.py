"""The whole measurement: what it holds, when it refuses, and what it leaves as it was."""

import dataclasses
import json

import pytest
import torch

from descend.bench import (
    WORKLOADS,
    Machine,
    StartUp,
    StepMemory,
    StepTimes,
    Workload,
    cases,
    document,
    machine,
    measure_parts,
    measure_steps,
    spread,
    step_parts,
    suite,
    targets,
)
from descend.bench.contenders import SCALE, find_case, share_states
from descend.bench.limit import moved_bytes
from descend.cli.bench_tables import step_entries
from descend.errors import DescendError

SMALL = Workload("small", "two tensors", ((30, 20), (20,)))
LARGER = Workload("larger", "more than the smallest limit", ((600, 500),))


def test_step_times_hold_every_contender_with_its_paired_ratio(catalogue):
    found = measure_steps(cases()["adamw"], SMALL, 3, turn_ns=1)
    assert (found.case, found.workload, found.tensors, found.parameters) == (
        "adamw",
        "small",
        2,
        620,
    )
    names = [timing.contender for timing in found.timings]
    assert names == ["descend", "torch default", "torch foreach", "torch fused"]
    assert found.timing("descend").ratio == suite.Spread(1.0, 1.0, 1.0)
    assert found.timing("torch nothing") is None
    assert all(0 < t.seconds.low <= t.seconds.median <= t.seconds.high for t in found.timings)
    assert found.best_other in found.timings[1:]
    assert found.constant not in found.timings
    assert found.constant.contender == "descend, constant lr"


def test_a_small_model_has_no_limit_and_clipping_has_none(catalogue):
    assert measure_steps(cases()["adamw"], SMALL, 1, turn_ns=1).limit is None
    clipped = measure_steps(cases()["adamw-clip"], LARGER, 1, turn_ns=1)
    assert (clipped.limit, clipped.limit_bytes) == (None, None)


def test_a_large_model_has_the_fastest_of_the_limits(catalogue):
    found = measure_steps(cases()["adamw"], LARGER, 2, turn_ns=1)
    assert found.limit.contender in {"limit wide", "limit narrow", "limit torch"}
    assert found.limit not in found.timings
    streamed = tuple(torch.empty(LARGER.shapes[0]) for _ in range(4))
    assert found.limit_bytes == moved_bytes([streamed])


def test_all_contenders_work_in_the_same_memory(catalogue, monkeypatch):
    seen = []

    def keep(optimizer, owner):
        share_states(optimizer, owner)
        seen.append(optimizer)

    monkeypatch.setattr(suite, "share_states", keep)
    measure_steps(cases()["adamw"], SMALL, 2, turn_ns=1)
    assert len(seen) == 5  # descend's takes part without a schedule too

    def addresses(optimizer):
        return [
            (name, parameter.data_ptr(), parameter.grad.data_ptr(), states[name].data_ptr())
            for parameter, states in optimizer.state.items()
            for name in ("exp_avg", "exp_avg_sq")
        ]

    assert all(addresses(optimizer) == addresses(seen[0]) for optimizer in seen)
    counts = {id(optimizer.state[p]["step"]) for optimizer in seen for p in optimizer.state}
    assert len(counts) == 5 * SMALL.tensors


def test_states_that_differ_are_not_shared():
    parameter = torch.nn.Parameter(torch.ones(4, 2))
    parameter.grad = torch.ones(4, 2)
    ours, theirs = (torch.optim.AdamW([parameter]) for _ in range(2))
    ours.step()
    theirs.step()
    ours.state[parameter]["exp_avg"] = torch.ones(2, 4).t()
    del ours.state[parameter]["exp_avg_sq"]
    before = dict(theirs.state[parameter])
    share_states(theirs, ours)
    assert all(theirs.state[parameter][name] is before[name] for name in before)


def test_an_optimizer_that_torch_does_not_have_stands_alone(catalogue):
    found = measure_steps(cases()["unheard"], SMALL, 1, turn_ns=1)
    assert [timing.contender for timing in found.timings] == ["descend"]
    assert found.best_other is None


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 1e-40])
def test_odd_values_at_the_end_are_refused(catalogue, odd):
    class Breaking(catalogue["sgd"]):
        def step(self):
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = odd

    Breaking.__name__ = "Unheard"
    catalogue["sgd"] = Breaking
    with pytest.raises(DescendError) as caught:
        measure_steps(cases()["sgd"], SMALL, 1, turn_ns=1)
    assert str(caught.value) == (
        "bench: sgd left infinite, NaN or subnormal values on small, "
        "so its times mean nothing; use fewer --rounds"
    )


def test_a_run_reports_its_parts_and_restores_the_threads(catalogue):
    said, before = [], torch.get_num_threads()
    chosen = [cases()["sgd"], cases()["rmsprop"]]
    parts = step_parts(chosen, [SMALL], 1, start=False)
    found = measure_parts(parts, rounds=1, threads=before + 1, progress=said.append)
    assert said == ["sgd on small", "rmsprop on small"]
    assert found.machine.threads == before + 1
    assert torch.get_num_threads() == before
    assert (found.of(StartUp), found.of(StepMemory)) == ([], [])
    assert [steps.case for steps in found.of(StepTimes)] == ["sgd", "rmsprop"]


def test_start_up_and_memory_are_measured_on_the_largest_model(catalogue, monkeypatch):
    said, asked = [], []
    monkeypatch.setattr(suite, "start_up", lambda: None)
    monkeypatch.setattr(suite, "step_memory", lambda *given: asked.append(given) or [])
    parts = step_parts([cases()["sgd"]], [LARGER, SMALL], 1)
    measure_parts(parts, rounds=1, threads=1, progress=said.append)
    assert asked == [("sgd", "larger", 1)]
    assert len(said) == 4


def test_a_run_of_the_users_own_rule_measures_its_memory_and_no_start_up(own_rule, monkeypatch):
    said, asked = [], []
    monkeypatch.setattr(suite, "start_up", lambda: asked.append("start-up"))
    monkeypatch.setattr(suite, "step_memory", lambda *given: asked.append(given) or [])
    case = find_case(f"{own_rule}:MyRule")
    found = measure_parts(step_parts([case], [SMALL], 1), rounds=1, progress=said.append)
    assert asked == [(case.name, "small", torch.get_num_threads())]
    assert len(said) == 2
    (steps,) = found.of(StepTimes)
    assert [timing.contender for timing in steps.timings] == ["descend", SCALE]
    assert steps.best_other is None


def test_a_rule_of_the_users_own_has_the_streaming_limit(own_rule):
    found = measure_steps(find_case(f"{own_rule}:MyRule"), LARGER, 1, turn_ns=1)
    streamed = tuple(torch.empty(LARGER.shapes[0]) for _ in range(3))
    assert found.limit_bytes == moved_bytes([streamed])


@pytest.mark.parametrize(("after", "pairs"), [(0, 0), (1, 1), (3, 3), (4, 4), (5, 4)])
def test_ctrl_c_leaves_what_was_measured_before(catalogue, monkeypatch, after, pairs):
    said = []

    def progress(words):
        if len(said) == after:
            raise KeyboardInterrupt
        said.append(words)

    started = StartUp(*[spread([1.0])] * 4)
    monkeypatch.setattr(suite, "start_up", lambda: started)
    chosen = [cases()["sgd"], cases()["rmsprop"]]
    before = torch.get_num_threads()
    parts = step_parts(chosen, [SMALL, LARGER], 1)
    found = measure_parts(parts, rounds=1, threads=before + 1, progress=progress)
    assert found.interrupted
    assert len(found.of(StepTimes)) == pairs
    assert found.of(StartUp) == ([started] if after > 4 else [])
    assert found.of(StepMemory) == []
    assert torch.get_num_threads() == before


def test_the_limit_of_a_rule_with_sums_is_that_of_its_two_passes():
    found = measure_steps(cases()["stableadamw"], LARGER, 1, turn_ns=1)
    assert found.limit_bytes == LARGER.nbytes * (4 + 3 + 2)


def test_what_is_not_elementwise_has_no_limit():
    case = cases()["adafactor"]
    assert measure_steps(case, LARGER, 1, turn_ns=1).limit is None


def test_single_numbers_may_be_subnormal(catalogue):
    class Decayed(catalogue["sgd"]):
        def step(self):
            self.state[self.param_groups[0]["params"][0]]["mu_product"] = torch.tensor(1e-40)

    Decayed.__name__ = "Unheard"
    catalogue["sgd"] = Decayed
    assert measure_steps(cases()["sgd"], SMALL, 1, turn_ns=1).case == "sgd"


def test_the_machine_is_described():
    here = machine()
    assert here.cores >= 1
    assert here.threads == torch.get_num_threads()
    assert here.torch == torch.__version__
    assert here.dtype == "float32"
    assert all(getattr(here, name) for name in ("processor", "numba", "descend", "system"))


def test_the_document_is_json_and_has_every_field(catalogue):
    parts = step_parts([cases()["adamw"]], [WORKLOADS["mlp"]], 2, start=False)
    found = measure_parts(parts, rounds=2)
    read = json.loads(json.dumps(document(found, targets(found), step_entries(found))))
    assert list(read) == [
        "format", "machine", "rounds", "seconds", "steps", "start_up", "memory", "interrupted",
        "targets",
    ]  # fmt: skip
    assert read["format"] == 2
    assert set(read["machine"]) == {field.name for field in dataclasses.fields(Machine)}
    (steps,) = read["steps"]
    assert steps["timings"][3]["contender"] == "torch fused"
    assert set(steps["timings"][3]["seconds"]) == {"median", "low", "high"}
    assert {target["status"] for target in read["targets"]} <= {"met", "missed", "not measured"}
    assert steps["best_other"] in {"torch default", "torch foreach", "torch fused"}
    assert len(read["targets"]) == 19
