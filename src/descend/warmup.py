"""Warmups: small steps at first, in front of any schedule; by the names of pytorch_warmup.

    from descend import warmup  # in place of `import pytorch_warmup as warmup`

    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    warming = warmup.UntunedLinearWarmup(optimizer)
    for batch in loader:
        ...
        optimizer.step()
        with warming.dampening():
            scheduler.step()

The lr is the product of the warmup's factor and of what the schedulers say. `schedules.warmup` and
`schedules.untuned_linear` do the same in an expression: `untuned_linear() * cosine(10_000)`.

descend's schedulers may be built before or after the warmup, and stepped in its block or outside.
One of torch's writes the lr itself, whatever stands there. So it must be built before the warmup:
the first block is refused if one that was built later has written. It must be stepped in the block:
what is written outside passes for dampened, as an lr that is set by hand does. And its own
`get_last_lr` tells what it wrote in the block; the warmup's tells the true value.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from descend.base.untraced import never_traced
from descend.errors import ScheduleError, ScheduleTypeError, StateError
from descend.lr_scheduler.base import LRScheduler, spread
from descend.lr_scheduler.track import Track, Values, read, tracks_of
from descend.schedules import formulas
from descend.schedules.warmups import NEAREST

Params = dict[str, Any]
LEAST_BETA2 = 0.6  # up to it, RAdam's variance is never finite


class BaseWarmup(LRScheduler):
    r"""The base class of the warmups: a factor of the lr, beside any schedulers.

    .. math::
        \hat\alpha_t = \alpha_t \, \omega_t

    with :math:`\alpha_t` what the schedulers say and :math:`\omega_t` the factor. A subclass gives
    `warmup_factor(step, **params)`. The step counts from 0, and the first one is warmed already.

    Args:
        optimizer: whose groups it warms; descend's or torch's.
        warmup_params: for each group, the keyword arguments of its `warmup_factor`.
        last_step: the last step that is over; the warmup starts in the next one. -1 to begin.

    Attributes:
        last_step: the step that it is in, from 0; the same as `last_epoch`.
        lrs: what the lr of each group would be without this warmup.

    Raises:
        ScheduleTypeError: the optimizer is none, or an argument has another type.
        ScheduleError: an argument is out of range, or not one for each group.

    Example:
        >>> import torch, descend
        >>> class Squared(descend.warmup.BaseWarmup):
        ...     def warmup_factor(self, step, period):
        ...         return min(1.0, (step + 1) / period) ** 2
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = Squared(optimizer, [{"period": 4}])
        >>> with warmup.dampening():
        ...     pass
        >>> warmup.get_last_lr(), warmup.lrs
        ([0.25], [1.0])

    Source: The interface is pytorch_warmup's, https://github.com/Tony-Y/pytorch_warmup.
    """

    config = ("warmup_params",)
    rank = 2
    _open: bool = False  # whether a block of `dampening` is being executed
    _seen_torch: bool = False  # whether torch's schedulers were there before
    # What a scheduler of torch has written: for the number of a group, what descend's schedulers
    # said, and what it wrote instead.
    _taken: dict[int, tuple[float, float]]

    def __init__(
        self, optimizer: Optimizer, warmup_params: list[Params], last_step: int = -1
    ) -> None:
        groups = _groups(optimizer)
        if groups is not None and len(warmup_params) != len(groups):
            raise ScheduleError(
                f"{type(self).__name__}: warmup_params has {len(warmup_params)} entries, and the "
                f"optimizer {len(groups)} groups; give one for each group"
            )
        self._params = [dict(params) for params in warmup_params]
        self._taken = {}
        super().__init__(optimizer, last_step)

    def _join(self, key: str, resumed: bool) -> Track:
        """The track, with this warmup on it.

        It takes nobody's place, so it lets those drive on that are there. Where only torch's are,
        `initial_lr` is theirs and stays as it is.
        """
        groups, track = self.optimizer.param_groups, tracks_of(self.optimizer).get(key)
        self._seen_torch = self._beside_torch()
        if track is not None and track.drivers():
            track.settle(groups)
            return super()._join(key, resumed)
        track = super()._join(key, resumed or self._seen_torch)
        if self._seen_torch:
            self._take_instead([read(group, key) for group in groups], track.bases(groups))
        return track

    def _rejoin(self, track: Track, groups: list[dict[str, Any]]) -> None:
        """Drive again, after a scheduler has begun anew: what it says is not dampened yet."""
        bases = track.bases(groups)
        super()._rejoin(track, groups)
        self._taken = {}
        track.set_bases(groups, bases)

    def _beside_torch(self) -> bool:
        """Whether a scheduler of torch has been built for the optimizer; it leaves this sign."""
        return hasattr(self.optimizer.step, "_wrapped_by_lr_sched")

    @property
    def last_step(self) -> int:
        """The step that it is in, from 0."""
        return self.last_epoch

    @last_step.setter
    def last_step(self, step: int) -> None:
        self.last_epoch = step

    @property
    def warmup_params(self) -> list[Params]:
        """For each group, the keyword arguments of its `warmup_factor`."""
        groups = self.optimizer.param_groups
        while len(self._params) < len(groups):
            self._params.append(self.params_of(groups[len(self._params)]))
        return self._params

    @warmup_params.setter
    def warmup_params(self, warmup_params: list[Params]) -> None:
        self._params = list(warmup_params)

    @property
    def lrs(self) -> list[float]:
        """What the lr of each group would be without this warmup."""
        return self._undampened(self._starts())

    def params_of(self, group: dict[str, Any]) -> Params:
        """The keyword arguments of `warmup_factor` of a group that was added; those of all others.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: the others differ.
        """
        first = self._params[0]
        if any(params != first for params in self._params):
            raise ScheduleError(
                f"{type(self).__name__}: there are {len(self.optimizer.param_groups)} groups and "
                f"{len(self._params)} warmup_params; append one for each group that was added to "
                f"warmup.warmup_params, such as {first}"
            )
        return dict(first)

    def warmup_factor(self, step: int, **params: Any) -> float:
        """What the lr of a group is multiplied by.

        Args:
            step: from 0.
            **params: those of the group.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no warmup_factor(step, **params); define one"
        )

    def curve(self, time: float, bases: Values) -> Values:
        """The bases, or what was written in their place, times the factor; none in a block."""
        values = self._undampened(bases)
        if self._open:
            return values
        step, factor = int(time) if time == int(time) else time, self.warmup_factor
        return [
            value * float(factor(step, **params))  # type: ignore[arg-type]
            for value, params in zip(values, self.warmup_params, strict=False)
        ]

    def _undampened(self, bases: Values) -> Values:
        taken = self._taken
        if not taken:
            return bases
        return [
            _instead(base, *taken[index]) if index in taken else base
            for index, base in enumerate(bases)
        ]

    def _starts(self) -> Values:
        """What descend's schedulers say, up to this warmup."""
        track = self._tracks["lr"]
        values = track.bases(self.optimizer.param_groups)
        for driver in track.drivers():
            if driver is self:
                break
            values = driver.values_now("lr", values)
        return values

    @contextmanager
    def dampening(self) -> Iterator[None]:
        """A block for the steps of schedulers, or for none; at its end the warmup steps too.

        Inside, the groups hold the lr without this warmup. What a scheduler writes there is taken
        over, and dampened at the end. If the block raises, the warmup, the lr and the schedulers of
        descend go back to where they were; one of torch stays where it has come to.

        Raises:
            ScheduleError: the warmup is in such a block, or part of another scheduler; or a
                scheduler of torch was built after it.

        Example:
            >>> import torch, descend
            >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
            >>> warmup = descend.warmup.LinearWarmup(optimizer, warmup_period=4)
            >>> scheduler = descend.lr_scheduler.ExponentialLR(optimizer, 0.5)
            >>> with warmup.dampening():
            ...     scheduler.step()
            >>> scheduler.get_last_lr()
            [0.25]
        """
        self._refuse_inside("dampening()")
        self._refuse_torch_later()
        track, groups = self._tracks["lr"], self.optimizer.param_groups
        track.settle(groups)
        if not track.has(self):
            self._rejoin(track, groups)
        others = [driver for driver in track.drivers() if driver is not self]
        before = [(part, _copied(part)) for driver in others for part in _parts(driver)]
        marks = track.marks
        bases: Values = []
        step, taken = self.last_epoch, self._taken
        try:
            self._open = True
            self._write()
            bases = track.known
            yield
            self._take()
            self._open = False
            self.last_epoch += 1
            self._write()
        except BaseException:
            self._open, self.last_epoch, self._taken = False, step, taken
            for part, attributes in before:
                part.__dict__ = attributes
            track.set_bases(groups, bases)
            # Not computed anew: it may be just that what raises.
            lrs = [mark[2] if isinstance(mark, tuple) else mark for mark in marks]
            track.put(groups[: len(lrs)], lrs)
            _write_beside(track, others, groups)
            raise
        self._step_count += 1

    def dampen(self, step: int | None = None) -> None:
        """Go to the next step; an lr that was written since the last one is taken as undampened.

        `dampening` is better: a scheduler of torch that goes on from the lr it finds does not find
        its own here.

        Args:
            step: go there instead, from 0.

        Raises:
            ScheduleError: `step` is negative or no number, or a block of `dampening` is being
                executed.
        """
        self._refuse_inside("dampen()")
        if self._tracks["lr"].has(self):
            self._take()
        self.step(step)

    def step(self, epoch: float | None = None) -> None:
        """Go to the next step, as any scheduler does.

        Args:
            epoch: go there instead, as `seek` does.

        Raises:
            ScheduleError: `epoch` is negative or no number, or a block of `dampening` is being
                executed; nothing has changed.
        """
        self._refuse_inside("step()")
        super().step(epoch)

    def _refuse_inside(self, what: str) -> None:
        if self._open:
            raise ScheduleError(
                f"{type(self).__name__}: {what} was called in a block of its own dampening(), "
                "which steps the warmup when it ends; leave it out"
            )

    def _refuse_torch_later(self) -> None:
        """Refuse what nobody could read: torch's first value may be dampened, or not."""
        if self._seen_torch or not self._beside_torch():
            return
        if self._tracks["lr"].touched(self.optimizer.param_groups):
            raise ScheduleError(
                f"{type(self).__name__}: a scheduler of torch was built after the warmup, and has "
                "written an lr that may be dampened or not; build the warmup after it"
            )
        self._seen_torch = True

    def _take(self) -> None:
        """Take over what was written by somebody else, as what the lr is without this warmup."""
        track = self._tracks["lr"]
        touched = track.touched(self.optimizer.param_groups)
        if touched:
            known = self.optimizer.param_groups[: len(track.marks)]
            held = [read(group, "lr") for group in known]
            self._take_instead(held, self._starts(), touched)
            track.put(known, held)

    def _take_instead(self, held: Values, starts: Values, touched: list[int] | None = None) -> None:
        """Note what stands in some groups, or in all, instead of what descend's schedulers say."""
        taken = dict(self._taken)
        for index in range(len(held)) if touched is None else touched:
            taken[index] = (starts[index], held[index])
        self._taken = {index: (start, lr) for index, (start, lr) in taken.items() if start != lr}

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; pytorch_warmup's warmup of the same name loads it."""
        state = {**super().state_dict(), "last_step": self.last_step, "lrs": list(self.lrs)}
        if self._taken:
            state["_taken"] = {str(index): list(pair) for index, pair in self._taken.items()}
        return state

    def refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded; pytorch_warmup's has whole periods only."""
        if isinstance(state, dict) and "last_epoch" not in state and "last_step" in state:
            params, lrs = state.get("warmup_params"), state.get("lrs")
            if isinstance(params, list) and _cut(self.warmup_params) == params:
                state = {**state, "warmup_params": self.warmup_params}
            if not isinstance(lrs, list):
                raise StateError(
                    f"{type(self).__name__}.load_state_dict{place}: the state has no list 'lrs', "
                    "so it is not of a warmup"
                )
            state = {**state, "last_epoch": state["last_step"], "base_lrs": lrs}
        super().refuse_unfit(state, strict, place)

    def take_over(self, state: dict[str, Any]) -> None:
        """Set the position, and what was written in the place of descend's schedulers' values."""
        track, groups = self._tracks["lr"], self.optimizer.param_groups
        if not track.has(self) and not (self._owner and self._owner()):
            track.add(self)
        self._seen_torch = self._beside_torch()
        self._taken = {}
        if "last_epoch" in state:
            super().take_over(state)
            pairs = state.get("_taken", {}).items()
            self._taken = {int(index): (start, lr) for index, (start, lr) in pairs}
            return
        lrs = [float(lr) for lr, _ in zip(state["lrs"], groups, strict=False)]
        alone = track.drivers() == [self]  # else descend's schedulers know better
        bases = {"base_lrs": lrs} if alone and not self._seen_torch else {}
        super().take_over({"last_epoch": state["last_step"], **bases})
        if alone and self._seen_torch:
            self._take_instead(lrs, track.bases(groups))


class LinearWarmup(BaseWarmup):
    r"""In a line to the whole lr.

    .. math::
        \omega_t = \min(1, (t + 1) / \tau)

    Args:
        optimizer: whose groups it warms; not RAdam, which warms itself.
        warmup_period: :math:`\tau`, in steps; or a list, one for each group.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none, or a period is no int.
        ScheduleError: a period is not above 0, or there is not one for each group.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.warmup.LinearWarmup(optimizer, warmup_period=4).preview(5)
        {'lr': [[0.25], [0.5], [0.75], [1.0], [1.0]]}

    Source: P. Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_period: int | list[int], last_step: int = -1
    ) -> None:
        super().__init__(optimizer, _periods(self, optimizer, warmup_period), last_step)

    def warmup_factor(self, step: int, warmup_period: float) -> float:  # type: ignore[override]
        """What the lr of a group is multiplied by.

        Args:
            step: from 0.
            warmup_period: in steps.
        """
        return min(1.0, (step + 1) / warmup_period)


class ExponentialWarmup(BaseWarmup):
    r"""Ever more slowly to the whole lr.

    .. math::
        \omega_t = 1 - \exp(-(t + 1) / \tau)

    Args:
        optimizer: whose groups it warms; not RAdam, which warms itself.
        warmup_period: :math:`\tau`, in steps; or a list, one for each group.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none, or a period is no int.
        ScheduleError: a period is not above 0, or there is not one for each group.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.ExponentialWarmup(optimizer, warmup_period=4)
        >>> warmup.seek(3)
        >>> round(warmup.get_last_lr()[0], 4)
        0.6321

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_period: int | list[int], last_step: int = -1
    ) -> None:
        super().__init__(optimizer, _periods(self, optimizer, warmup_period), last_step)

    def warmup_factor(self, step: int, warmup_period: float) -> float:  # type: ignore[override]
        """What the lr of a group is multiplied by.

        Args:
            step: from 0.
            warmup_period: in steps.
        """
        return -math.expm1(-(step + 1) / warmup_period)


class ConstantWarmup(BaseWarmup):
    r"""A part of the lr for some steps, and then the whole.

    .. math::
        \omega_t = f \text{ for } t < \tau, \quad 1 \text{ from } \tau \text{ on}

    Args:
        optimizer: whose groups it warms.
        warmup_period: :math:`\tau`, in steps; or a list, one for each group.
        factor: f, from 0 to 1.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none, or a period is no int.
        ScheduleError: a period or the factor is out of range, or there is not one for each group.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.warmup.ConstantWarmup(optimizer, warmup_period=2, factor=0.5).preview(3)
        {'lr': [[0.5], [0.5], [1.0]]}

    Source: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    https://arxiv.org/abs/1512.03385.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_period: int | list[int],
        factor: float = 1.0 / 3,
        last_step: int = -1,
    ) -> None:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1:
            raise ScheduleError(f"ConstantWarmup: factor must be from 0 to 1, got {factor!r}")
        periods = _periods(self, optimizer, warmup_period)
        params = [{**period, "factor": float(factor)} for period in periods]
        super().__init__(optimizer, params, last_step)

    def warmup_factor(  # type: ignore[override]
        self, step: int, warmup_period: int, factor: float
    ) -> float:
        """What the lr of a group is multiplied by.

        Args:
            step: from 0.
            warmup_period: in steps.
            factor: that of the first steps.
        """
        return factor if step < warmup_period else 1.0


class UntunedLinearWarmup(LinearWarmup):
    r"""In a line to the whole lr, over the time that follows from Adam's second beta.

    .. math::
        \omega_t = \min(1, (t + 1) (1 - \beta_2) / 2)

    As in the paper, the period :math:`2 / (1 - \beta_2)` need not be whole. pytorch_warmup cuts it
    to an int, after rounding: 1999 for a :math:`\beta_2` of 0.999, where the paper has 2000.

    Args:
        optimizer: whose groups it warms; one with betas. Not RAdam, which warms itself.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: a group has no betas.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.UntunedLinearWarmup(optimizer)
        >>> warmup.seek(999)
        >>> round(warmup.get_last_lr()[0], 12)
        0.5

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """

    def __init__(self, optimizer: Optimizer, last_step: int = -1) -> None:
        params = [self.params_of(group) for group in _groups(optimizer) or ()]
        BaseWarmup.__init__(self, optimizer, params, last_step)

    def params_of(self, group: dict[str, Any]) -> Params:
        """The period that follows from the betas of a group.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: it has no betas.
        """
        return {"warmup_period": 2.0 / (1.0 - _beta2(self, group))}


class UntunedExponentialWarmup(ExponentialWarmup):
    r"""Ever more slowly to the whole lr, about as fast as Adam's second bias correction fades.

    .. math::
        \omega_t = 1 - \exp(-(t + 1) (1 - \beta_2))

    As in the paper, the period :math:`1 / (1 - \beta_2)` need not be whole. pytorch_warmup cuts it
    to an int, after rounding: 999 for a :math:`\beta_2` of 0.999, where the paper has 1000.

    Args:
        optimizer: whose groups it warms; one with betas. Not RAdam, which warms itself.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: a group has no betas.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.UntunedExponentialWarmup(optimizer)
        >>> warmup.seek(999)
        >>> round(warmup.get_last_lr()[0], 4)
        0.6321

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """

    def __init__(self, optimizer: Optimizer, last_step: int = -1) -> None:
        params = [self.params_of(group) for group in _groups(optimizer) or ()]
        BaseWarmup.__init__(self, optimizer, params, last_step)

    def params_of(self, group: dict[str, Any]) -> Params:
        """The period that follows from the betas of a group.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: it has no betas.
        """
        return {"warmup_period": 1.0 / (1.0 - _beta2(self, group))}


class RAdamWarmup(BaseWarmup):
    r"""The warmup inside RAdam, for any optimizer with betas.

    .. math::
        \omega_t = \sqrt{\frac{(\rho - 4) (\rho - 2) \rho_\infty}
        {(\rho_\infty - 4) (\rho_\infty - 2) \rho}}, \quad \rho = \rho_{t + \delta}

    with :math:`\delta` the first step whose :math:`\rho` is above 4.

    Args:
        optimizer: whose groups it warms; one with betas. Not RAdam, which warms itself.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: a group has no betas, or a second beta that is not above 0.6.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.RAdamWarmup(optimizer)
        >>> warmup.seek(999)
        >>> round(warmup.get_last_lr()[0], 4)
        0.6464

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """

    def __init__(self, optimizer: Optimizer, last_step: int = -1) -> None:
        params = [self.params_of(group) for group in _groups(optimizer) or ()]
        super().__init__(optimizer, params, last_step)

    def params_of(self, group: dict[str, Any]) -> Params:
        """What follows from the betas of a group.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: it has no betas, or a second beta that is not above 0.6.
        """
        beta2 = _beta2(self, group)
        rho_inf = rho_inf_fn(beta2)
        return {"beta2": beta2, "rho_inf": rho_inf, "offset": get_offset(beta2, rho_inf)}

    def warmup_factor(  # type: ignore[override]
        self, step: int, beta2: float, rho_inf: float, offset: int
    ) -> float:
        """What the lr of a group is multiplied by.

        Args:
            step: from 0.
            beta2: Adam's second beta.
            rho_inf: what `rho_inf_fn` makes of it.
            offset: what `get_offset` makes of it.
        """
        return formulas.rectification(step + offset, beta2)


def rho_inf_fn(beta2: float) -> float:
    r"""The largest length of Adam's second moment, as a simple moving average.

    .. math::
        \rho_\infty = 2 / (1 - \beta_2) - 1

    Args:
        beta2: Adam's second beta.

    Example:
        >>> rho_inf_fn(0.75)
        7.0

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    return formulas.rho_limit(beta2)


def rho_fn(t: float, beta2: float, rho_inf: float) -> float:
    r"""The length of Adam's second moment after some steps, as a simple moving average.

    .. math::
        \rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t)

    Args:
        t: how many steps, from 1.
        beta2: Adam's second beta.
        rho_inf: what `rho_inf_fn` makes of it.

    Example:
        >>> round(rho_fn(1, 0.75, rho_inf_fn(0.75)), 12)
        1.0

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    return formulas.rho(t, beta2) + (rho_inf - formulas.rho_limit(beta2))


def get_offset(beta2: float, rho_inf: float) -> int:
    r"""The first step whose :math:`\rho` is above 4, from 1.

    Args:
        beta2: Adam's second beta.
        rho_inf: what `rho_inf_fn` makes of it.

    Raises:
        ScheduleError: `beta2` is not above 0.6: then there is none; or so near to 1 that the
            formula has no digits left.

    Example:
        >>> get_offset(0.999, rho_inf_fn(0.999))
        5

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    if not LEAST_BETA2 < beta2 < 1:
        raise ScheduleError(
            f"RAdamWarmup: beta2 must be above {LEAST_BETA2} and below 1, got {beta2!r}; use "
            "UntunedLinearWarmup"
        )
    if beta2 > NEAREST:
        raise ScheduleError(
            f"RAdamWarmup: beta2 must be at most {NEAREST}, because nearer to 1 its formula is a "
            f"difference without digits, got {beta2!r}; use UntunedLinearWarmup"
        )
    return formulas.rectified_from(beta2)


never_traced(BaseWarmup.step)


def _groups(optimizer: Any) -> list[dict[str, Any]] | None:
    """The groups; None of something that is no optimizer, which the base class refuses."""
    return optimizer.param_groups if isinstance(optimizer, Optimizer) else None


def _periods(warmup: BaseWarmup, optimizer: Any, warmup_period: Any) -> list[Params]:
    """The parameters of each group, from one period for all or a list."""
    owner, groups = type(warmup).__name__, _groups(optimizer)
    listed = isinstance(warmup_period, list | tuple)
    for period in warmup_period if listed else [warmup_period]:
        if isinstance(period, bool) or not isinstance(period, int):
            raise ScheduleTypeError(
                f"{owner}: warmup_period must be an int, or a list with one for each group, got "
                f"{period!r}"
            )
        if period <= 0:
            raise ScheduleError(f"{owner}: warmup_period must be above 0 steps, got {period!r}")
    if groups is None:  # the base class refuses it
        return []
    return [
        {"warmup_period": n} for n in spread(owner, "warmup_period", warmup_period, len(groups))
    ]


def _beta2(warmup: BaseWarmup, group: dict[str, Any]) -> float:
    """Adam's second beta of a group."""
    betas = group.get("betas")
    if not isinstance(betas, tuple | list):
        raise ScheduleError(
            f"{type(warmup).__name__}: it follows from Adam's second beta, and a group of the "
            "optimizer has no betas; use LinearWarmup(optimizer, warmup_period)"
        )
    return float(betas[1])


def _cut(warmup_params: list[Params]) -> list[Params]:
    """Parameters as pytorch_warmup has them, with whole periods."""
    return [
        {key: int(value) if key == "warmup_period" else value for key, value in params.items()}
        for params in warmup_params
    ]


def _instead(base: float, start: float, written: float) -> float:
    """What a group has where `written` was written instead of `start`, for another base."""
    return written if base == start or not start else written * (base / start)


def _parts(driver: Any) -> Iterator[Any]:
    """A scheduler, and those that it is made of."""
    yield driver
    for part in getattr(driver, "_schedulers", ()):
        yield from _parts(part)


def _write_beside(track: Track, drivers: list[Any], groups: list[dict[str, Any]]) -> None:
    """Write the other hyperparameters of some schedulers, such as the momentum."""
    for driver in drivers:
        for beside in driver._tracks.values():
            if beside is not track:
                beside.settle(groups)
                beside.put(groups, beside.found(groups))


def _copied(part: Any) -> dict[str, Any]:
    """The attributes of a scheduler, safe from what it does to its lists."""
    attributes: dict[str, Any] = vars(part).copy()
    for name, value in attributes.items():
        if type(value) is list:
            attributes[name] = value.copy()
    return attributes
