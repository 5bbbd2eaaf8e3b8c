"""descend.Run: the bits of a run that was never interrupted, in all the loops people write."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import descend
from children import python
from descend import swa_utils
from descend.errors import CheckpointError, ResumeWarning, RunError
from run.small import (
    BATCH,
    SAMPLES,
    STEPS,
    Augmented,
    Parts,
    X,
    Y,
    assert_exact,
    end_of,
    loader,
    log_of,
    mse,
    plain_parts,
    process,
    steps_of,
    surroundings,  # noqa: F401 - a fixture
)

MODULES = {"descend": descend, "torch": torch.optim}


def network(*, dropout=0.3):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 5),
        torch.nn.BatchNorm1d(5),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(5, 1),
    )


def plain_sgd(**more):
    """The network and an SGD without a state of its own."""
    model = network()
    optimizer = descend.SGD(model.parameters(), lr=0.1)
    return Parts({"model": model, "optimizer": optimizer}, stepping(model, optimizer), **more)


def stepping(model, optimizer, schedule=None):
    def body(run, batch):
        loss = mse(model, *batch)
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        optimizer.zero_grad()
        run.log(loss=loss, lr=float(optimizer.param_groups[0]["lr"]))

    return body


# --- exactness -------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_p43_dropout_batchnorm_and_augmentation_go_on_with_the_very_next_batch(background, workers):
    def make():
        model = network()
        optimizer = descend.AdamW(model.parameters(), lr=0.01)
        schedule = descend.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS)
        objects = {"model": model, "optimizer": optimizer, "schedule": schedule}
        data = DataLoader(Augmented(), BATCH, shuffle=True, num_workers=workers)
        return Parts(objects, stepping(model, optimizer, schedule), loader=data)

    stride = 3 if workers else 1  # workers take 50 ms to start
    assert_exact(make, background=background, stride=stride)


TORCH_SCHEDULES = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5),
    "multi": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5]),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "cycle": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.001, 0.1, 3, cycle_momentum=False),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS),
    "restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [3],
    ),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_f1_torchs_own_optimizers_and_schedulers_go_on(name):
    def make():
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        schedule = TORCH_SCHEDULES[name](optimizer)
        objects = {"model": model, "optimizer": optimizer, "schedule": schedule}
        return Parts(objects, stepping(model, optimizer, schedule))

    assert_exact(make, stride=2)


@pytest.mark.parametrize("zero", ["at the top", "at the end"])
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("library", MODULES)
def test_p43_an_accumulation_goes_on_in_mid_way(library, zero, set_to_none):
    def make():
        model = network()
        optimizer = MODULES[library].Adam(model.parameters(), lr=0.01)

        def body(run, batch):
            if zero == "at the top" and run.step % 3 == 1:
                optimizer.zero_grad(set_to_none=set_to_none)
            (mse(model, *batch) / 3).backward()
            if run.step % 3 == 0:
                optimizer.step()
                if zero == "at the end":
                    optimizer.zero_grad(set_to_none=set_to_none)

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


class Branches(torch.nn.Module):
    """A model, half of which is used in every other batch only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
        self.both = True

    def forward(self, x):
        return self.always(x) + (self.sometimes(x) if self.both else 0)


@pytest.mark.parametrize("zero", ["at the top", "at the end"])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_p44_a_branch_without_gradients_goes_on_as_zero_grad_left_it(set_to_none, zero):
    def make():
        model = Branches()
        optimizer = descend.Adam(model.parameters(), lr=0.01)

        def body(run, batch):
            model.both = run.step % 2 == 1
            if zero == "at the top":
                optimizer.zero_grad(set_to_none=set_to_none)
            mse(model, *batch).backward()
            optimizer.step()
            if zero == "at the end":
                optimizer.zero_grad(set_to_none=set_to_none)

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


@pytest.mark.parametrize(
    "optimizer_class", [descend.AdamW, torch.optim.AdamW, descend.Muon, descend.SOAP]
)
def test_p44_channels_last_goes_on_in_the_middle_of_an_accumulation(optimizer_class):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)
        ).to(memory_format=torch.channels_last)
        optimizer = optimizer_class(model.parameters(), lr=0.01)

        def body(run, batch):
            images = batch[0].to(memory_format=torch.channels_last)
            model(images).square().mean().backward()
            if run.step % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()

        images = torch.randn(SAMPLES, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        data = DataLoader(TensorDataset(images), BATCH, shuffle=True)
        return Parts({"model": model, "optimizer": optimizer}, body, loader=data)

    assert_exact(make)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("library", MODULES)
@pytest.mark.parametrize("kind", ["SGD", "SparseAdam"])
def test_p43_sparse_gradients_wait_for_their_step(library, kind):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Embedding(9, 2, sparse=True), torch.nn.Flatten(), torch.nn.Unflatten(1, (6,))
        )
        optimizer = getattr(MODULES[library], kind)(model.parameters(), lr=0.1)

        def body(run, batch):
            rows = (batch[0] * 3).long().clamp(-4, 4) + 4
            (model(rows).sum(1, keepdim=True) - batch[1]).square().mean().backward()
            if run.step % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


def test_p44_two_optimizers_as_a_gan_has_them():
    def make():
        torch.manual_seed(0)
        g, d = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
        g_optimizer = descend.Adam(g.parameters(), lr=0.01, betas=(0.5, 0.999))
        d_optimizer = descend.RMSprop(d.parameters(), lr=0.01)

        def body(run, batch):
            fake = g(torch.randn(len(batch[0]), 2))
            d_optimizer.zero_grad()
            (d(fake.detach()).mean() - d(batch[0]).mean()).backward()
            d_optimizer.step()
            if run.step % 2 == 0:
                g_optimizer.zero_grad()
                (-d(fake).mean()).backward()  # leaves gradients in d too
                g_optimizer.step()
            run.log(fake=fake.sum())

        return Parts({"g": g, "d": d, "g_optimizer": g_optimizer, "d_optimizer": d_optimizer}, body)

    assert_exact(make)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("scale", [1024.0, 2.0**127])
def test_p44_a_grad_scaler_and_the_steps_that_it_skips(scale):
    def make():
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)

        def body(run, batch):
            with torch.autocast("cpu", torch.bfloat16):
                loss = mse(model, *batch)
            scaler.scale(loss / 2).backward()
            if run.step % 2 == 0:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            run.log(loss=loss, scale=scaler.get_scale())

        return Parts({"model": model, "optimizer": optimizer, "scaler": scaler}, body)

    assert_exact(make)


def test_p44_averages_of_the_weights():
    def make():
        model = network()
        optimizer = descend.NAdam(model.parameters(), lr=0.01)
        ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        swa = swa_utils.AveragedModel(model)
        swalr = swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)

        def body(run, batch):
            mse(model, *batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update_parameters(model)

        def after(run):
            swa.update_parameters(model)
            swalr.step()
            run.log(lr=optimizer.param_groups[0]["lr"])

        objects = {"model": model, "optimizer": optimizer, "ema": ema, "swa": swa, "swalr": swalr}
        return Parts(objects, body, after)

    assert_exact(make)


@pytest.mark.parametrize("library", ["descend", "torch"])
def test_p44_a_plateau_and_a_validation_after_each_epoch(library):
    home = {"descend": descend.lr_scheduler, "torch": torch.optim.lr_scheduler}[library]

    def make():
        model = network()
        optimizer = MODULES[library].SGD(model.parameters(), lr=0.5, momentum=0.9)
        plateau = home.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)

        def body(run, batch):
            model.train()
            mse(model, *batch).backward()
            optimizer.step()
            optimizer.zero_grad()

        def after(run):
            model.eval()
            with torch.no_grad():
                loss = mse(model, X, Y).item()
            plateau.step(loss)
            run.log(validation=loss, lr=optimizer.param_groups[0]["lr"], ends=run.ends_epoch)

        objects = {"model": model, "optimizer": optimizer, "plateau": plateau}
        return Parts(objects, body, after)

    assert_exact(make)


@pytest.mark.parametrize("library", MODULES)
def test_p44_lbfgs_with_its_closure(library):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        optimizer = MODULES[library].LBFGS(
            model.parameters(), max_iter=3, history_size=3, line_search_fn="strong_wolfe"
        )

        def body(run, batch):
            def closure():
                optimizer.zero_grad()
                loss = mse(model, *batch)
                loss.backward()
                return loss

            run.log(loss=optimizer.step(closure))

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


@pytest.mark.parametrize("library", MODULES)
@pytest.mark.parametrize("kind", ["SGD", "Adam", "Adafactor"])
def test_p44_frozen_layers_tied_weights_groups_and_a_learning_rate_in_a_tensor(library, kind):
    tensor_lr = kind != "Adafactor"

    def make():
        torch.manual_seed(0)
        model = torch.nn.ModuleDict(
            {
                "in": torch.nn.Linear(3, 3),
                "tied": torch.nn.Linear(3, 3),
                "out": torch.nn.Linear(3, 1),
            }
        )
        model["tied"].weight = model["in"].weight
        model["out"].bias.requires_grad_(False)
        groups = [
            {"params": [*model["in"].parameters(), model["tied"].bias]},
            {"params": [*model["out"].parameters()], "lr": 0.02, "weight_decay": 0.1},
        ]
        lr = torch.tensor(0.03) if tensor_lr and library == "torch" else 0.03
        optimizer = getattr(MODULES[library], kind)(groups, lr=lr)

        def body(run, batch):
            out = model["out"](model["tied"](model["in"](batch[0])).tanh())
            loss = (out - batch[1]).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if torch.is_tensor(lr):
                optimizer.param_groups[0]["lr"].mul_(0.9)
            else:
                optimizer.param_groups[0]["lr"] *= 0.9
            run.log(loss=loss)

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


@pytest.mark.parametrize("kind", ["AdamW", "Lion", "Muon", "SOAP"])
def test_p44_bfloat16_parameters(kind):
    def make():
        model = network().bfloat16()
        parameters = (
            [p for p in model.parameters() if p.dim() == 2]
            if kind == "Muon"
            else model.parameters()
        )
        optimizer = getattr(descend, kind)(parameters, lr=0.01)

        def body(run, batch):
            loss = mse(model, batch[0].bfloat16(), batch[1])
            loss.backward()
            optimizer.step()
            model.zero_grad()
            run.log(loss=loss)

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


def test_a_group_added_on_the_way_is_added_again_by_who_looks_at_the_run_first(tmp_path):
    """A group must be there before the state is: the checkpoint's step tells."""

    def make(folder):
        model = network()
        optimizer = descend.SGD(model[0].parameters(), lr=0.05, momentum=0.9)

        def unfreeze():
            optimizer.add_param_group({"params": [*model[4].parameters()], "lr": 0.01})

        def body(run, batch):
            if run.step == 4:
                unfreeze()
            mse(model, *batch).backward()
            optimizer.step()
            model.zero_grad()

        try:
            saved = descend.checkpoint.load(folder, parts=["run"])["run"]["step"]
        except CheckpointError:
            saved = 0
        if saved >= 4:
            unfreeze()
        return Parts({"model": model, "optimizer": optimizer}, body)

    process(tmp_path / "whole", lambda: make(tmp_path / "whole"))
    for step in range(2, STEPS + 1):
        process(tmp_path / "chain", lambda: make(tmp_path / "chain"), die=step)
    process(tmp_path / "chain", lambda: make(tmp_path / "chain"))
    assert end_of(tmp_path / "chain")[0] == end_of(tmp_path / "whole")[0]


def test_a_group_that_is_not_there_yet_is_refused_and_nothing_changes(tmp_path):
    def make(both):
        model = network()
        optimizer = descend.SGD(model[0].parameters(), lr=0.05)
        if both:
            optimizer.add_param_group({"params": [*model[4].parameters()]})
        return Parts({"model": model, "optimizer": optimizer}, stepping(model, optimizer))

    process(tmp_path, lambda: make(True), die=3)
    before = end_of(tmp_path)
    parts = make(False)
    model = copy.deepcopy(parts.objects["model"].state_dict())
    with pytest.raises(RunError, match="cannot restore optimizer"):
        descend.Run(tmp_path, loader=loader(), seed=3, epochs=2, **parts.objects)
    assert all(torch.equal(v, model[k]) for k, v in parts.objects["model"].state_dict().items())
    assert end_of(tmp_path) == before


@pytest.mark.parametrize(
    "die", [*(pytest.param(step, marks=pytest.mark.slow) for step in (2, 4, 5, 8)), 7]
)
def test_f2_a_process_that_is_gone_at_once(tmp_path, die):
    """os._exit: no finally, no waiting for the save under way."""
    script = (
        "import os, sys; from run.small import plain_parts, process\n"
        "def die(run):\n"
        "    if run.step == int(sys.argv[2]): os._exit(9)\n"
        "process(sys.argv[1], lambda: plain_parts(after_step=die))\n"
    )
    tests = str(Path(__file__).parents[1])
    source = str(Path(descend.__file__).parents[1])
    environment = {"PYTHONPATH": os.pathsep.join([tests, source]), "OMP_NUM_THREADS": "1"}
    python("-c", script, tmp_path / "killed", die, status=9, environment=environment)
    run = process(tmp_path / "killed", plain_parts)
    assert run.resumed_from is not None
    process(tmp_path / "whole", plain_parts)
    assert end_of(tmp_path / "killed") == end_of(tmp_path / "whole")


@pytest.mark.slow  # the chains of deaths go through the same
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_p43_each_step_alone(tmp_path, step):
    process(tmp_path / "whole", plain_parts)
    process(tmp_path / "one", plain_parts, die=step)
    process(tmp_path / "one", plain_parts)
    assert end_of(tmp_path / "one") == end_of(tmp_path / "whole")


@pytest.mark.parametrize("every", [2, 3, 5])
def test_p43_what_was_done_after_the_newest_checkpoint_is_done_again(tmp_path, every):
    process(tmp_path / "whole", plain_parts)
    for step in (4, 4, 7, 8):
        process(tmp_path / "many", plain_parts, die=step, every_steps=every)
    process(tmp_path / "many", plain_parts, every_steps=every)
    assert end_of(tmp_path / "many") == end_of(tmp_path / "whole")


def test_it_is_the_plain_loop_with_a_dataloader_of_the_same_order(tmp_path):
    run = process(tmp_path, plain_parts)
    parts = plain_parts()
    order = descend.ResumableLoader(loader(), seed=3)
    for _ in range(2):
        for batch in order:
            mse(parts.objects["model"], *batch).backward()
            parts.objects["optimizer"].step()
            parts.objects["optimizer"].zero_grad()
    for mine, plain in zip(
        run.objects["model"].parameters(), parts.objects["model"].parameters(), strict=True
    ):
        assert torch.equal(mine, plain)


# --- the loop ----------------------------------------------------------------------------------


def test_a_break_leaves_the_loop_and_iterating_again_goes_on_with_the_next_batch(tmp_path):
    process(tmp_path / "whole", plain_parts)
    parts = plain_parts()
    run = descend.Run(tmp_path / "mine", loader=loader(), seed=3, epochs=2, **parts.objects)
    for batch in run:
        parts.body(run, batch)
        if run.step in (3, 4):  # in mid-epoch, and at its end
            break
    assert (run.step, run.loader.position, run.is_over) == (3, 3, False)
    for batch in run:
        parts.body(run, batch)
        if run.step == 4:
            break
    for batch in run:
        parts.body(run, batch)
    assert run.step == STEPS
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


def test_a_break_out_of_an_epoch_goes_to_the_next_one(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=3)
    seen = []
    for batches in run.epochs():
        for _ in batches:
            seen.append((run.epoch, run.step))
            if len(seen) % 2 == 0:
                break
    assert seen == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]
    assert run.is_over


def test_epochs_that_are_not_iterated_over_are_over(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=3)
    assert sum(1 for _ in run.epochs()) == 3
    assert (run.step, run.is_over) == (0, True)
    assert descend.Run(tmp_path, loader=loader(), epochs=3).is_over


def test_an_exception_in_the_body_leaves_a_run_that_goes_on_from_the_newest_checkpoint(tmp_path):
    process(tmp_path / "whole", plain_parts)

    def failing(run):
        if run.step == 6:
            raise ZeroDivisionError("in the body")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            process(tmp_path / "mine", lambda: plain_parts(before_step=failing), every_steps=2)
    assert steps_of(tmp_path / "mine")[-1] == 4
    process(tmp_path / "mine", plain_parts, every_steps=2)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_an_exception_in_the_nested_body_and_on_in_the_same_process(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=2)
    seen = []

    def go_on():
        for batches in run.epochs():
            for _ in batches:
                seen.append((run.epoch, run.step, run.loader.position))
                if run.step == 2 and len(seen) == 2:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        go_on()
    go_on()
    assert [step for _, step, _ in seen] == list(range(1, STEPS + 1))
    assert [position for *_, position in seen] == [0, 1, 2, 3] * 2


def test_two_loops_at_once_are_refused_and_the_first_goes_on(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=2)
    for _ in run:
        with pytest.raises(RunError, match="iterated over already"):
            next(iter(run))
        with pytest.raises(RunError, match="iterated over already"):
            next(run.epochs())
    assert run.step == STEPS


def test_iterating_over_a_finished_run_gives_nothing(tmp_path):
    parts = plain_parts()
    run = descend.Run(tmp_path, loader=loader(), **parts.objects)
    assert len(list(run)) == 4
    assert list(run) == []
    before = end_of(tmp_path)
    again = descend.Run(tmp_path, loader=loader(), **plain_parts().objects)
    assert again.is_over
    assert list(again) == []
    assert list(again.epochs()) == []
    assert again.step == 4
    assert end_of(tmp_path) == before


def test_more_epochs_go_on_from_the_end_and_are_those_of_one_long_run(tmp_path):
    for epochs in (1, 2, 3):
        process(tmp_path / "grown", plain_parts, epochs=epochs)
    process(tmp_path / "whole", plain_parts, epochs=3)
    assert end_of(tmp_path / "grown") == end_of(tmp_path / "whole")


def test_fewer_epochs_than_were_done_are_over(tmp_path):
    process(tmp_path, plain_parts, epochs=3)
    run = process(tmp_path, plain_parts, epochs=2)
    assert run.is_over
    assert run.step == 12


def test_one_batch_epochs(tmp_path):
    def make():
        parts = plain_parts()
        parts.loader = loader(batch_size=SAMPLES)
        return parts

    process(tmp_path / "whole", make, epochs=5)
    for step in range(2, 6):
        process(tmp_path / "many", make, epochs=5, die=step)
    run = process(tmp_path / "many", make, epochs=5)
    assert run.step == 5
    assert end_of(tmp_path / "many") == end_of(tmp_path / "whole")


def test_ends_epoch_is_epoch_and_repr_say_where_it_stands(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), epochs=2)
    assert repr(run) == f"Run({str(tmp_path)!r}: step 0, epoch 1 of 2, 0 of 4 batches done)"
    seen = [(run.epoch, run.ends_epoch, run.is_over) for _ in run]
    assert seen == [(1, False, False)] * 3 + [(1, True, False)] + [(2, False, False)] * 3 + [
        (2, True, False)
    ]
    assert repr(run) == f"Run({str(tmp_path)!r}: step 8, over)"


def stopping(at):
    """Parts whose run stops in the body of a step."""

    def stop(run):
        if run.step == at:
            run.stop()

    return plain_parts(after_step=stop)


def test_stop_in_the_flat_loop_ends_the_run_for_good(tmp_path):
    def make():
        return stopping(6)

    run = process(tmp_path, make, every_steps=None)
    assert (run.step, run.is_over) == (6, True)
    assert steps_of(tmp_path)[-1] == 6
    again = process(tmp_path, make)
    assert (again.step, again.is_over) == (6, True)
    assert log_of(tmp_path).count(b"\n") == 6


@pytest.mark.parametrize("at", [5, 8])
def test_stop_in_an_epoch_comes_after_the_epochs_own_body(tmp_path, at):
    def make():
        parts = stopping(at)
        parts.after = lambda run: run.log(validation=run.step)
        return parts

    run = process(tmp_path / "whole", make, epochs=5)
    assert (run.step, run.is_over) == (at, True)
    assert log_of(tmp_path / "whole").splitlines()[-1] == b'{"step": %d, "epoch": 2, "v' % at + (
        b'alidation": %d}' % at
    )
    for step in range(2, at + 1):
        process(tmp_path / "chain", make, epochs=5, die=step)
    process(tmp_path / "chain", make, epochs=5)
    assert end_of(tmp_path / "chain") == end_of(tmp_path / "whole")


def test_f2_a_death_between_a_stop_and_the_end_of_the_epochs_body(tmp_path):
    def make(dies):
        parts = stopping(6)

        def after(run):
            if dies and run.step == 6:
                raise ZeroDivisionError("as if killed in a validation")
            run.log(validation=run.step)

        parts.after = after
        return parts

    process(tmp_path / "whole", lambda: make(False), epochs=5, every_steps=2)
    with pytest.raises(ZeroDivisionError):
        process(tmp_path / "mine", lambda: make(True), epochs=5, every_steps=2)
    process(tmp_path / "mine", lambda: make(False), epochs=5, every_steps=2)
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


def test_stop_between_epochs_is_early_stopping(tmp_path):
    def make():
        parts = plain_parts()
        parts.after = lambda run: run.stop() if run.epoch == 2 else None
        return parts

    run = process(tmp_path, make, epochs=9)
    assert (run.step, run.is_over) == (8, True)
    assert process(tmp_path, make, epochs=9).step == 8


def test_the_seed_decides_the_run_and_not_what_the_generators_were(tmp_path):
    def make():
        model = network()
        optimizer = descend.SGD(model.parameters(), lr=0.1)
        return Parts({"model": model, "optimizer": optimizer}, stepping(model, optimizer))

    process(tmp_path / "a", make)
    process(tmp_path / "b", make)
    assert end_of(tmp_path / "a") == end_of(tmp_path / "b")


def test_saving_before_the_loop_does_not_change_the_run(tmp_path):
    def save(run):
        if run.step == 0:
            run.save()

    def make():
        return plain_sgd(before=save)

    process(tmp_path / "whole", make)
    parts = make()
    descend.Run(tmp_path / "mine", loader=loader(), seed=3, epochs=2, **parts.objects).save()
    process(tmp_path / "mine", make)
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


def test_p44_saving_before_the_loop_goes_on_does_not_change_the_run(tmp_path):
    process(tmp_path / "whole", plain_sgd)
    process(tmp_path / "mine", plain_sgd, die=6)
    objects = plain_sgd().objects
    descend.Run(tmp_path / "mine", loader=loader(), seed=3, epochs=2, **objects).save()
    process(tmp_path / "mine", plain_sgd)
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


# --- changed surroundings ----------------------------------------------------------------------

CHANGES = {
    "another batch size": ({"loader": lambda: loader(batch_size=5)}, "batch_size was 4 and is 5"),
    "a shorter dataset": ({"loader": lambda: loader(samples=13)}, "samples was 14 and is 13"),
    "no shuffling": (
        {"loader": lambda: loader(shuffle=False)},
        "order was 'shuffled' and is 'sequential'",
    ),
    "another seed": ({"seed": 4}, "seed was 3 and is 4"),
    "a model of another shape": (
        {"model": lambda: torch.nn.Linear(3, 2)},
        "size mismatch for weight",
    ),
    "another optimizer's state": (
        {"optimizer": lambda: descend.SGD(torch.nn.Linear(3, 1, bias=False).parameters(), lr=0.1)},
        "cannot restore optimizer",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_that_would_be_another_is_refused_and_nothing_changes(tmp_path, change):
    process(tmp_path, plain_parts, die=6)
    before, files = end_of(tmp_path), sorted(tmp_path.rglob("*"))
    changes, message = CHANGES[change]
    arguments = {"loader": loader(), "seed": 3, **plain_parts().objects}
    arguments |= {key: value() if callable(value) else value for key, value in changes.items()}
    values = copy.deepcopy(arguments["model"].state_dict())
    with pytest.raises(RunError, match=message) as error:
        descend.Run(tmp_path, epochs=2, **arguments)
    assert "fresh" in str(error.value)
    after = arguments["model"].state_dict()
    assert all(torch.equal(values[name], after[name]) for name in values)
    assert (end_of(tmp_path), sorted(tmp_path.rglob("*"))) == (before, files)


def test_other_names_for_the_objects_are_refused_with_both_lists(tmp_path):
    process(tmp_path, plain_parts, die=3)
    parts = plain_parts().objects
    with pytest.raises(RunError, match=r"of model, optimizer, and this one is of net, optimizer"):
        descend.Run(tmp_path, loader=loader(), net=parts["model"], optimizer=parts["optimizer"])
    with pytest.raises(RunError, match="and this one is of nothing"):
        descend.Run(tmp_path, loader=loader())


@pytest.mark.parametrize("name", ["torch", "threads", "processor", "default dtype"])
def test_p44_other_surroundings_are_said_plainly_and_the_run_goes_on(tmp_path, name, monkeypatch):
    process(tmp_path / "whole", plain_parts)
    forged = {**descend.checkpoint.provenance.provenance(), name: "another"}
    with monkeypatch.context() as patch:
        patch.setattr("descend.checkpoint.folder.provenance", lambda: forged)
        process(tmp_path / "mine", plain_parts, die=6)
    with pytest.warns(ResumeWarning, match=f"from step 5.*{name} another there, .* here") as seen:
        process(tmp_path / "mine", plain_parts)
    assert len(seen) == 1
    assert log_of(tmp_path / "mine") == log_of(tmp_path / "whole")


def test_another_version_of_descend_is_no_reason_to_warn(tmp_path, monkeypatch):
    forged = {**descend.checkpoint.provenance.provenance(), "descend": "another"}
    with monkeypatch.context() as patch:
        patch.setattr("descend.checkpoint.folder.provenance", lambda: forged)
        process(tmp_path, plain_parts, die=6)
    assert process(tmp_path, plain_parts).step == STEPS


def test_fresh_starts_over_whatever_is_there(tmp_path):
    process(tmp_path / "whole", plain_parts)
    process(tmp_path / "mine", plain_parts, die=6, epochs=5)
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    run = process(tmp_path / "mine", plain_parts, fresh=True)
    assert run.resumed_from is None
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_fresh_starts_over_with_other_objects(tmp_path):
    process(tmp_path, plain_parts, die=6)
    run = descend.Run(tmp_path, loader=loader(batch_size=2), seed=8, fresh=True)
    assert len(list(run)) == 7


def test_fresh_that_cannot_remove_does_not_go_on_instead(tmp_path, monkeypatch):
    process(tmp_path, plain_parts, die=6)
    rename = os.rename

    def failing(a, b):
        if Path(a).name.startswith("step-"):
            raise PermissionError(13, "Permission denied")
        rename(a, b)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="cannot be"):
        process(tmp_path, plain_parts, fresh=True)


# --- arguments ---------------------------------------------------------------------------------

ODD = {
    "epochs": [0, -1, 1.5, True, "3"],
    "every_steps": [0, -1, 2.0, True],
    "every_minutes": [0, -1, float("nan"), "1", True],
    "every_epochs": [0, 1.0, True],
    "keep": [0, None, 2.0, True],
    "on_save_error": ["ignore", None],
    "seed": [-1, 2**32, 1.0, True, None],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in ODD.items() for v in vs])
def test_an_odd_argument_is_refused_with_its_name_and_value(tmp_path, name, value):
    with pytest.raises(RunError, match=f"{name} must be .*{value!r}"):
        descend.Run(tmp_path / "run", loader=loader(), **{name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("best", [3, ("loss", True), descend.checkpoint.Best(3)])
def test_an_odd_best_is_refused(tmp_path, best):
    with pytest.raises(RunError, match="best must be"):
        descend.Run(tmp_path / "run", loader=loader(), best=best)


@pytest.mark.parametrize("thing", [3, torch.nn.Linear, {"a": 1}, torch.ones(2), None])
def test_an_object_without_a_state_is_refused(tmp_path, thing):
    with pytest.raises(ValueError, match=r"Run: thing must have state_dict\(\)"):
        descend.Run(tmp_path / "run", loader=loader(), thing=thing)
    assert not (tmp_path / "run").exists()


def test_the_runs_own_name_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be called 'run'"):
        descend.Run(tmp_path / "run", loader=loader(), run=torch.nn.Linear(1, 1))


@pytest.mark.parametrize("data", [None, [1, 2], X])
def test_what_is_no_dataloader_is_refused(tmp_path, data):
    with pytest.raises(RunError, match=r"must be a torch\.utils\.data\.DataLoader"):
        descend.Run(tmp_path / "run", loader=data)


def test_a_state_that_cannot_be_saved_is_refused_at_the_start(tmp_path):
    class Odd:
        def state_dict(self):
            return {"file": sys.stdout}

        def load_state_dict(self, state):
            raise AssertionError

    run = descend.Run(tmp_path, loader=loader(), odd=Odd())
    with pytest.raises(CheckpointError, match=r"cannot save odd\.file"):
        list(run)
    assert steps_of(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OSError, match="cannot be used for a run"):
            descend.Run(folder, loader=loader())


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="cannot be used for a run: Permission denied; give another"):
        descend.Run(tmp_path / "run", loader=loader())


# --- one process in a folder -------------------------------------------------------------------

TRIES = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(3)
"""


def another_process_may_train_in(folder):
    """Without the seconds that it takes to import torch."""
    done = subprocess.run([sys.executable, "-c", TRIES, Path(folder) / ".lock"], check=False)
    assert done.returncode in (0, 3)
    return done.returncode == 0


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), **plain_parts().objects)
    assert not another_process_may_train_in(tmp_path)
    list(run)
    assert not another_process_may_train_in(tmp_path)


def test_a_second_run_in_the_same_process_keeps_the_folder(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), **plain_parts().objects)
    run = descend.Run(tmp_path, loader=loader(), **plain_parts().objects)
    assert not another_process_may_train_in(tmp_path)
    with pytest.raises(RunError):
        descend.Run(tmp_path, loader=loader(), seed=5, epochs=0, **plain_parts().objects)
    assert not another_process_may_train_in(tmp_path)
    list(run)


def test_a_refused_run_in_the_same_process_keeps_the_folder(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), **plain_parts().objects)
    list(run)
    with pytest.raises(RunError, match="seed was 0 and is 5"):
        descend.Run(tmp_path, loader=loader(), seed=5, **plain_parts().objects)
    assert not another_process_may_train_in(tmp_path)


def test_a_folder_that_was_removed_and_made_again_is_locked_again(tmp_path):
    first = descend.Run(tmp_path / "run", loader=loader())
    shutil.rmtree(tmp_path / "run")
    again = descend.Run(tmp_path / "run", loader=loader())
    assert (first.step, again.step) == (0, 0)
    assert (tmp_path / "run" / ".lock").exists()
    assert not another_process_may_train_in(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_cannot_train_in_its_parents_folder(tmp_path):
    run = descend.Run(tmp_path, loader=loader())
    child = os.fork()
    if child == 0:
        try:
            descend.Run(tmp_path, loader=loader())
        except RunError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert run.step == 0


HOLDS = """
import sys, time, torch
from torch.utils.data import DataLoader
import descend

class Slow(torch.utils.data.Dataset):
    def __len__(self): return 100
    def __getitem__(self, index):
        time.sleep(0.2 if index else 0)
        return torch.ones(1)

if __name__ == "__main__":
    data = DataLoader(Slow(), 1, num_workers=2)
    for _ in descend.Run(sys.argv[1], loader=data):
        print("trains", flush=True)
"""


def test_f2_the_folder_is_free_at_once_after_a_kill_with_workers_alive(tmp_path):
    (tmp_path / "script.py").write_text(HOLDS)
    source = str(Path(descend.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout.readline() == "trains\n"
        process.kill()
        process.wait()
        assert another_process_may_train_in(tmp_path / "run")


def test_numbers_of_numpy_are_numbers_and_the_run_goes_on(tmp_path):
    for epochs in (1, 2):  # what is saved of them can be read again
        model = torch.nn.Linear(3, 1)
        run = descend.Run(
            tmp_path,
            loader=loader(),
            model=model,
            epochs=np.int64(epochs),
            seed=np.int64(3),
            every_steps=np.int32(2),
            keep=np.int64(1),
        )
        assert len(list(run)) == 4
    assert run.resumed_from.name == "step-00000004"
