"""The measurement of trainers: who takes part, that they do the same, what is told of them."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from torch.utils.data import TensorDataset

import trainers
from children import python
from descend.bench import Spread, measure_parts
from trainer_loops import (
    BATCH,
    LIGHTNING,
    LOOPS,
    PLAIN,
    RUN,
    TRAINER,
    installed,
    silence,
)
from trainers import FIRST, MODELS, Watched, loop_parts, loop_targets, measure_loops

OURS = (PLAIN, RUN, TRAINER)


@pytest.fixture(autouse=True)
def without_the_garbage_collector(monkeypatch):
    """It takes longer than all else here."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def data(shape, batches=5):
    generator = torch.Generator().manual_seed(0)
    count = BATCH * batches
    return TensorDataset(
        torch.randn(count, *shape, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )


class Listening(torch.nn.Module):
    """A model that keeps what it was given, and counts its gradients."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, inputs):
        self.seen.append((inputs.clone(), self.training, torch.is_grad_enabled()))
        return self.net(inputs)


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_trains_one_epoch_on_all_of_the_data(name, tmp_path):
    train, package = LOOPS[name]
    pytest.importorskip(package, reason=f"{package} is not installed")
    trained, dataset = MODELS[0], data(MODELS[0].shape)
    torch.manual_seed(0)
    model = Listening(trained.make())
    before = [one.clone() for one in model.parameters()]
    with silence():
        train(model, dataset, str(tmp_path))
    assert len(model.seen) == 5
    assert all(training and grad for _, training, grad in model.seen)
    given = torch.cat([inputs for inputs, _, _ in model.seen])
    order = given.sum(1).sort().values
    torch.testing.assert_close(order, dataset.tensors[0].sum(1).sort().values)
    assert not torch.equal(given, dataset.tensors[0])  # shuffled
    # AdamW's first steps move each parameter by about lr, whatever the gradient is
    for old, new in zip(before, model.parameters(), strict=True):
        assert 1e-3 < (new - old).abs().max() < 6e-3


def test_those_take_part_that_are_installed(monkeypatch):
    monkeypatch.setattr(
        "trainer_loops.find_spec", lambda name: name in ("torch", "descend") or None
    )
    assert {TRAINER, RUN, PLAIN} < {*installed()}
    assert LIGHTNING not in installed()


def test_what_trainers_say_is_kept_away(capsys, recwarn):
    with silence():
        import warnings

        print("a tip")
        warnings.warn("another", stacklevel=1)
        logging.getLogger("lightning.pytorch").warning("a third")
    logging.getLogger("trainers").error("heard again")
    assert capsys.readouterr() == ("", "")
    assert not recwarn


class Clockwork:
    """A clock that goes on by what a step costs."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


def costing(clock, nanoseconds, around=10**9):
    def train(model, dataset, folder):
        clock.now += around
        for index in range(len(dataset) // BATCH):
            # The first steps, which take longer, are not timed
            clock.now += nanoseconds if index >= FIRST else 10**6
            model(dataset.tensors[0][:1])
        clock.now += around

    return train


def test_only_the_steps_are_timed_and_paired_with_the_others():
    clock = Clockwork()
    loops = {name: costing(clock, cost) for name, cost in zip(OURS, (500, 200, 220), strict=True)}
    loops[LIGHTNING] = costing(clock, 880)
    found = measure_loops(MODELS[0], 3, loops, turn_ns=4_000, multiple=4, clock=clock)
    rows = {one.loop: one for one in found}
    assert rows[RUN].step == Spread(2e-7, 2e-7, 2e-7)
    assert rows[TRAINER].more.median == pytest.approx(2e-8)
    assert rows[LIGHTNING].times.median == pytest.approx(4)
    assert rows[PLAIN].more.median == pytest.approx(3e-7)
    assert {one.model for one in found} == {MODELS[0].name}


def test_a_watched_model_notes_two_instants():
    clock = Clockwork()
    model = Watched(torch.nn.Identity(), (1, 3), clock)
    for number in range(5):
        clock.now = 10 * number
        model(torch.ones(1))
    assert model.instants == [10, 30]


@pytest.fixture
def few(monkeypatch):
    """Descend's loops and short turns, so that these tests are about what is told."""
    measure = trainers.measure_loops
    monkeypatch.setattr(
        trainers,
        "measure_loops",
        lambda model, rounds: measure(
            model, rounds, {name: LOOPS[name][0] for name in OURS}, turn_ns=1, multiple=1
        ),
    )


def test_what_is_promised_is_of_the_first_model(few):
    found = measure_parts(loop_parts(MODELS, 1), rounds=1)
    rows = found.of(trainers.LoopTimes)
    assert [(one.model, one.loop) for one in rows] == [
        (model.name, loop) for model in MODELS for loop in OURS
    ]
    more, times = loop_targets(found)
    assert (more.target, more.unit, more.measured) == (40e-6, "s", rows[2].more)
    assert (times.target, times.unit, times.status) == (2.5, "x", "not measured")
    theirs = replace(rows[2], loop=LIGHTNING, times=Spread(3.0, 2.9, 3.1))
    _, times = loop_targets(replace(found, found=(*rows, theirs)))
    assert times.status == "met"


def invoke(*arguments):
    return CliRunner().invoke(trainers.main, arguments, catch_exceptions=False)


def test_tables_show_every_model_and_what_is_promised(few):
    result = invoke("--rounds", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    for words in (
        "one step, MLP 64-64-10, batches of 64", "the CNN of the digits", TRAINER, PLAIN, "+0 us",
        "more than descend.Run", "what descend promises", "beside Lightning", "1 thread",
    ):  # fmt: skip
        assert words in result.stdout, words
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_json_is_one_document_and_nothing_else(few):
    result = invoke("--rounds", "1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    read = json.loads(result.stdout)
    assert len(read["loops"]) == 6
    assert set(read["loops"][0]) == {"model", "loop", "step", "more", "times"}
    assert [target["unit"] for target in read["targets"]] == ["s", "x"]


def test_ctrl_c_prints_the_models_measured_before(few, monkeypatch):
    measure = trainers.measure_loops

    def once(model, rounds):
        if model == MODELS[1]:
            raise KeyboardInterrupt
        return measure(model, rounds)

    monkeypatch.setattr(trainers, "measure_loops", once)
    result = invoke("--rounds", "1")
    assert result.exit_code == 130
    assert "MLP 64-64-10" in result.stdout
    assert "the CNN" not in result.stdout


def test_the_script_runs_by_itself_and_its_help_teaches():
    done = python(trainers.__file__, "--help")
    for words in ("Lightning", "default: 11", "--json", "timed from the inside"):
        assert words in " ".join(done.stdout.split()), words
