"""Two points of one training: the one that gradients are taken at, and the average of all.

The parameter holds y while training; the state holds z, which the steps move. The average x lies on
the line through both, y = beta x + (1 - beta) z, so it needs no memory of its own: `eval` and
`train` move the parameter along that line.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import interrupts
from descend.rules import Optimizer, Options, Range, maximum, minimum, where

WarmupSteps = Annotated[
    int, Range(0, whole=True), "steps in which lr rises linearly to its value; they count less"
]
Power = Annotated[
    float, Range(0), "a point of step t counts t to this power in the average; 0: all alike"
]
LrPower = Annotated[
    float, Range(0), "a point counts the largest lr so far to this power in the average"
]
MuX = Annotated[
    float | None,
    Range(0, 1, optional=True),
    "share of the average that each step keeps, the same in all (generalized primal averaging); "
    "None: what schedule-free's weights give",
]

COUNTERS = {"weight_sum": 0.0, "lr_max": 0.0}
"""The counters of each parameter beside its steps, and their starts."""


def averaging(
    options: Options, step: Any, beta: Any, weight_sum: Any, lr_max: Any
) -> dict[str, Any]:
    """The numbers of a step that are the average's, and the new counters.

    Args:
        options: of the group.
        step: counted from 1.
        beta: the share of the average in the point where gradients are taken.
        weight_sum: of the points so far.
        lr_max: the largest lr so far.

    Returns:
        `lr`, after the warmup; `pull`, what a step moves the parameter by; `share`, that of the
        new point in the average; `weight_sum` and `lr_max`.
    """
    lr = options["lr"]
    if options["warmup_steps"]:
        lr = lr * minimum(step / options["warmup_steps"], 1.0)
    lr_max = maximum(lr, lr_max)
    weight = step ** options["r"] * lr_max ** options["weight_lr_power"]
    weight_sum = weight_sum + weight
    if options["mu_x"] is None:
        # At lr 0 nothing has come yet that could be averaged.
        share = where(weight_sum > 0, weight / maximum(weight_sum, 1e-300), 0.0)
    else:
        share = 1 - options["mu_x"]
    return {
        "lr": lr,
        "pull": lr * (1 - beta * (1 - share)),
        "share": share,
        "weight_sum": weight_sum,
        "lr_max": lr_max,
    }


class AveragingOptimizer(Optimizer):
    """An optimizer that trains at one point and evaluates at another."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters are in the mode of the others.

        Args:
            param_group: `{"params": [...]}` and options that differ from the defaults.
        """
        super().add_param_group(param_group)
        self.param_groups[-1].setdefault("train_mode", self.param_groups[0].get("train_mode", True))

    def train(self) -> None:
        """Put into the parameters the point at which gradients are taken; before training."""
        self._move(training=True)

    def eval(self) -> None:
        """Put the average into the parameters: before evaluating, and before weights are saved."""
        self._move(training=False)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the average in the block, and afterwards the bits that were there before it.

        `eval` and `train` round; this does not, at the price of a copy of the parameters.

        Example:
            >>> import torch, descend
            >>> weight = torch.nn.Parameter(torch.ones(2))
            >>> optimizer = descend.ScheduleFreeSGD([weight])
            >>> weight.sum().backward()
            >>> optimizer.step()
            >>> with optimizer.averaged():
            ...     average = weight.tolist()
        """
        if not self.training:
            yield
            return
        kept = [(param, param.detach().clone()) for param in self._all()]
        self.eval()
        try:
            yield
        finally:
            with interrupts.deferred(), torch.no_grad():
                for param, value in kept:
                    param.copy_(value)
                for group in self.param_groups:
                    group["train_mode"] = True

    @property
    def training(self) -> bool:
        """Whether the parameters hold the point at which gradients are taken."""
        return all(group["train_mode"] for group in self.param_groups)

    def _beta(self, group: dict[str, Any]) -> float:
        """The share of the average in the point at which gradients are taken."""
        raise NotImplementedError

    @torch.no_grad()
    def _move(self, training: bool) -> None:
        with interrupts.deferred():  # Ctrl-C must not leave one half at another point
            for group in self.param_groups:
                if group["train_mode"] is training:
                    continue
                beta = self._beta(group)
                weight = 1 - beta if training else 1 - 1 / beta
                for param in group["params"]:
                    # One that has taken no step is where both points are.
                    if "z" in self.state.get(param, {}):
                        _move_towards(param, self.state[param]["z"], weight)
                group["train_mode"] = training

    def _plain_step(self, closure: Callable[[], Any] | None = None) -> Any:
        if not self.training:
            if self.state:
                name = type(self).__name__
                warnings.warn(
                    f"{name}: a step in evaluation mode: its gradient is that of the average. Call "
                    f"optimizer.train() before training goes on, and optimizer.eval() before "
                    f"evaluating and saving; it goes on in training mode now",
                    RuntimeWarning,
                    stacklevel=3,
                )
            self.train()
        return super()._plain_step(closure)


def _move_towards(param: Tensor, z: Tensor, weight: float) -> None:
    """Move a parameter along the line to `z`; one of 16 bits is rounded once."""
    if param.dtype in (torch.float16, torch.bfloat16):
        param.copy_(param.float().lerp(z.to(param.device).float(), weight))
    else:
        param.lerp_(z.to(param), weight)
