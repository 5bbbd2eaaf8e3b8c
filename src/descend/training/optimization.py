"""One step of a training: from a batch to parameters, and the schedulers after it."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from descend.errors import DivergedError, TrainerError
from descend.format import counted
from descend.lr_scheduler import ReduceLROnPlateau, Scheduler
from descend.optimizers.lbfgs import LBFGS
from descend.spelling import hint
from descend.training.module import Module
from descend.training.trainer_hooks import Hooks

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
ALIASES = {32: "32-true", "32": "32-true", 16: "16-mixed", "16": "16-mixed", "bf16": "bf16-mixed"}
PAIR = 2


@dataclass
class SchedulerConfig:
    """A scheduler, and when it is stepped.

    Args:
        scheduler: whatever has a `step`.
        interval: of its steps: "epoch" or "step", which is one of the optimizer's.
        frequency: of them: each so many.
        monitor: the name of the metric that it is stepped with, or None.
        strict: whether a metric that is not there is an error.
        name: for a log.
        reduce_on_plateau: whether it is stepped with a metric.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None
    strict: bool = True
    name: str | None = None
    reduce_on_plateau: bool = False

    seen: Any = None  # where it stood after our last step
    by_hand: bool = False  # whether somebody else steps it too

    def step(self, *metric: float) -> None:
        """Step the scheduler."""
        if self.seen is not None and self.seen != self.scheduler.last_epoch:
            self.by_hand = True
        self.scheduler.step(*metric)
        self.seen = getattr(self.scheduler, "last_epoch", None)


def configured(module: Module) -> tuple[list[Optimizer], list[SchedulerConfig]]:
    """The optimizers and schedulers of a module, in whichever form it returns them.

    Raises:
        TrainerError: `configure_optimizers` returned something else.
    """
    given = module.configure_optimizers()
    optimizers, schedulers = _separated(given)
    for one in optimizers or [None]:
        if not isinstance(one, Optimizer):
            raise TrainerError(
                f"{type(module).__name__}.configure_optimizers must return an optimizer, a list of "
                f"them, a pair (optimizers, schedulers) or a dict with 'optimizer' and "
                f"'lr_scheduler', and returned {_kind(given)}"
            )
    if module.automatic_optimization and len(optimizers) > 1:
        raise TrainerError(
            f"{type(module).__name__} has {len(optimizers)} optimizers: set "
            f"self.automatic_optimization = False in its constructor, and step them in "
            f"training_step with self.optimizers() and self.manual_backward(loss)"
        )
    configs = [_config(one) for one in schedulers]
    for one in configs:
        driven = getattr(one.scheduler, "optimizer", optimizers[0])
        if not any(driven is optimizer for optimizer in optimizers):
            raise TrainerError(
                f"the {type(one.scheduler).__name__} drives another optimizer than those that step "
                f"here; build it on one of them"
            )
        if one.reduce_on_plateau and one.monitor is None and module.automatic_optimization:
            raise TrainerError(
                f"{type(one.scheduler).__name__} is stepped with a metric: return "
                f'{{"optimizer": ..., "lr_scheduler": {{"scheduler": ..., "monitor": "val_loss"}}}}'
            )
    return [*optimizers], configs


def start_training(optimizers: Iterable[Any]) -> None:
    """Put the optimizers that have a training mode (schedule-free ones) into it."""
    for one in optimizers:
        if callable(getattr(one, "train", None)):
            one.train()


def start_evaluation(optimizers: Iterable[Any]) -> list[Any]:
    """Let the optimizers that average (schedule-free ones) put their averages into the model.

    Returns:
        Those that were in training mode.
    """
    training = [
        one
        for one in optimizers
        if callable(getattr(one, "eval", None))
        and any(group.get("train_mode") for group in one.param_groups)
    ]
    for one in training:
        one.eval()
    return training


def _separated(given: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """The optimizers and the schedulers."""
    if isinstance(given, Mapping):
        scheduler = given.get("lr_scheduler")
        found = [scheduler] if scheduler is not None else []
        if isinstance(scheduler, Mapping) is False and given.get("monitor") and found:
            found = [{"scheduler": scheduler, "monitor": given["monitor"]}]
        for name in given:
            if name not in ("optimizer", "lr_scheduler", "monitor"):
                raise TrainerError(
                    f"configure_optimizers returned a dict with {name!r}; "
                    f"{hint(str(name), ('optimizer', 'lr_scheduler'))}allowed: optimizer, "
                    f"lr_scheduler, monitor"
                )
        return [given.get("optimizer")], found
    if isinstance(given, list | tuple):
        if len(given) == PAIR and all(isinstance(part, list | tuple) for part in given):
            return given[0], given[1]
        if given and all(isinstance(one, Mapping) for one in given):
            pairs = [_separated(one) for one in given]
            return [o for os, _ in pairs for o in os], [s for _, ss in pairs for s in ss]
        return given, []
    return [given], []


def _config(given: Any) -> SchedulerConfig:
    """When a scheduler is stepped, from the mapping or the scheduler that the module gave."""
    fields = dict(given) if isinstance(given, Mapping) else {"scheduler": given}
    known = ("scheduler", "interval", "frequency", "monitor", "strict", "name", "reduce_on_plateau")
    for name in fields:
        if name not in known:
            raise TrainerError(
                f"lr_scheduler has no entry {name!r}; {hint(str(name), known)}allowed: "
                f"{', '.join(known)}"
            )
    scheduler = fields.get("scheduler")
    if not callable(getattr(scheduler, "step", None)):
        raise TrainerError(f"lr_scheduler needs a scheduler with a step(), got {_kind(scheduler)}")
    plateau = isinstance(
        scheduler, ReduceLROnPlateau | torch.optim.lr_scheduler.ReduceLROnPlateau
    ) or bool(fields.get("reduce_on_plateau"))
    # One that counts steps, whatever the epochs are
    fields.setdefault("interval", "step" if isinstance(scheduler, Scheduler) else "epoch")
    config = SchedulerConfig(**{**fields, "reduce_on_plateau": plateau})
    if config.interval not in ("epoch", "step") or config.frequency < 1:
        raise TrainerError(
            f"lr_scheduler: interval must be 'epoch' or 'step' and frequency at least 1, got "
            f"{config.interval!r} and {config.frequency!r}"
        )
    return config


def step_schedulers(
    configs: Sequence[SchedulerConfig],
    interval: str,
    number: int,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Step the schedulers of an interval that is over.

    Args:
        configs: all of them.
        interval: "epoch" or "step".
        number: which of them is over, from 1.
        metrics: those logged so far, for those that are stepped with one: then only these are
            stepped, and without, only the others.

    Raises:
        TrainerError: a metric that one monitors was never logged.
    """
    for config in configs:
        if config.interval != interval or number % config.frequency:
            continue
        if config.reduce_on_plateau != (metrics is not None):
            continue
        if metrics is None:
            config.step()
        elif str(config.monitor) in metrics:
            config.step(metrics[str(config.monitor)])
        elif config.strict:
            raise TrainerError(
                f"{type(config.scheduler).__name__} monitors {config.monitor!r}, which was not "
                f"logged; {hint(str(config.monitor), metrics)}logged: "
                f"{', '.join(metrics) or 'nothing'}"
            )


class TrainingStep:
    """Takes a module from one batch to the next.

        gradient = sum over the window of d/dtheta [loss(batch) / accumulate]

    Args:
        module: what is trained.
        optimizers: one, or, where the module steps them itself, any number.
        hooks: those called around backward pass and step.
        accumulate: batches per step.
        clip: the largest gradient and the algorithm: "norm" or "value"; None: not clipped.
        precision: a key of `PRECISIONS`.
        device: where the module computes.
        where: tells in words which batch has some index.

    Attributes:
        taken: how many steps the optimizers have taken.
        windows: how many windows of batches are over: equal to `taken` with one optimizer.
        pending: whether gradients wait for a step.
        ended: whether the batch taken last was its window's last.
        lrs: the learning rate of each optimizer's first group in the step taken last.
    """

    def __init__(
        self,
        module: Module,
        optimizers: Sequence[Optimizer],
        hooks: Hooks,
        *,
        accumulate: int,
        clip: tuple[float | None, str],
        precision: str,
        device: torch.device,
        where: Callable[[int], str] = "in batch {}".format,
    ) -> None:
        self.taken = self.windows = 0
        self.lrs: list[Any] = []
        self.pending = self.ended = False
        self.scaler = None
        self._handles: list[RemovableHandle] = []
        self._in_trial = False  # of a line search, which comes back from one too far away
        self._needs_closure = any(map(_needs_closure, optimizers))
        self._module, self._optimizers, self._hooks = module, optimizers, hooks
        self._where = where
        self._accumulate = accumulate
        self._training_step = adapted(module.training_step, 2)
        self._autocast = partial(autocast, precision, device)
        dtype = PRECISIONS[precision]
        if dtype is torch.float16:
            if not module.automatic_optimization:
                raise TrainerError(
                    "precision='16-mixed' scales the loss, which a module that steps by itself "
                    "has to do too: use 'bf16-mixed', or a torch.amp.GradScaler of your own"
                )
            self.scaler = torch.amp.GradScaler(device.type)
        self._checks_loss = device.type == "cpu" and self.scaler is None
        self._in_step = clip if module.automatic_optimization else (None, "norm")
        self._restore_clip = self._clip_in_step() if optimizers else lambda: None
        if not module.automatic_optimization:
            for optimizer in optimizers:
                self._handles.append(optimizer.register_step_post_hook(self._count))
                if hooks.of("on_before_optimizer_step"):
                    self._handles.append(optimizer.register_step_pre_hook(self._announce))
        elif self._needs_closure and (accumulate > 1 or self.scaler is not None):
            raise TrainerError(
                f"{type(optimizers[0]).__name__} asks for the loss several times in a step: "
                f"accumulate_grad_batches must be 1 and precision not '16-mixed'"
            )

    def state_dict(self) -> dict[str, Any]:
        """How far it is."""
        lrs = [float(lr) for lr in self.lrs]
        return {"taken": self.taken, "windows": self.windows, "pending": self.pending, "lrs": lrs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.taken, self.windows = state["taken"], state["windows"]
        self.pending, self.lrs = state["pending"], state["lrs"]

    def close(self) -> None:
        """Leave the optimizers as they were given."""
        self._restore_clip()
        for handle in self._handles:
            handle.remove()

    def __call__(self, batch: Any, index: int, last: bool) -> Any:
        """Take a batch: forward, backward, and a step where its window ends.

        Args:
            batch: on the device.
            index: of the batch in its epoch.
            last: whether it is the last one of its epoch.

        Returns:
            The outputs of `training_step`.
        """
        ends = last or (index + 1) % self._accumulate == 0
        self.ended = False
        if not self._module.automatic_optimization:
            with self._autocast():
                outputs = self._training_step(batch, index)
            if ends:
                self._end_window()
            return outputs
        optimizer = self._optimizers[0]
        if self._needs_closure:
            outputs = None

            def closure() -> torch.Tensor:
                nonlocal outputs
                self.pending = False
                self._in_trial = outputs is not None
                seen, loss = self._backward(batch, index)
                outputs = seen if outputs is None else outputs
                self._before_step(optimizer)
                return loss

            optimizer.step(closure)  # type: ignore[arg-type]
            self._end_window()
            return outputs
        outputs, _ = self._backward(batch, index)
        self.pending = True
        if ends:
            self.step()
        return outputs

    def step(self) -> None:
        """Step with the gradients that wait."""
        optimizer = self._optimizers[0]
        if self.scaler is None:
            self._before_step(optimizer)
            optimizer.step()
        else:
            self.scaler.unscale_(optimizer)
            self._before_step(optimizer)
            self.scaler.step(optimizer)
            self.scaler.update()
        self._end_window()

    def _end_window(self) -> None:
        self.pending, self.ended = False, True
        self.windows += 1
        self.taken += self._module.automatic_optimization  # others are counted when they step
        self.lrs = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]

    def _backward(self, batch: Any, index: int) -> tuple[Any, torch.Tensor]:
        """The outputs of `training_step`, and the loss, whose gradient was added."""
        with self._autocast():
            outputs = self._training_step(batch, index)
            loss = (
                outputs["loss"] if isinstance(outputs, Mapping) and "loss" in outputs else outputs
            )
            self._refuse_unusable(loss, index)
            part = loss / self._accumulate if self._accumulate > 1 else loss
        if not self.pending:  # only now: the hooks of the batch before see its gradients
            for hook in self._hooks.of("on_before_zero_grad"):
                hook(self._optimizers[0])
            self._optimizers[0].zero_grad()
        if self.scaler is not None:
            part = self.scaler.scale(part)
        for hook in self._hooks.of("on_before_backward"):
            hook(loss)
        part.backward()
        for hook in self._hooks.of("on_after_backward"):
            hook()
        if outputs is loss:
            return {"loss": loss.detach()}, loss
        return {**outputs, "loss": loss.detach()}, loss

    def _before_step(self, optimizer: Optimizer) -> None:
        for hook in self._hooks.of("on_before_optimizer_step"):
            hook(optimizer)
        value, algorithm = self._in_step
        if value is not None:
            self._module.clip_gradients(optimizer, value, algorithm)  # type: ignore[arg-type]

    def _clip_in_step(self) -> Callable[[], None]:
        """Let an optimizer of ours clip in its one pass over the gradients; how to undo it."""
        value, algorithm = self._in_step
        optimizer: Any = self._optimizers[0]
        clipping = getattr(optimizer, "clipping", None)
        if value is None or clipping is None or self._needs_closure:
            return lambda: None
        if clipping.norm is not None or clipping.value is not None:
            raise TrainerError(
                f"the {type(optimizer).__name__} clips already (clip_norm={clipping.norm}, "
                f"clip_value={clipping.value}); leave that or gradient_clip_val out"
            )
        self._in_step = (None, "norm")
        optimizer.clipping = replace(clipping, **{algorithm: float(value)})

        def undo() -> None:
            optimizer.clipping = clipping

        return undo

    def _refuse_unusable(self, loss: Any, index: int) -> None:
        name = f"{type(self._module).__name__}.training_step"
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise TrainerError(
                f"{name} must return the loss, a tensor of one number, or a dict with 'loss', and "
                f"returned {_kind(loss)} {self._where(index)}"
            )
        if not loss.requires_grad:
            raise TrainerError(
                f"the loss that {name} returned {self._where(index)} has no gradient: it must "
                f"follow from parameters that learn, without detach(), item() or torch.no_grad()"
            )
        if self._checks_loss and not self._in_trial and not math.isfinite(loss.item()):
            lr = float(self._optimizers[0].param_groups[0]["lr"])
            refuse_diverged("training", loss.item(), self._where(index), lr)

    def _count(self, *_: object) -> None:
        self.taken += 1

    def _announce(self, optimizer: Optimizer, *_: object) -> None:
        for hook in self._hooks.of("on_before_optimizer_step"):
            hook(optimizer)


def refuse_diverged(which: str, loss: float, where: str, lr: float) -> None:
    """Refuse a loss that is no finite number.

    Args:
        which: "training" or "validation".
        loss: the number.
        where: in words.
        lr: with which that came.

    Raises:
        DivergedError: it is none.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {which} loss became {loss} {where}, with lr {lr:g}: training diverged; try a "
            f"lower lr, and look for a division by zero or a logarithm of zero in the model, the "
            f"loss and the data"
        )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a module computes."""
    dtype = PRECISIONS[precision]
    if dtype is None:
        return nullcontext()
    # With its cache, a module that steps by itself would go on with weights from before the step
    return torch.autocast(device.type, dtype, cache_enabled=False)


def adapted(step: Callable[..., Any], given: int) -> Callable[..., Any]:
    """A step that takes so many arguments, of which the user's may leave out some at the end.

    Args:
        step: of the user's.
        given: how many there are: the batch, its index, and that of its loader.

    Raises:
        TrainerError: it takes no batch at all.

    Example:
        >>> adapted(lambda batch: batch, 2)("a batch", 3)
        'a batch'
    """
    parameters = inspect.signature(step).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return step
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(one.kind in kinds for one in parameters)
    needed = sum(one.kind in kinds and one.default is one.empty for one in parameters)
    if not count or needed > given:
        names = ("batch", "batch_idx", "dataloader_idx")[:given]
        raise TrainerError(
            f"{step.__qualname__} takes {counted(needed, 'argument')} beside self; it is given "
            f"{', '.join(names)}, of which it may leave out some at the end"
        )
    return step if count >= given else lambda *arguments: step(*arguments[:count])


def _needs_closure(optimizer: Optimizer) -> bool:
    """Whether its step asks for the loss again, as L-BFGS does."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    asks = closure is not None and closure.default is closure.empty  # torch's and others
    return asks or isinstance(optimizer, LBFGS)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
