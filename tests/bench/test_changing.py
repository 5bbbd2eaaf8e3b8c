"""Steps where something changes: that it does, that it is measured, and what is told of it."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner

from descend.bench import (
    CHANGES,
    Change,
    ChangeTimes,
    Measurement,
    Workload,
    cases,
    changing,
    changing_parts,
    changing_targets,
    machine,
    measure_change,
    measure_parts,
)
from descend.bench.changes import USUAL, Network
from descend.bench.contenders import contenders
from descend.bench.suite import Timing
from descend.bench.timing import Spread
from descend.cli import main

BLOCKS = 12
SMALL = Workload("24 tensors", "small", ((4, 3), (4,)) * BLOCKS)
IMAGES = Workload("24 tensors", "small", ((4, 3, 2, 2), (4,)) * BLOCKS)


def smaller(change):
    """The same change on a model that takes no time."""
    models = {
        "channels-last": IMAGES,
        "first-step": dataclasses.replace(SMALL, name="1,000 tensors"),
        "sparse": Workload("2,000 rows", "small", ((50, 3),)),
    }
    return dataclasses.replace(change, workloads=(models.get(change.name, SMALL),))


@pytest.fixture(autouse=True)
def without_the_garbage_collector(monkeypatch):
    """It takes longer than all else here."""
    monkeypatch.setattr("gc.collect", lambda: 0)


EVERY = pytest.mark.parametrize("name", CHANGES)


def seen(name, steps, workload=SMALL):
    """Which parameters have gradients in each step."""
    change = CHANGES[name]
    network = Network(workload, change.layout)
    found = []
    for step in range(steps):
        change.before(network, step)
        found.append([i for i, one in enumerate(network.parameters) if one.grad is not None])
    return found


@EVERY
def test_descends_values_are_torchs_whatever_changes(name):
    change = smaller(CHANGES[name])
    (workload,) = change.workloads
    case = cases()[(change.only or USUAL)[0]]
    ends = []
    for contender in contenders(case)[:2]:
        network = Network(workload, change.layout)
        take = changing._first_steps if change.first else changing._steps
        take(change, contender, network, lambda: 0)(2 * change.cycle + 1)
        ends.append(network.parameters)
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-6) for pair in zip(*ends, strict=True))


@pytest.mark.parametrize("name", ["transposed", "channels-last"])
def test_torchs_fused_form_is_wrong_where_layouts_differ(name):
    change = smaller(CHANGES[name])
    for case in (cases()["adamw"], cases()["sgd-momentum"]):
        found = measure_change(change, change.workloads[0], case, 1, turn_ns=1)
        assert found.wrong == ("torch fused",)


def test_torchs_fused_form_of_sgd_refuses_a_parameter_whose_first_gradient_comes_later():
    ours, default, _, fused = contenders(cases()["sgd-momentum"])
    ends = []
    for contender in (ours, default, fused):
        params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
        optimizer = contender.make(params)
        for one in params:
            one.grad = torch.ones(3)
            if contender is fused and one is params[1]:
                with pytest.raises(TypeError):
                    optimizer.step()
            else:
                optimizer.step()
        ends.append(params)
    assert all(map(torch.equal, ends[0], ends[1]))


@pytest.mark.parametrize("name", sorted({*CHANGES} - {"nothing", "sparse"}))
def test_every_step_meets_new_gradient_tensors_in_other_memory(name):
    change = smaller(CHANGES[name])
    network = Network(change.workloads[0], change.layout)
    held = [{}, {}]
    for step in range(6):
        change.before(network, step)
        now = {i: one.grad for i, one in enumerate(network.parameters) if one.grad is not None}
        assert now
        for i in now.keys() & held[-1].keys():
            assert now[i] is not held[-1][i]
            assert now[i].data_ptr() != held[-1][i].data_ptr()
        held.append(now)


def test_where_nothing_changes_the_tensors_are_the_same():
    network = Network(SMALL)
    before = [one.grad for one in network.parameters]
    CHANGES["nothing"].before(network, 1)
    assert all(one.grad is grad for one, grad in zip(network.parameters, before, strict=True))


def test_a_random_share_has_gradients():
    found = seen("random", 100)
    assert len({tuple(one) for one in found}) > 90
    assert sum(map(len, found)) / 100 / SMALL.tensors == pytest.approx(0.8, abs=0.05)
    assert found == seen("random", 100) == seen("lr-random", 100)


def blocks_of(numbers):
    """By block, of two tensors each; a block has gradients as a whole or not at all."""
    found = sorted({number // 2 for number in numbers})
    assert sorted(numbers) == [number for block in found for number in (2 * block, 2 * block + 1)]
    return found


def test_two_of_eight_experts_are_used():
    found = [blocks_of(step) for step in seen("experts", 100)]
    assert all(len(step) == 4 + 2 for step in found)
    assert all(step[:4] == [0, 1, 2, 3] for step in found)
    assert {block for step in found for block in step} == set(range(BLOCKS))


def test_heads_take_turns():
    found = [blocks_of(step)[8:] for step in seen("heads", 5)]
    assert found == [[8], [9], [10], [11], [8]]
    assert blocks_of(seen("heads", 1)[0])[:8] == list(range(8))


def test_stochastic_depth_leaves_blocks_out():
    found = [blocks_of(step) for step in seen("depth", 100)]
    assert sum(map(len, found)) / 100 / BLOCKS == pytest.approx(0.8, abs=0.05)
    assert len({tuple(step) for step in found}) > 50


def test_losses_alternate():
    even, odd, again = map(blocks_of, seen("alternating", 3))
    assert even == again == [0, 1, 2, 3, 4, 5, 6, 7]
    assert odd == [0, 1, 2, 3, 8, 9, 10, 11]


def test_layers_are_frozen_and_unfrozen():
    change, network = CHANGES["frozen"], Network(SMALL)
    learning = []
    for step in range(change.cycle + 1):
        change.before(network, step)
        learning.append([one.requires_grad for one in network.parameters])
        assert learning[-1] == [one.grad is not None for one in network.parameters]
    half = [False] * BLOCKS + [True] * BLOCKS
    everything = [True] * 2 * BLOCKS
    assert learning == [everything] * 10 + [half] * 10 + [everything]


def test_param_data_is_swapped_every_third_step():
    change, network = CHANGES["swapped"], Network(SMALL)
    addresses = []
    for step in range(7):
        change.before(network, step)
        addresses.append(network.parameters[0].data_ptr())
    first, second = addresses[0], addresses[3]
    assert first != second
    assert addresses == [first] * 3 + [second] * 3 + [first]


def test_gradients_have_another_layout_than_their_parameters():
    for name, workload in (("transposed", SMALL), ("channels-last", IMAGES)):
        network = Network(workload, CHANGES[name].layout)
        CHANGES[name].before(network, 0)
        weight, bias = network.parameters[:2]
        assert weight.is_contiguous()
        assert not weight.grad.is_contiguous()
        assert bias.grad.is_contiguous()
    assert weight.grad.is_contiguous(memory_format=torch.channels_last)
    plain = Network(SMALL).parameters[0].grad
    assert torch.equal(Network(SMALL, CHANGES["transposed"].layout).parameters[0].grad, plain)


def test_some_rows_of_the_embedding_have_gradients():
    (workload,) = smaller(CHANGES["sparse"]).workloads
    network = Network(workload)
    CHANGES["sparse"].before(network, 0)
    first = network.parameters[0].grad
    CHANGES["sparse"].before(network, 1)
    assert first.is_sparse
    assert first is not network.parameters[0].grad
    assert not torch.equal(first.to_dense(), network.parameters[0].grad.to_dense())


def test_each_group_has_an_lr_of_its_own():
    change = smaller(CHANGES["groups"])
    given = changing._given(change, Network(SMALL))
    assert [len(group["params"]) for group in given] == [1] * SMALL.tensors
    assert (change.scheduled, CHANGES["groups"].workloads[0].tensors) == (True, 1000)


def test_first_steps_are_those_of_new_optimizers():
    made, ticks = [], iter(range(0, 1000, 7))

    class Once(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params)
            next(ticks)
            made.append(self)
            self.taken = 0

        def step(self):
            self.taken += 1

    contender = dataclasses.replace(contenders(cases()["sgd"])[0], make=Once)
    run = changing._first_steps(CHANGES["first-step"], contender, Network(SMALL), ticks.__next__)
    assert run(3) == 21
    assert [one.taken for one in made] == [1, 1, 1]


@EVERY
def test_everything_can_be_measured(name):
    change = smaller(CHANGES[name])
    (workload,) = change.workloads
    for case in (cases()[each] for each in change.only or USUAL):
        found = measure_change(change, workload, case, 1, turn_ns=1)
        assert (found.change, found.workload, found.case) == (name, workload.name, case.name)
        assert "torch default" in [timing.contender for timing in found.timings]
        assert found.timings[0].contender == "descend"
        assert found.best_other in found.timings[1:]
        assert "descend" not in found.wrong


def test_a_turn_is_as_long_as_the_change_needs(monkeypatch):
    asked = []
    monkeypatch.setattr(
        changing, "measure", lambda runs, rounds, turn_ns, cycle: asked.append(cycle) or {
            name: [1.0] for name in runs
        },
    )  # fmt: skip
    measure_change(CHANGES["frozen"], SMALL, cases()["sgd"], 1)
    assert asked == [20]


class Other(torch.optim.SGD):
    """Steps as no other does."""

    def step(self):
        with torch.no_grad():
            self.param_groups[0]["params"][0].add_(1)


def test_a_form_of_torchs_that_computes_other_values_is_left_out_and_named(monkeypatch):
    def with_another(case):
        ours, default, *_, last = contenders(case)
        return [ours, default, dataclasses.replace(last, make=Other)]

    monkeypatch.setattr(changing, "contenders", with_another)
    found = measure_change(CHANGES["gradients"], SMALL, cases()["sgd"], 1, turn_ns=1)
    assert found.wrong == ("torch fused",)
    assert [timing.contender for timing in found.timings] == ["descend", "torch default"]


def test_descends_are_named_too_and_stay(monkeypatch):
    def with_another(case):
        ours, *theirs = contenders(case)
        return [dataclasses.replace(ours, make=Other), *theirs]

    monkeypatch.setattr(changing, "contenders", with_another)
    found = measure_change(CHANGES["gradients"], SMALL, cases()["sgd"], 1, turn_ns=1)
    assert found.wrong == ("descend",)
    assert found.timings[0].contender == "descend"


@pytest.mark.parametrize("error", [RuntimeError, TypeError])
def test_a_form_of_torchs_that_refuses_takes_no_part_and_an_error_of_ours_is_one(
    error, monkeypatch
):
    class Refusing(torch.optim.SGD):
        def step(self):
            raise error("no")

    def refused(place):
        def with_another(case):
            found = contenders(case)
            found[place] = dataclasses.replace(found[place], make=Refusing)
            return found

        return with_another

    monkeypatch.setattr(changing, "contenders", refused(3))
    found = measure_change(CHANGES["gradients"], SMALL, cases()["sgd"], 1, turn_ns=1)
    assert [timing.contender for timing in found.timings][1:] == ["torch default", "torch foreach"]
    for place in (0, 1):
        monkeypatch.setattr(changing, "contenders", refused(place))
        with pytest.raises(error, match="no"):
            measure_change(CHANGES["gradients"], SMALL, cases()["sgd"], 1, turn_ns=1)


def test_the_parts_are_every_change_with_the_usual_optimizers_or_those_asked_for():
    def words(cases):
        parts = changing_parts([*CHANGES.values()], cases, 1)
        return [tuple(said.rsplit(", ", 2)) for said, _ in parts]

    found = words([])
    assert {about for about, _, _ in found} == {change.about for change in CHANGES.values()}
    sparse = CHANGES["sparse"].about
    assert {case for about, _, case in found if about != sparse} == {*USUAL}
    assert [case for about, _, case in found if about == sparse] == ["sgd"]
    models = {model for about, model, _ in found if about == CHANGES["experts"].about}
    assert models == {"24 tensors", "450 tensors"}
    firsts = {model for about, model, _ in found if about == CHANGES["first-step"].about}
    assert {one.replace(",", "") for one in firsts} == {"1000 tensors", "10000 tensors"}
    asked = words([cases()["nadam"]])
    assert {case for _, _, case in asked} == {"nadam"}
    assert sparse not in {about for about, _, _ in asked}


def row(change, ratio, workload="24 tensors", case="adamw", seconds=1.0, tensors=24):
    ours = Timing("descend", Spread(seconds, seconds, seconds), Spread(1.0, 1.0, 1.0))
    theirs = Timing("torch fused", Spread(2.0, 2.0, 2.0), Spread(ratio, ratio - 0.1, ratio + 0.1))
    return ChangeTimes(
        case, workload, tensors, (ours, theirs), change, change, (), change == "first-step"
    )


def measured(*rows):
    return Measurement(machine(), 1, 1.0, rows)


def test_the_slowest_of_each_size_is_judged_and_named():
    found = changing_targets(
        measured(
            row("lr", 2.0),
            row("heads", 0.95),
            row("depth", 0.5, "450 tensors"),
            row("first-step", 1.5, "1,000 tensors", seconds=0.03, tensors=1000),
            row("first-step", 1.5, "10,000 tensors", "sgd", seconds=0.1, tensors=10_000),
        )
    )
    assert [target.status for target in found] == ["met", "missed", "met", "missed"]
    assert [target.of for target in found] == [
        ("adamw, heads",), ("adamw, depth",), ("adamw, first-step",), (),
    ]  # fmt: skip
    assert found[-1].measured.median == pytest.approx(30e-6)
    assert {target.status for target in changing_targets(measured())} == {"not measured"}


@pytest.fixture
def few(monkeypatch):
    """Two changes and short turns, so that these tests are about what is told."""
    chosen = {name: smaller(CHANGES[name]) for name in ("lr", "experts", "sparse", "first-step")}
    monkeypatch.setattr("descend.bench.CHANGES", chosen)
    measure = changing.measure_change
    monkeypatch.setattr(changing, "measure_change", lambda *given: measure(*given, turn_ns=1))
    return chosen


def invoke(*arguments):
    return CliRunner().invoke(main, ["bench", *arguments], prog_name="descend")


def test_tables_show_every_change(few):
    result = invoke("--changing", "--rounds", "1", "--threads", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    for words in (
        "where something changes, 24 tensors", "2 of 8 experts are used", "sgd-momentum",
        "the same on other models", "2,000 rows", "float32, 1 round", "±",
        "what descend promises", "the slowest of all, 24 tensors", "< 20.0 us", "s a tensor",
    ):  # fmt: skip
        assert words in result.stdout, words
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_what_computes_other_values_is_told(few, monkeypatch):
    given = {"about": "new gradient tensors", "wrong": ("torch fused",)}
    wrong = dataclasses.replace(row("lr", 1.0), **given)
    monkeypatch.setattr(changing, "measure_change", lambda *_: wrong)
    result = invoke("--change", "lr", "--rounds", "1")
    assert "other values than torch's default" in result.stdout
    assert "torch fused" in result.stdout


def test_one_change_and_one_optimizer_can_be_chosen(few):
    result = invoke("--change", "experts", "--optimizer", "nadam", "--rounds", "1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    read = json.loads(result.stdout)
    assert list(read) == [
        "format", "machine", "rounds", "seconds", "changes", "interrupted", "targets",
    ]  # fmt: skip
    (one,) = read["changes"]
    assert (one["change"], one["case"], one["tensors"]) == ("experts", "nadam", 24)
    assert set(one["timings"][0]["seconds"]) == {"median", "low", "high"}
    assert one["best_other"] in {"torch default", "torch foreach"}
    assert len(read["targets"]) == 4


@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_prints_what_was_measured_before(few, monkeypatch, after):
    measure, done = changing.measure_change, []

    def until(*given):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(given)
        return measure(*given)

    monkeypatch.setattr(changing, "measure_change", until)
    result = invoke("--changing", "--rounds", "1", "--json")
    assert result.exit_code == 130
    if after:
        assert result.stderr == (
            "descend: interrupted; printed is what was measured before: 2 of 10 changes with an "
            "optimizer on a model\n"
        )
        read = json.loads(result.stdout)
        assert (read["interrupted"], len(read["changes"])) == (True, 2)
    else:
        assert result.stdout == ""
        assert result.stderr == "descend: interrupted before anything was measured\n"


def test_a_run_reports_its_parts_and_restores_the_threads(few):
    said, before = [], torch.get_num_threads()
    parts = changing_parts([few["lr"]], [], 1)
    found = measure_parts(parts, rounds=1, threads=before + 1, progress=said.append)
    assert said == [f"lr, 24 tensors, {case}" for case in USUAL]
    assert found.machine.threads == before + 1
    assert torch.get_num_threads() == before
    assert not found.interrupted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--changing", "--workload", "mlp"], "--changing and --workload exclude each other"),
        (["--change", "lr", "--steps-only"], "--changing and --steps-only exclude each other"),
        (["--changing", "a.py:B"], "--changing and FILE.py:CLASS exclude each other"),
        (
            ["--change", "expert"],
            "--change: there is no 'expert'; did you mean experts? choose from nothing, gradients",
        ),
        (["--change", "sparse", "--optimizer", "adam"], "--change sparse is measured with sgd"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, message):
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_names_every_change():
    text = " ".join(invoke("--help").stdout.split())
    assert ", ".join(CHANGES) in text.replace("- ", "-")
    assert "21 by default, 7 with --changing" in text


def test_a_change_is_one_entry():
    """A change of one's own needs no other place."""
    ones = Change("ones", "gradients of one", lambda network, step: network.use(network.blocks[:1]))
    assert measure_change(ones, SMALL, cases()["sgd"], 1, turn_ns=1).change == "ones"
