"""Accelerate: what `prepare` returns, overflowing scalers, accumulation, clipping, saved states."""

import pytest
import torch

import descend
from clients.beside import CLOSE, CLOSE_16, assert_beside, network, parameters, samples

SCHEDULES = {
    "step": lambda s, o: s.StepLR(o, 3, 0.5),
    "lambda": lambda s, o: s.LambdaLR(o, lambda step: 1 / (1 + step)),
    "one cycle": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=30),
    "sequence": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=3), s.CosineAnnealingLR(o, 9)], [3]
    ),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4),
}


class Training:
    """A loop as Accelerate's guide has it; the schedule is made from what `prepare` returned."""

    def __init__(self, accelerate, optim, schedule="step", late=False, scaler=None, **options):
        self.accelerator = accelerate.Accelerator(cpu=True, **options)
        self.accelerator.scaler = scaler  # Accelerate makes one on GPUs only
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=0.03)
        loader = torch.utils.data.DataLoader(samples(), batch_size=4)
        make = SCHEDULES[schedule]
        scheduler = None if late else make(optim.lr_scheduler, optimizer)
        prepared = self.accelerator.prepare(model, optimizer, loader)
        self.model, self.optimizer, self.loader = prepared
        if late:
            scheduler = make(optim.lr_scheduler, self.optimizer)
        self.scheduler = self.accelerator.prepare(scheduler)
        self.seen = {"loss": [], "lr": [], "skipped": []}

    def epoch(self, clip=None, spoiled=()):
        for index, (inputs, targets) in enumerate(self.loader):
            with self.accelerator.accumulate(self.model):
                loss = torch.nn.functional.mse_loss(self.model(inputs).float(), targets)
                self.accelerator.backward(loss * (float("inf") if index in spoiled else 1.0))
                if self.accelerator.sync_gradients and clip == "norm":
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.5)
                if self.accelerator.sync_gradients and clip == "value":
                    self.accelerator.clip_grad_value_(self.model.parameters(), 0.05)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()
            self.seen["loss"].append(loss.item())
            self.seen["lr"].append(self.scheduler.get_last_lr())
            self.seen["skipped"].append(self.accelerator.optimizer_step_was_skipped)

    def result(self):
        return {**self.seen, "params": parameters(self.model)}


@pytest.mark.parametrize("clip", ["norm", "value"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_clipped_and_accumulated(accelerate, precision, clip):
    def train(optim):
        training = Training(
            accelerate, optim, mixed_precision=precision, gradient_accumulation_steps=2
        )
        for _ in range(3):
            training.epoch(clip)
        return training.result()

    assert_beside(train, **(CLOSE if precision == "no" else CLOSE_16))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_before_and_after_prepare(accelerate, schedule, late):
    def train(optim):
        training = Training(accelerate, optim, schedule, late)
        for _ in range(2):
            training.epoch()
        return training.result()

    assert_beside(train)


def test_steps_that_an_overflow_skips(accelerate):
    """They are seen, and the schedule waits."""

    def train(optim):
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        training = Training(accelerate, optim, scaler=scaler)
        for _ in range(2):
            training.epoch(spoiled=(1, 2))
        return {**training.result(), "scale": scaler.get_scale()}

    seen = assert_beside(train)
    assert seen["skipped"] == 2 * [False, True, True, False, False, False]
    assert seen["lr"][:7] == [[0.03], [0.03], [0.03], [0.03], [0.015], [0.015], [0.015]]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resumed_from_its_own_state(accelerate, schedule, tmp_path):
    def train(optim):
        whole = Training(accelerate, optim, schedule)
        for _ in range(3):
            whole.epoch()
        first = Training(accelerate, optim, schedule)
        first.epoch()
        first.accelerator.save_state(str(tmp_path / optim.__name__))
        second = Training(accelerate, optim, schedule)
        second.accelerator.load_state(str(tmp_path / optim.__name__))
        for _ in range(2):
            second.epoch()
        assert first.seen["loss"] + second.seen["loss"] == whole.seen["loss"]
        assert first.seen["lr"] + second.seen["lr"] == whole.seen["lr"]
        return whole.result()

    assert_beside(train)


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_a_schedule_free_optimizer_is_switched_through_what_prepare_returned(
    accelerate, kind, tmp_path
):
    """Beside its authors' own; a saved state goes on in the mode that it had."""
    authors = pytest.importorskip("schedulefree")

    def train(cls):
        accelerator = accelerate.Accelerator(cpu=True)
        model = network()
        loader = torch.utils.data.DataLoader(samples(), batch_size=4)
        optimizer = cls(model.parameters(), lr=0.1, warmup_steps=4)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        seen = []
        for epoch in range(3):
            optimizer.train()
            for inputs, targets in loader:
                accelerator.backward(torch.nn.functional.mse_loss(model(inputs), targets))
                optimizer.step()
                optimizer.zero_grad()
            if epoch == 1:
                accelerator.save_state(str(tmp_path / cls.__name__))
                accelerator.load_state(str(tmp_path / cls.__name__))
            optimizer.eval()
            seen.append(parameters(model))
        assert not optimizer.param_groups[0]["train_mode"]
        return seen

    torch.testing.assert_close(
        train(getattr(descend, f"ScheduleFree{kind}")),
        train(getattr(authors, f"{kind}ScheduleFree")),
        **CLOSE,
    )
