"""Prodigy: Adam that finds its own learning rate, from how far the parameters have come."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from descend.engine import hyperparameters as hp
from descend.engine import interrupts
from descend.optimizers.decay import coupled_or_decoupled
from descend.rules import (
    Measure,
    Optimizer,
    Options,
    Params,
    Range,
    Rule,
    Switch,
    absolute,
    maximum,
    sqrt,
    where,
)


def distance(
    param, grad, weighted_sum, start, *, weight_decay, beta3, weight, sum_weight, coupled: bool
):
    """The way along the gradients, and the size of their weighted sum."""
    if coupled:
        grad = grad + param * weight_decay
    weighted_sum = weighted_sum * beta3 + grad * sum_weight
    return grad * weight * (start - param), absolute(weighted_sum)


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    weighted_sum,
    start,
    *,
    step_size,
    weight_decay,
    beta1,
    beta2,
    beta3,
    size,
    sum_weight,
    floor,
    coupled: bool,
    decoupled: bool,
):
    """One step of one element; `start` is where the parameter began."""
    if coupled:
        grad = grad + param * weight_decay
    if decoupled:
        param = param * (1 - step_size * weight_decay)
    exp_avg = exp_avg * beta1 + grad * (size * (1 - beta1))
    exp_avg_sq = exp_avg_sq * beta2 + grad * size * (1 - beta2) * (grad * size)
    weighted_sum = weighted_sum * beta3 + grad * sum_weight
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    step = where(exp_avg == 0, 0.0, exp_avg / (sqrt(exp_avg_sq) + floor))
    param = param - step_size * step
    return param, exp_avg, exp_avg_sq, weighted_sum, start


def _recorded(options: Options) -> bool:
    """Whether a CUDA graph or autograd sees the step, so that its numbers must stay tensors."""
    return bool(options["capturable"] or options["differentiable"])


def _sizes(options: Options, step: Any, d: Any) -> tuple[Any, Any, Any]:
    """The estimate before this step, the size of the step, and the weight of its gradient."""
    beta1, beta2 = options["betas"]
    if not _recorded(options):
        d = options["d0"] if options["d"] is None else options["d"]
    step_size = d * options["lr"]
    if options["use_bias_correction"]:
        step_size = step_size * sqrt(1 - beta2**step) / (1 - beta1**step)
    return d, step_size, d / options["d0"] * step_size


def terms_scalars(options: Options, step: Any, d: Any, d_numerator: Any) -> dict[str, Any]:
    """The numbers of a step that measuring takes."""
    known, _, weight = _sizes(options, step, d)
    beta3 = options["beta3"]
    return {
        "weight_decay": options["weight_decay"],
        "beta3": sqrt(options["betas"][1]) if beta3 is None else beta3,
        "weight": weight,
        "sum_weight": known / options["d0"] * known if options["safeguard_warmup"] else weight,
    }


def scalars(
    options: Options, step: Any, d: Any, d_numerator: Any, progress: Any, spread: Any
) -> dict[str, Any]:
    """The numbers of a step, and the new estimate.

    `d` and `d_numerator` as a parameter knows them may be old: it may have had no gradient for some
    steps, or none yet. The group's are those of all. Where a step is captured or recorded, all have
    one in each, and a number of the group would be that of the first step for ever.
    """
    known, step_size, _ = _sizes(options, step, d)
    beta1, beta2 = options["betas"]
    if not _recorded(options):
        d_numerator = options["d_numerator"]
    measured = terms_scalars(options, step, d, d_numerator)
    numerator = d_numerator * measured["beta3"] + progress
    found = options["d_coef"] * where(spread > 0, numerator / spread, 0.0)
    estimate = maximum(found, known)
    return {
        "step_size": step_size,
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "beta3": measured["beta3"],
        "size": known,
        "sum_weight": measured["sum_weight"],
        "floor": estimate * options["eps"],
        "d": estimate,
        "d_numerator": where(spread > 0, numerator, d_numerator),
    }


class Prodigy(Optimizer):
    r"""Prodigy: Adam that finds its own learning rate, from how far the parameters have come.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) d_t g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 g_t^2 \\
        r_t &= \beta_3 r_{t-1} + \frac{d_t}{d_0} \gamma_t d_t \langle g_t, \theta_0 - \theta_{t-1}
        \rangle, \quad s_t = \beta_3 s_{t-1} + \frac{d_t}{d_0} \gamma_t d_t g_t \\
        d_{t+1} &= \max\left(d_t, c\, r_t / \|s_t\|_1\right) \\
        \theta_t &= (1 - \gamma_t d_t \lambda) \theta_{t-1}
        - \gamma_t d_t \frac{m_t}{\sqrt{v_t} + d_{t+1} \epsilon}

    with :math:`g_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr (times Adam's correction of the
    early means, if `use_bias_correction`), :math:`\lambda` weight_decay, c d_coef and
    :math:`\beta_3` the root of :math:`\beta_2`, if it is not given; inner product and norm are
    those of all parameters together. :math:`d` is a lower bound of the distance to the solution,
    which is the best step size; leave lr at 1, and schedule it (a cosine to zero) as a factor.

    The estimate stands in each group as `d`, and what it is made from as `d_numerator`:
    `optimizer.param_groups[0]["d"]` (with `capturable` or `differentiable` in each state alone).
    With a warmup of lr set `safeguard_warmup`. State: four tensors, 16 bytes a parameter in float32
    (AdamW: 8); two passes over memory. On a GPU each step waits for the estimate, which the host
    keeps.

    {arguments}

    Source:
        K. Mishchenko and A. Defazio, "Prodigy: an expeditiously adaptive parameter-free learner",
        ICML 2024, https://arxiv.org/abs/2306.06101, algorithm 4, and the authors' code for what it
        adds (safeguard_warmup, d_coef). Without momentum that code multiplies the gradient by the
        new estimate, and this one by the old, as with momentum.
    """

    rule = Rule(
        update,
        scalars,
        coupled_or_decoupled,
        initial={"start": "param"},
        counters={"d": "d0", "d_numerator": 0.0},
        measure=Measure(distance, {"progress": "total", "spread": "total"}, terms_scalars),
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1.0,
        betas: hp.Betas = (0.9, 0.999),
        beta3: Annotated[
            float | None,
            Range(0, 1, optional=True),
            "decay per step of what the estimate is made from; None: the root of the second beta",
        ] = None,
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        decoupled_weight_decay: hp.DecoupledWeightDecay = True,
        use_bias_correction: Annotated[bool, Switch(), "correct the early means as Adam"] = False,
        safeguard_warmup: Annotated[
            bool, Switch(), "leave lr out of the weighted sum: for schedules that begin near 0"
        ] = False,
        d0: Annotated[
            float, Range(0, positive=True), "the first estimate; smaller than any good one"
        ] = 1e-6,
        d_coef: Annotated[float, Range(0), "factor of the estimate; 0.5 to 2 for a nudge"] = 1.0,
        *,
        d: Annotated[
            float | None,
            Range(0, optional=True),
            "the estimate, as an earlier training left it; None: d0",
        ] = None,
        d_numerator: Annotated[
            float, Range(-math.inf), "numerator of the estimate, as an earlier training left it"
        ] = 0.0,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        super().__init__(params, locals())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which goes on from the estimate that the others have come to.

        Args:
            param_group: `{"params": [...]}` and options that differ from the defaults.
        """
        super().add_param_group(param_group)
        first, last = self.param_groups[0], self.param_groups[-1]
        if last["d"] is None:
            last["d"] = first["d"]
            last["d_numerator"] = first["d_numerator"]

    def _plain_step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skipped = self.skipped_steps
        with interrupts.deferred():  # Ctrl-C must not part the estimate from the step that found it
            super()._plain_step()
            if self.skipped_steps == skipped:
                self._take_estimate()
        return loss

    def _take_estimate(self) -> None:
        """Put what the last step has found into every group; any parameter of it knows that."""
        if any(_recorded(group) for group in self.param_groups):
            return
        for param in self._with_gradients():
            state = self.state.get(param)
            if state and isinstance(state["step"], FakeTensor):
                return  # it has no number to tell
            if state and float(state["step"]):  # else only its state was made
                for group in self.param_groups:
                    group["d"] = float(state["d"])
                    group["d_numerator"] = float(state["d_numerator"])
                return
