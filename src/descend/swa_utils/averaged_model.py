"""AveragedModel and EMA: a copy of a model whose weights are averages."""

from copy import deepcopy
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module

from descend.base.untraced import never_traced
from descend.errors import ConflictError, StateError
from descend.spelling import spelled
from descend.swa_utils.averages import (
    Many,
    One,
    get_ema_multi_avg_fn,
    get_swa_multi_avg_fn,
    of_torch,
    rounded,
    takes_number,
)
from descend.swa_utils.fitting import refuse_other_kind, refuse_other_order, refuse_unfit
from descend.swa_utils.precision import widen

Tensors = list[Tensor]


class AveragedModel(torch.optim.swa_utils.AveragedModel):
    r"""A copy of a model whose weights are the average of the model's; an instance of torch's.

    .. math::
        \bar w_0 = w_0, \quad \bar w_n = \bar w_{n-1} + \frac{w_n - \bar w_{n-1}}{n + 1}

    The first update copies the model, each further one averages. An average of 16-bit tensors would
    stand still once a step towards the model is below its last digit: it is kept in float32, and
    cast to the model's precision while the averaged model runs, unless its input is in float32.
    The model may have any other precision than its average, too.

    Whole numbers are averaged in float64 and rounded in each update; booleans are copied. A refused
    model changes nothing; if a function of your own raises, the tensors before have moved, and the
    count has not.

    Args:
        model: the model; it is copied.
        device: where the average is; where the model is, if left out.
        avg_fn: from an average, a tensor of the model and how many models are averaged already, to
            the new average; equal weights if left out.
        multi_avg_fn: in its place: for lists of tensors of one dtype on one device, in place.
        use_buffers: average the buffers too; else they are copied in each update.

    Attributes:
        module: the copy.
        n_averaged: how many models are averaged.

    Raises:
        ParameterTypeError: `model` is no module.
        ConflictError: both functions are given.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(1, 1)
        >>> averaged = descend.swa_utils.AveragedModel(model)
        >>> for weight in (0.0, 1.0, 5.0):
        ...     _ = torch.nn.init.constant_(model.weight, weight)
        ...     averaged.update_parameters(model)
        >>> averaged.module.weight.item(), averaged.n_averaged.item()
        (2.0, 3)

    Source: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        UAI 2018, https://arxiv.org/abs/1803.05407.
    """

    _seen: tuple[Tensor, int | None, int] | None = None  # the counter, its version, its number
    _fits: ref[Module] | None = None  # the model whose names were looked at last

    @spelled
    def __init__(
        self,
        model: Module,
        device: int | torch.device | None = None,
        avg_fn: One | None = None,
        multi_avg_fn: Many | None = None,
        use_buffers: bool = False,
    ) -> None:
        owner = type(self).__name__
        refuse_other_kind(owner, model)
        if avg_fn is not None and multi_avg_fn is not None:
            raise ConflictError(
                f"{owner}: avg_fn and multi_avg_fn are both given; give one of them"
            )
        Module.__init__(self)
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        widen(self.module, use_buffers)
        self.register_buffer("n_averaged", torch.tensor(0, dtype=torch.long, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged model."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Average a model in; or, the first time, copy it.

        Args:
            model: the one that this was made from, or one with the same tensors in the same order:
                wrapped for parallel training, compiled, of another precision or on another device.

        Raises:
            ParameterError: it is another one; nothing has changed.
            ParameterTypeError: it is no module.
        """
        refuse_other_kind("update_parameters", model)
        averages: Tensors = list(self.module.parameters())
        currents: Tensors = list(model.parameters())
        here, there = list(self.module.buffers()), list(model.buffers())
        refuse_unfit(self.module, model, averages, currents, "parameter")
        refuse_unfit(self.module, model, here, there, "buffer")
        if self._fits is None or self._fits() is not model:
            refuse_other_order(self.module, model, "parameter")
            refuse_other_order(self.module, model, "buffer")
            self._fits = ref(model)
        count = self._count()
        with torch.no_grad():
            if self.use_buffers:
                averages, currents = averages + here, currents + there
            self._average(averages, currents, count)
            if not self.use_buffers:
                _copy(here, there)
            self.n_averaged.add_(1)
        self._seen = self.n_averaged, _version(self.n_averaged), count + 1

    def _count(self) -> int:
        """How many models are averaged; a GPU is asked only if somebody else has set it."""
        counter, seen = self.n_averaged, self._seen
        if not counter.is_cpu and seen is not None and seen[0] is counter:
            version = _version(counter)
            if version is not None and version == seen[1]:
                return seen[2]
        return int(counter)

    def _average(self, averages: Tensors, currents: Tensors, count: int) -> None:
        """Move the averages, by whichever function it is."""
        if not count:
            _copy(averages, currents)
        elif self.avg_fn is not None:
            number = takes_number(self.avg_fn)
            for average, current in zip(averages, currents, strict=True):
                device = average.device
                n = count if number else self.n_averaged.to(device)
                new = self.avg_fn(average.detach(), _like(average, [current.detach()])[0], n)
                average.copy_(rounded(new, average) if number else new)
        else:
            function = self.multi_avg_fn or get_swa_multi_avg_fn()
            number = takes_number(function)
            for some, others in _grouped(averages, currents):
                near = _like(some[0], others)
                if number:
                    function(some, near, count)
                else:
                    function(_detached(some), _detached(near), self.n_averaged.to(some[0].device))

    def __getstate__(self) -> dict[str, Any]:
        """The attributes that a pickle or a copy holds."""
        return {key: value for key, value in vars(self).items() if key not in ("_seen", "_fits")}


class EMA(AveragedModel):
    r"""A copy of a model whose weights are the exponential moving average of the model's.

    .. math::
        \bar w_0 = w_0, \quad \bar w_n = d \, \bar w_{n-1} + (1 - d) \, w_n

    It remembers about the last 1 / (1 - d) updates. `AveragedModel` tells what holds for all
    averages. With `warmup` d is :math:`\min(d, (1 + n) / (10 + n))` after n updates, so that an
    average of few updates is not mostly the first model.

    Its state holds `decay`, and `warmup` where that is set; a state with others is refused.

    Args:
        model: the model; it is copied.
        decay: d, from 0 to 1; an attribute that may be set at any time.
        device: where the average is; where the model is, if left out.
        use_buffers: average the buffers too; else they are copied in each update.
        warmup: let d rise to `decay`.

    Raises:
        ParameterTypeError: `model` is no module.
        HyperparameterError: `decay` is out of range.
        StateError: by `load_state_dict`: the state has another decay; nothing has changed.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(1, 1)
        >>> ema = descend.swa_utils.EMA(model, decay=0.75)
        >>> for weight in (0.0, 1.0):
        ...     _ = torch.nn.init.constant_(model.weight, weight)
        ...     ema.update_parameters(model)
        >>> ema.module.weight.item()
        0.25

    Source: B. Polyak and A. Juditsky, SIAM J. Control and Optimization 30, 1992.
    """

    _lenient = False  # whether a state with another decay is taken

    @spelled
    def __init__(
        self,
        model: Module,
        decay: float = 0.999,
        device: int | torch.device | None = None,
        use_buffers: bool = False,
        *,
        warmup: bool = False,
    ) -> None:
        function = get_ema_multi_avg_fn(decay, warmup=warmup)
        super().__init__(model, device, multi_avg_fn=function, use_buffers=use_buffers)
        self._decay = decay
        self.warmup = warmup

    @property
    def decay(self) -> float:
        """How much of the average stays in each update."""
        return self._decay

    @decay.setter
    def decay(self, decay: float) -> None:
        self.multi_avg_fn = get_ema_multi_avg_fn(decay, warmup=self.warmup)
        self._decay = decay

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}decay"] = torch.tensor(self._decay, dtype=torch.float64)
        if self.warmup:
            destination[f"{prefix}warmup"] = torch.tensor(True)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Take over a state: of the same decay (`strict`), or one of torch's, which has none.

        Args:
            state_dict: what `state_dict` gave.
            strict: see above; also refuse missing and unknown entries, as torch does.
            assign: see torch.nn.Module.

        Returns:
            The names of the missing and the unknown entries.

        Raises:
            StateError: the decay or its warmup is another; nothing has changed.
        """
        self._lenient = not strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            self._lenient = False

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        saved = {name: state_dict.pop(f"{prefix}{name}", None) for name in ("decay", "warmup")}
        if not self._lenient and saved["decay"] is not None:
            for name, here in (("decay", float(self._decay)), ("warmup", self.warmup)):
                there = type(here)(0 if saved[name] is None else saved[name])
                if there != here:
                    raise StateError(
                        f"EMA.load_state_dict: the state has {name}={there}, and this average "
                        f"{name}={here}; make it the same, or load with strict=False to keep what "
                        "is here"
                    )
        super()._load_from_state_dict(state_dict, prefix, *rest)


never_traced(AveragedModel.update_parameters)


def _copy(averages: list[Tensor], currents: list[Tensor]) -> None:
    for some, others in _grouped(averages, currents):
        if of_torch(some) and of_torch(others):
            torch._foreach_copy_(some, others)
        else:
            for average, current in zip(some, others, strict=True):
                average.copy_(current)


def _grouped(averages: list[Tensor], currents: list[Tensor]) -> list[tuple[Tensors, Tensors]]:
    """The tensors by device and dtype of the average, which is what one kernel call takes."""
    groups: dict[Any, tuple[Tensors, Tensors]] = {}
    for average, current in zip(averages, currents, strict=True):
        key = average.device, average.dtype
        group = groups.get(key)
        if group is None:
            groups[key] = group = [], []
        group[0].append(average)
        group[1].append(current)
    return list(groups.values())


def _like(one: Tensor, tensors: Tensors) -> Tensors:
    """Tensors on the device and in the precision of another."""
    device, dtype = one.device, one.dtype
    return [
        tensor if tensor.dtype is dtype and tensor.device == device else tensor.to(device, dtype)
        for tensor in tensors
    ]


def _detached(tensors: Tensors) -> Tensors:
    return [tensor.detach() for tensor in tensors]


def _version(tensor: Tensor) -> int | None:
    """A number that changes when somebody writes into a tensor."""
    return None if tensor.is_inference() else tensor._version
