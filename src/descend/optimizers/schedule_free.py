"""The two points of schedule-free optimizers: that of the gradients and that of the model."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import interrupts
from descend.errors import ModeError
from descend.rules import Optimizer, Options, Range, maximum, minimum, where

WarmupSteps = Annotated[int, Range(0, whole=True), "steps in which lr rises from 0; 0: none"]
WeightPower = Annotated[
    float,
    Range(0, 32, closed=True),
    "r: a step's share of the mean grows as its number to this power",
]
WeightLrPower = Annotated[
    float,
    Range(0, 32, closed=True),
    "a step's share of the mean grows as the largest lr so far to this power",
]
FixedShare = Annotated[
    float | None,
    Range(0, 1, optional=True),
    "share of x that a step keeps (generalized primal averaging), in the place of the weighted "
    "mean of all steps",
]

COUNTERS = {"weight_sum": 0.0, "lr_max": 0.0, "x_share": 1.0}
"""The sum of all weights so far, the largest lr so far, and the share of x in the y of now."""

SMALLEST = 1e-300
"""A sum of weights that may be divided by, where there are none yet."""


def averaging(
    options: Options, step: Any, mu: Any, weight_sum: Any, lr_max: Any, x_share: Any
) -> dict[str, Any]:
    r"""The numbers of a step that move y and z, and the new counters.

    With :math:`\Delta` the step of z, :math:`c` the new share of z in x, and
    :math:`y = \mu x + (1 - \mu) z`, all of x can be said by y and z:

    .. math::
        y_{t+1} = y_t + (1 - k / \mu_t) (z_t - y_t) + (1 - k) \Delta, \quad k = \mu (1 - c)

    Args:
        options: of the group.
        step: counted from 1.
        mu: the share of x in the new y.
        weight_sum: of the steps before.
        lr_max: of the steps before.
        x_share: the share of x in the present y, which a schedule may have changed since.
    """
    lr = options["lr"]
    if options["warmup_steps"]:
        lr = lr * minimum(step / options["warmup_steps"], 1.0)
    lr_max = maximum(lr, lr_max)
    if options["mu_x"] is None:
        weight = step ** options["r"] * lr_max ** options["weight_lr_power"]
        weight_sum = weight_sum + weight
        # At lr 0 from the start, nothing has a weight.
        share = where(weight_sum > 0, weight / maximum(weight_sum, SMALLEST), 0.0)
    else:
        share = 1 - options["mu_x"]
    kept = mu * (1 - share)
    return {
        "lr": lr,
        "y_lr": lr * (1 - kept),
        "towards_z": 1 - kept / x_share,
        "weight_decay": options["weight_decay"],
        "weight_sum": weight_sum,
        "lr_max": lr_max,
        "x_share": mu,
    }


class ScheduleFree(Optimizer):
    """An optimizer whose parameters are y in training, and x, the model, in evaluation.

    `eval()` puts x into the parameters and keeps y in the state, so that `train()` brings back its
    very bits. `group["train_mode"]` says which of them a group's parameters are; it is saved and
    loaded with the state.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, in the mode of those that are there.

        Args:
            param_group: as for every optimizer.
        """
        super().add_param_group(param_group)
        self.param_groups[-1].setdefault("train_mode", self.param_groups[0].get("train_mode", True))

    @torch.no_grad()
    def eval(self) -> None:
        """Put x into the parameters: before a validation, and before the model is saved or used.

        Nothing happens to those that are x already, and to those without a step.
        """
        with interrupts.deferred():
            for group in self.param_groups:
                if group["train_mode"]:
                    for param, state in self._apart(group):
                        x = _evaluated(param, state)
                        state["y"] = param.detach().clone()
                        param.copy_(x)
                    group["train_mode"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Put y into the parameters: before a training goes on after `eval()`.

        They get the very bits that they had; where somebody has changed x meanwhile, such as by
        loading a model, they get the y of the new x.
        """
        with interrupts.deferred():
            for group in self.param_groups:
                if not group["train_mode"]:
                    for param, state in self._apart(group):
                        y = state.pop("y", None)
                        if y is None or not torch.equal(
                            param, _evaluated(y.to(param.device), state)
                        ):
                            y = _mixed(param, state["z"], 1 - float(state["x_share"]))
                        param.copy_(y)
                    group["train_mode"] = True

    def _apart(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The parameters of a group whose x and y may differ, with their states."""
        for param in group["params"]:
            state = self.state.get(param)
            if state and float(state["x_share"]) != 1:
                yield param, state

    def _plain_step(self, closure: Any = None) -> Any:
        idle = [index for index, group in enumerate(self.param_groups) if not group["train_mode"]]
        # A step that only makes state, as checkpointing tools take one, moves nothing.
        if idle and not self._only_makes_state():
            name = type(self).__name__
            raise ModeError(
                f"{name}: a step in evaluation mode (group {idle[0]}): the parameters are the "
                "averages, not the point where gradients are taken; call optimizer.train() before "
                "the forward pass of a training batch, and optimizer.eval() before a validation"
            )
        return super()._plain_step(closure)


def _evaluated(y: Tensor, state: dict[str, Any]) -> Tensor:
    """The x of a y, in y's dtype."""
    return _mixed(y, state["z"], 1 - 1 / float(state["x_share"])).to(y.dtype)


def _mixed(start: Tensor, end: Tensor, share: float) -> Tensor:
    """The point between two, of which the end has this share; computed in float32 at least."""
    dtype = torch.promote_types(torch.promote_types(start.dtype, end.dtype), torch.float32)
    return torch.lerp(start.to(dtype), end.to(start.device, dtype), share)
