"""Odd but honest scripts, and odd surroundings: each goes on bit for bit, or is told why not."""

import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

import descend
from children import python
from descend.checkpoint import load, save, series
from descend.errors import CheckpointError, ResumeWarning, RunError
from run.small import (
    BATCH,
    Parts,
    X,
    assert_exact,
    end_of,
    loader,
    log_of,
    mse,
    plain_parts,
    process,
    steps_of,
    surroundings,  # noqa: F401
)

STRIDE = 3  # so that each process takes some steps after the first


def parts_of(train, optimizer=torch.optim.SGD, model=None, **options):
    """A model, its optimizer, and a loop's body `train(run, model, optimizer, batch)`."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1) if model is None else model()
    optimizer = optimizer(model.parameters(), **{"lr": 0.05} | options)

    def body(run, batch):
        run.log(loss=train(run, model, optimizer, batch))

    return Parts({"model": model, "optimizer": optimizer}, body)


def backward(model, batch):
    loss = mse(model, *batch)
    loss.backward()
    return loss


def accumulating(run, model, optimizer, batch):
    """A step for each three batches."""
    loss = backward(model, batch)
    if run.step % 3 == 0:
        optimizer.step()
        optimizer.zero_grad()
    return loss


# What a script does before it asks for a batch


def test_p43_zero_grad_before_the_loop_of_an_accumulation():
    def make():
        parts = parts_of(accumulating)
        parts.before = lambda run: parts.objects["optimizer"].zero_grad()
        return parts

    assert_exact(make, stride=STRIDE)


def test_p43_zero_grad_before_the_loop_and_a_save_there(tmp_path):
    process(tmp_path, lambda: parts_of(accumulating), die=3)
    parts = parts_of(accumulating)
    run = descend.Run(tmp_path, loader=loader(), seed=3, epochs=2, **parts.objects)
    run.save()
    first, again = (load(path) for path in series.checkpoints(tmp_path / "checkpoints")[-2:])
    assert descend.checkpoint.diff(first["run"]["gradients"], again["run"]["gradients"]) == []
    assert first["run"]["gradients"]["optimizer"][0]["values"].any()


def zeroing(run, model, optimizer):
    optimizer.zero_grad()


def training(run, model, optimizer):
    model.train()


def drawing(run, model, optimizer):
    torch.rand(1)
    np.random.rand()
    random.random()


def frozen_statistics(run, model, optimizer, batch):
    loss = backward(model, batch)
    optimizer.step()
    optimizer.zero_grad()
    if run.step % 4 == 2:
        model[1].eval()
    return loss


def with_noise(run, model, optimizer, batch):
    x, y = batch
    loss = backward(model, (x + torch.rand_like(x) + random.random() + np.random.rand(), y))
    optimizer.step()
    optimizer.zero_grad()
    return loss


def normalized():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def nested(folder, head, train, die):
    """One process of a loop in a loop."""
    parts = parts_of(train, model=normalized)
    run = descend.Run(folder, loader=loader(), epochs=2, every_steps=1, keep=99, **parts.objects)
    for batches in run.epochs():
        head(run, *parts.objects.values())
        for batch in batches:
            if run.step == die:
                return
            parts.body(run, batch)


@pytest.mark.parametrize(
    ("head", "train"),
    [(zeroing, accumulating), (training, frozen_statistics), (drawing, with_noise)],
    ids=["gradients", "modes", "random numbers"],
)
def test_p43_what_stands_before_the_inner_loop_changes_nothing_in_mid_epoch(tmp_path, head, train):
    nested(tmp_path / "whole", head, train, None)
    for die in (2, 4, 7):
        nested(tmp_path / "chain", head, train, die)
    nested(tmp_path / "chain", head, train, None)
    assert end_of(tmp_path / "chain") == end_of(tmp_path / "whole")


# Which gradients wait, and how they come back


class Counting(torch.optim.SGD):
    """An optimizer that accumulates by itself: every second call is a step."""

    calls = 0

    def step(self, closure=None):
        self.calls += 1
        if self.calls % 2 == 0:
            super().step()
            self.zero_grad()

    def state_dict(self):
        return {**super().state_dict(), "calls": self.calls}

    def load_state_dict(self, state_dict):
        state = dict(state_dict)
        self.calls = state.pop("calls")
        super().load_state_dict(state)


def test_p43_an_optimizer_whose_step_only_counts_half_of_the_time():
    def train(run, model, optimizer, batch):
        loss = backward(model, batch)
        optimizer.step()
        return loss

    assert_exact(lambda: parts_of(train, Counting, momentum=0.9))


@pytest.mark.parametrize(
    "order",
    [
        ["first", "second"],
        ["second", "first"],
    ],
)
def test_p43_two_optimizers_over_the_same_parameters(order):
    def make():
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        first = torch.optim.SGD(model.parameters(), lr=0.05)
        second = torch.optim.Adam(model.parameters(), lr=0.01)

        def body(run, batch):
            if run.step > 1:
                second.step()
                second.zero_grad()
            backward(model, batch)
            first.step()

        both = {"first": first, "second": second}
        return Parts({"model": model} | {name: both[name] for name in order}, body)

    assert_exact(make)


def test_p43_gradients_that_are_views_of_one_buffer():
    def make():
        buffer = torch.zeros(4)

        def train(run, model, optimizer, batch):
            loss = backward(model, batch)
            optimizer.step()
            buffer.zero_()
            return loss

        parts = parts_of(train)
        model = parts.objects["model"]
        model.weight.grad, model.bias.grad = buffer[:3].view(1, 3), buffer[3:]
        return parts

    assert_exact(make, stride=STRIDE)


def test_p43_gradients_made_by_hand_in_inference_mode():
    def train(run, model, optimizer, batch):
        with torch.inference_mode():
            for parameter in model.parameters():
                parameter.grad = parameter * batch[0].mean()
        optimizer.step()
        return 0.0

    assert_exact(lambda: parts_of(train), stride=STRIDE)


def test_p43_expanded_gradients_that_wait():
    def train(run, model, optimizer, batch):
        if run.step > 1:
            optimizer.step()
        for parameter in model.parameters():
            parameter.grad = batch[0].mean().expand_as(parameter)
        return 0.0

    assert_exact(lambda: parts_of(train), stride=STRIDE)


@pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="gradients have their parameter's dtype"
)
def test_p43_gradients_of_another_dtype_than_their_parameters():
    def make():
        def train(run, model, optimizer, batch):
            loss = backward(model, (batch[0].bfloat16(), batch[1]))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(0.05 * parameter.grad)
            optimizer.zero_grad(set_to_none=False)
            return loss

        parts = parts_of(train, model=lambda: nn.Linear(3, 1, dtype=torch.bfloat16))
        for parameter in parts.objects["model"].parameters():
            parameter.grad_dtype = torch.float32
        return parts

    assert_exact(make, stride=STRIDE)


def two_tables():
    return nn.ModuleList([nn.Embedding(5, 2, sparse=True), nn.Embedding(5, 2, sparse=True)])


def looked_up(model, batch):
    """A loss of some rows."""
    return model((2 * batch[0].sum(1).abs()).long() % 5).square().mean()


def test_p43_sparse_gradients_that_are_set_to_zero_and_not_used_in_each_batch():
    def train(run, model, optimizer, batch):
        optimizer.zero_grad(set_to_none=False)
        loss = looked_up(model[0], batch)
        if run.step % 2:
            loss = loss + looked_up(model[1], batch)
        loss.backward()
        optimizer.step()
        return loss

    assert_exact(lambda: parts_of(train, torch.optim.SparseAdam, two_tables), stride=STRIDE)


def test_p43_sparse_gradients_that_wait_come_back_without_a_warning():
    def train(run, model, optimizer, batch):
        loss = looked_up(model[0], batch) + looked_up(model[1], batch)
        loss.backward()
        if run.step % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        assert_exact(lambda: parts_of(train, torch.optim.SparseAdam, two_tables), stride=STRIDE)
    finally:
        torch.set_warn_always(before)


class NoOptimizer:
    """Around an optimizer, and none itself."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict):
        self.optimizer.load_state_dict(state_dict)


def test_an_optimizer_that_another_object_holds_since(tmp_path):
    process(tmp_path, plain_parts, die=3)

    def make():
        parts = plain_parts()
        parts.objects["optimizer"] = NoOptimizer(parts.objects["optimizer"])
        return parts

    with pytest.warns(ResumeWarning, match="optimizer descend.SGD there, run.NoOptimizer here"):
        assert process(tmp_path, make).is_over


@pytest.mark.parametrize(
    "options",
    [{"every_steps": None, "every_minutes": 1e-9}, {"every_steps": 3}, {"background": False}],
    ids=["each instant", "each third step", "not in the background"],
)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_p43_zero_grad_at_the_start_and_saves_asked_for_around_the_step(options, set_to_none):
    def train(run, model, optimizer, batch):
        if run.step % 2:
            optimizer.zero_grad(set_to_none=set_to_none)
        loss = backward(model, batch)
        if run.step == 3:
            run.save()
        if run.step % 2 == 0:
            optimizer.step()
        if run.step == 5:
            run.save()
        return loss

    assert_exact(lambda: parts_of(train), stride=2, **options)


# Modes


class Normed(nn.Module):
    """A parametrized layer, tied weights, and statistics that its own `train` leaves alone."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
        self.norm = nn.BatchNorm1d(4)
        self.last, self.tied = nn.Linear(4, 1), nn.Linear(4, 1)
        self.tied.weight = self.last.weight

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.tied(self.norm(self.first(x)))


def test_p44_frozen_and_evaluating_parts_of_every_kind():
    def train(run, model, optimizer, batch):
        if run.step == 2:
            model[0].first.requires_grad_(False)
        if run.step == 4:
            model[0].norm.train()
        if run.step == 6:
            model[0].last.requires_grad_(False)
        optimizer.zero_grad()
        loss = backward(model, batch)
        optimizer.step()
        return loss

    assert_exact(lambda: parts_of(train, model=lambda: nn.Sequential(Normed().train())), stride=2)


def test_a_checkpoint_of_before_modes_were_saved_goes_on(tmp_path):
    process(tmp_path, plain_parts, die=3)
    newest = series.checkpoints(tmp_path / "checkpoints")[-1]
    state = load(newest)
    del state["run"]["modes"]
    save(newest, state)
    run = process(tmp_path, plain_parts)
    assert run.resumed_from == newest
    assert run.is_over


# A second loader


class Says(Sampler):
    """A sampler that gives 12 indices, whatever it says."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(torch.randperm(12).tolist())

    def __len__(self):
        return self.count


@pytest.mark.parametrize("count", [10, 12, 14])
def test_p43_a_second_loader_whose_sampler_miscounts(count):
    def make():
        sampler = Says(count)
        second = descend.ResumableLoader(DataLoader(X, BATCH, sampler=sampler), seed=5)
        under_way = [iter(second)]

        def log_extra(run):
            try:
                extra = next(under_way[0])
            except StopIteration:
                under_way[0] = iter(second)
                extra = next(under_way[0])
            run.log(extra=extra.sum())

        parts = plain_parts(after_step=log_extra)
        parts.objects["second"] = second
        return parts

    assert_exact(make, stride=STRIDE)


def test_p43_a_loader_that_is_put_back_in_the_body_of_its_last_batch():
    batches = descend.ResumableLoader(loader(shuffle=False), seed=1)
    saved = {**batches.state_dict(), "position": 1}
    for number, _ in enumerate(batches, start=1):
        if number == len(batches):
            batches.load_state_dict(saved)
    assert batches.state_dict() == saved


IN_A_PROCESS = """
import multiprocessing, sys, torch, descend
from multiprocessing.util import Finalize
from descend.run import loader as loaders
from torch.utils.data import DataLoader

loaders.GRACE = 1

def main():
    loader = DataLoader(torch.ones(12, 3), 4, num_workers=1, persistent_workers={persistent})
    global run
    run = descend.Run(sys.argv[1], model=torch.nn.Linear(3, 1), loader=loader)
    for batches in run.epochs():
        for batch in batches:
            workers = multiprocessing.active_children()
            # Below 0: when daemons have been ended
            Finalize(None, lambda: print([one.exitcode for one in workers]), exitpriority=-1)
            {body}

if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    process.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("persistent", "body"),
    [(True, "pass"), (False, "raise ValueError('mine')")],
    ids=["persistent workers", "an error in a function"],
)
def test_a_training_in_a_process_of_multiprocessing_ends_its_workers(tmp_path, persistent, body):
    script = tmp_path / "script.py"
    script.write_text(IN_A_PROCESS.format(persistent=persistent, body=body))
    done = python(script, tmp_path / "run", timeout=60)
    assert "[0]" in done.stdout  # and not killed by SIGALRM, when the grace was over


# What is no damage


def test_a_checkpoint_whose_folder_must_not_be_entered_is_no_damage(tmp_path, monkeypatch):
    process(tmp_path, plain_parts, die=3)
    closed = series.checkpoints(tmp_path / "checkpoints")[-1]
    opening, lstat = os.open, os.lstat

    def refuse(path):
        if Path(path).parent == closed:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", lambda path, *how: refuse(path) or opening(path, *how))
    monkeypatch.setattr(os, "lstat", lambda path, **how: refuse(path) or lstat(path, **how))
    with pytest.raises(CheckpointError, match="no damage"):
        load(tmp_path)


def test_a_folder_that_may_be_listed_and_not_entered_is_a_clear_error(tmp_path, monkeypatch):
    process(tmp_path, plain_parts, die=3)
    is_dir = Path.is_dir

    def refuse(path):
        if path.parent.name == series.FOLDER:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(CheckpointError, match="cannot look into"):
        series.checkpoints(tmp_path / series.FOLDER)


def test_all_checkpoints_replaced_while_they_are_listed(tmp_path, monkeypatch):
    save(tmp_path / "step-00000001", {"step": 1})
    iterdir, listed = Path.iterdir, []

    def replaced_meanwhile(path):
        found = list(iterdir(path))
        if path == tmp_path and not listed:
            listed.extend(found)
            save(tmp_path / "step-00000002", {"step": 2})
            series.prune(tmp_path, 1, None)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", replaced_meanwhile)
    assert load(tmp_path) == {"step": 2}


# Two runs, and what they are called


def run_of(folder, **options):
    return descend.Run(folder, loader=loader(), every_steps=1, **plain_parts().objects, **options)


def test_a_run_that_is_refused_leaves_the_one_before_as_it_was(tmp_path):
    run = run_of(tmp_path)
    next(iter(run))
    with pytest.raises(RunError, match="give the same objects"):
        descend.Run(tmp_path, loader=loader(), model=nn.Linear(3, 1))
    run.log(loss=1.0)
    assert b"1.0" in log_of(tmp_path)


def test_the_loop_of_an_older_run_saves_no_more(tmp_path):
    batches = iter(run_of(tmp_path))
    next(batches)
    newer = run_of(tmp_path)
    with pytest.raises(RunError, match="another Run"):
        next(batches)
    assert newer.step == 0
    assert steps_of(tmp_path) == [0]


def test_a_script_that_changes_its_directory_in_the_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    run = run_of("mine")
    for _ in run:
        os.chdir(tmp_path / "elsewhere")
        run.log(loss=1.0)
    assert steps_of(tmp_path / "mine") == [2, 3, 4]


def test_a_link_that_points_elsewhere_later(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    latest = tmp_path / "latest"
    latest.symlink_to(tmp_path / "one")
    first = run_of(latest)
    latest.unlink()
    latest.symlink_to(tmp_path / "other")
    run_of(latest)
    first.log(loss=1.0)
    assert log_of(tmp_path / "one")
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["loader_rng", "seeds"])
def test_a_generator_whose_name_is_like_an_arguments(tmp_path, name):
    run = run_of(tmp_path, **{name: torch.Generator()})
    assert name in run.objects


def test_groups_added_on_the_way_and_again_before_the_run_is_made():
    def make_chain(folder, die):
        parts = parts_of(
            lambda run, model, optimizer, batch: None,
            model=lambda: nn.ModuleList([nn.Linear(3, 1)]),
        )
        model, optimizer = parts.objects.values()
        extra = nn.Linear(3, 1)
        model.append(extra.requires_grad_(False))

        def add():
            extra.requires_grad_(True)
            optimizer.add_param_group({"params": list(extra.parameters()), "lr": 0.01})

        if folder.exists() and load(folder, parts=["run"])["run"]["step"] >= 4:
            add()
        run = descend.Run(folder, loader=loader(), epochs=2, every_steps=1, **parts.objects)
        for batch in run:
            if run.step == die:
                return
            if run.step == 4:
                add()
            optimizer.zero_grad()
            loss = mse(model[0], *batch) + mse(model[1], *batch)
            loss.backward()
            optimizer.step()
            run.log(loss=loss)

    with tempfile.TemporaryDirectory() as top:
        whole, chain = Path(top) / "whole", Path(top) / "chain"
        make_chain(whole, None)
        for die in (3, 5, 7, None):
            make_chain(chain, die)
        assert load(chain)["run"]["step"] == 8
        models = [load(folder, parts=["model", "optimizer"]) for folder in (whole, chain)]
        assert descend.checkpoint.diff(*models) == []
        assert log_of(chain) == log_of(whole)
