"""Lightning's Trainer: precision, clipping, accumulation, resuming, schedulers, callbacks."""

import math

import pytest
import torch

import descend
from clients.beside import CLOSE, CLOSE_16, assert_beside, network, parameters, samples


@pytest.fixture
def lightning(client):
    return client("lightning.pytorch")


SCHEDULES = {
    "none": lambda s, o: None,
    "step": lambda s, o: s.StepLR(o, 2, 0.5),
    "one cycle": lambda s, o: {
        "scheduler": s.OneCycleLR(o, 0.1, total_steps=12),
        "interval": "step",
    },
    "plateau": lambda s, o: {
        "scheduler": s.ReduceLROnPlateau(o, patience=0, factor=0.5, threshold=0.5),
        "monitor": "loss",
    },
    "sequence": lambda s, o: {
        "scheduler": s.SequentialLR(
            o, [s.LinearLR(o, 0.1, total_iters=3), s.CosineAnnealingLR(o, 9)], [3]
        ),
        "interval": "step",
        "frequency": 2,
    },
}


def module_of(lightning, optim, schedule="none", manual=False, **options):
    """A LightningModule that remembers losses and lrs."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.automatic_optimization = not manual
            self.seen = {"loss": [], "lr": [], "norm": []}

        def training_step(self, batch, index):
            inputs, targets = batch
            loss = torch.nn.functional.mse_loss(self.net(inputs).float(), targets)
            self.log("loss", loss, on_epoch=True)
            self.seen["loss"].append(loss.item())
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                self.clip_gradients(optimizer, 0.5, "norm")
                optimizer.step()
            return loss

        def on_before_optimizer_step(self, optimizer):
            self.seen["lr"].append([group["lr"] for group in optimizer.param_groups])
            grads = [param.grad for param in self.net.parameters() if param.grad is not None]
            self.seen["norm"].append(torch.nn.utils.get_total_norm(grads).item())

        def configure_optimizers(self):
            optimizer = optim.AdamW(self.net.parameters(), **{"lr": 0.03, **options})
            made = SCHEDULES[schedule](optim.lr_scheduler, optimizer)
            return optimizer if made is None else {"optimizer": optimizer, "lr_scheduler": made}

    return Module()


def fit(lightning, module, callbacks=(), ckpt_path=None, **options):
    """Train; what was seen, and the trainer."""
    trainer = lightning.Trainer(
        **{"max_epochs": 3, "logger": False, "enable_checkpointing": False, **options},
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    loader = torch.utils.data.DataLoader(samples(), batch_size=6)
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    seen = module.seen if isinstance(module.seen, dict) else {"seen": module.seen}
    return {**seen, "params": parameters(module)}, trainer


CLIPPED = {
    "norm": {"gradient_clip_val": 0.5},
    "value": {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
}


@pytest.mark.parametrize("clip", CLIPPED)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_clipped_and_accumulated(lightning, precision, clip):
    def train(optim):
        module = module_of(lightning, optim)
        options = {**CLIPPED[clip], "accumulate_grad_batches": 2, "precision": precision}
        return fit(lightning, module, **options)[0]

    seen = assert_beside(train, **(CLOSE if precision == "32-true" else CLOSE_16))
    assert len(seen["norm"]) == 6
    assert max(seen["norm"]) > 0.5  # Lightning clips after the hook


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_manual_optimization(lightning, precision):
    def train(optim):
        return fit(lightning, module_of(lightning, optim, manual=True), precision=precision)[0]

    seen = assert_beside(train, **(CLOSE if precision == "32-true" else CLOSE_16))
    assert max(seen["norm"]) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("fused", [None, True])
def test_a_scaler_that_overflows(lightning, fused):
    """Hooks see unscaled gradients; with fused=True Lightning refuses clipping, as with torch's."""

    def train(optim, **options):
        # From 2**30 on the gradients of float16 overflow until the scale has come down.
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, backoff_factor=2.0**-6)
        plugin = lightning.plugins.MixedPrecision("16-mixed", "cpu", scaler)
        module = module_of(lightning, optim, fused=fused)
        seen, _ = fit(lightning, module, plugins=[plugin], **options)
        if fused:
            del seen["norm"]  # still scaled
        return {**seen, "scale": scaler.get_scale()}

    seen = assert_beside(train, **CLOSE_16)
    assert seen["scale"] < 2.0**30
    if not fused:
        assert not math.isfinite(max(seen["norm"]))
        assert_beside(lambda optim: train(optim, gradient_clip_val=0.5), **CLOSE_16)
        return
    for optim in (torch.optim, descend):
        with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
            train(optim, gradient_clip_val=0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resumed_from_its_own_checkpoint(lightning, schedule, tmp_path):
    def train(optim):
        whole, _ = fit(lightning, module_of(lightning, optim, schedule))
        path = tmp_path / f"{optim.__name__}.ckpt"
        first, trainer = fit(lightning, module_of(lightning, optim, schedule), max_epochs=2)
        trainer.save_checkpoint(path)
        second, _ = fit(lightning, module_of(lightning, optim, schedule), ckpt_path=path)
        for key in ("loss", "lr"):
            assert first[key] + second[key] == whole[key]
        assert all(map(torch.equal, second["params"], whole["params"]))
        return whole

    assert_beside(train)


@pytest.fixture
def unfreezing(lightning):
    """A callback that makes a group of the first layer when two epochs are over."""

    class Unfreezing(lightning.callbacks.BaseFinetuning):
        def freeze_before_training(self, module):
            self.freeze(module.net[0])

        def finetune_function(self, module, epoch, optimizer):
            if epoch == 2:
                self.unfreeze_and_add_param_group(module.net[0], optimizer, lr=0.004)
            elif epoch > 2:  # after resuming all is frozen again
                self.make_trainable(module.net[0])

    return Unfreezing


def test_a_group_that_is_unfrozen_in_the_middle_of_a_curve(lightning, unfreezing, tmp_path):
    """The new group follows the curve from the lr that it was given; after resuming, too."""

    def make(optim):
        module = module_of(lightning, optim)

        def configure():
            trainable = [param for param in module.net.parameters() if param.requires_grad]
            optimizer = optim.AdamW(trainable, lr=0.03)
            schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": schedule}

        module.configure_optimizers = configure
        return module

    def train(optim):
        whole, _ = fit(lightning, make(optim), [unfreezing()], max_epochs=5)
        first, trainer = fit(lightning, make(optim), [unfreezing()], max_epochs=4)
        path = tmp_path / f"{optim.__name__}.ckpt"
        trainer.save_checkpoint(path)
        rest, _ = fit(lightning, make(optim), [unfreezing()], path, max_epochs=5)
        assert first["lr"] + rest["lr"] == whole["lr"]
        assert first["loss"] + rest["loss"] == whole["loss"]
        return whole

    seen = assert_beside(train)
    expected = [[0.03], [0.03], [0.015, 0.004], [0.015, 0.004], [0.0075, 0.002]]
    assert seen["lr"][0::4] == [pytest.approx(rates) for rates in expected]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_optimizers_in_turn(lightning, precision):
    """Clipped by hand, with the parameters of the other switched off, each on its own curve."""

    class Adversaries(lightning.LightningModule):
        def __init__(self, optim):
            super().__init__()
            torch.manual_seed(0)
            self.maker, self.judge = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
            self.automatic_optimization = False
            self.optim, self.seen = optim, []

        def training_step(self, batch, index):
            first, second = self.optimizers()
            for optimizer, sign in ((first, 1), (second, -1)):
                with optimizer.toggle_model():
                    loss = sign * self.judge(self.maker(batch[0])).mean()
                    optimizer.zero_grad()
                    self.manual_backward(loss)
                    self.clip_gradients(optimizer, 0.1, "norm")
                    optimizer.step()
                self.seen.append((loss.item(), optimizer.param_groups[0]["lr"]))
            for schedule in self.lr_schedulers():
                schedule.step()

        def configure_optimizers(self):
            schedulers = self.optim.lr_scheduler
            first = self.optim.Adam(self.maker.parameters(), lr=0.02, betas=(0.5, 0.9))
            second = self.optim.RMSprop(self.judge.parameters(), lr=0.01)
            schedules = [schedulers.StepLR(first, 3, 0.5), schedulers.LinearLR(second, 0.1)]
            return [first, second], schedules

    def train(optim):
        return fit(lightning, Adversaries(optim), precision=precision)[0]

    assert_beside(train, **(CLOSE if precision == "32-true" else CLOSE_16))


@pytest.mark.parametrize("clip", [{"max_norm": 0.5}, {"clip_val": 0.05}])
def test_fabric(client, clip, tmp_path):
    """A loop of one's own: accumulation, clipping, mixed precision, its own checkpoint."""
    lightning = client("lightning")

    def make(optim):
        fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=0.03)
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
        model, optimizer = fabric.setup(model, optimizer)
        return fabric, {"model": model, "optimizer": optimizer, "schedule": schedule}

    def run(fabric, parts, epochs):
        model, optimizer, schedule = parts.values()
        seen = []
        for index, (inputs, targets) in enumerate(
            epochs * list(torch.utils.data.DataLoader(samples(), batch_size=6))
        ):
            with fabric.no_backward_sync(model, enabled=index % 2 == 0):
                loss = torch.nn.functional.mse_loss(model(inputs).float(), targets)
                fabric.backward(loss)
            if index % 2:
                fabric.clip_gradients(model, optimizer, **clip)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            seen.append((loss.item(), schedule.get_last_lr()[0]))
        return seen

    def train(optim):
        path = tmp_path / optim.__name__
        whole, first, second = make(optim), make(optim), make(optim)
        seen = run(*whole, 3)
        begun = run(*first, 2)
        first[0].save(path, first[1])
        second[0].load(path, second[1])
        assert begun + run(*second, 1) == seen
        return seen, parameters(second[1]["model"])

    assert_beside(train, **CLOSE_16)


def test_stochastic_weight_averaging(lightning):
    def train(optim):
        averaging = lightning.callbacks.StochasticWeightAveraging(
            swa_lrs=0.01, swa_epoch_start=2, annealing_epochs=2
        )
        return fit(lightning, module_of(lightning, optim, "step"), [averaging], max_epochs=5)[0]

    assert_beside(train)


def test_the_learning_rate_finder(lightning, tmp_path):
    def train(optim):
        module = module_of(lightning, optim)
        module.lr = 0.03
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            max_epochs=1,
        )
        loader = torch.utils.data.DataLoader(samples(), batch_size=6)
        found = lightning.tuner.Tuner(trainer).lr_find(module, loader, num_training=20)
        return {"lr": found.results["lr"], "loss": found.results["loss"], "best": module.lr}

    assert_beside(train, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_monitor(lightning, tmp_path):
    loggers = lightning.loggers

    def train(optim):
        monitor = lightning.callbacks.LearningRateMonitor(
            logging_interval="step", log_momentum=True, log_weight_decay=True
        )
        logger = loggers.CSVLogger(tmp_path, name=optim.__name__)
        module = module_of(lightning, optim, "one cycle")
        fit(lightning, module, [monitor], logger=logger, log_every_n_steps=1)
        return {
            key: [row[key] for row in logger.experiment.metrics if key in row]
            for key in ("lr-AdamW", "lr-AdamW-momentum", "lr-AdamW-weight_decay")
        }

    assert_beside(train)


def test_a_schedule_free_optimizer_is_switched_by_hooks_of_the_module(lightning):
    """Lightning does not know of it; the module says when, and a validation changes no bit."""

    def train(validated):
        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net, self.seen = network(), []

            def training_step(self, batch, index):
                return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

            def validation_step(self, batch, index):
                self.seen.append(parameters(self.net))

            def on_validation_model_eval(self):
                super().on_validation_model_eval()
                self.optimizers().optimizer.eval()

            def on_validation_model_train(self):
                super().on_validation_model_train()
                self.optimizers().optimizer.train()

            def configure_optimizers(self):
                return descend.ScheduleFreeAdamW(self.parameters(), lr=0.03)

        module = Module()
        trainer = lightning.Trainer(
            max_epochs=3, logger=False, enable_checkpointing=False, accelerator="cpu", devices=1,
            enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=1 if validated else 0,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(samples(), batch_size=4)
        trainer.fit(module, loader, loader)
        optimizer = trainer.optimizers[0]
        y = parameters(module.net)
        optimizer.eval()
        return y, parameters(module.net), module.seen

    y, x, seen = train(validated=True)
    assert all(map(torch.equal, seen[-1], x))
    assert not any(map(torch.equal, y, x))
    assert all(map(torch.equal, y, train(validated=False)[0]))
