"""One parameter's part in a step, checked: what goes into a kernel and what must not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descend.engine.hyperparameters import Options
from descend.engine.rule import AnyRule, Flags, State
from descend.errors import GradientError, ParameterError, StateError

DENSE_TYPES = (Tensor, torch.nn.Parameter)
_SEVERAL_ELEMENTS_PER_PLACE = 1
"""What torch answers for a tensor that holds one memory location several times (expanded)."""


@dataclass
class Member:
    """A parameter with a gradient, its state (made where it is missing) and its place.

    Args:
        position: its index among all parameters of the optimizer.
        place: "group 0, parameter 3", for messages.
        group: the index of its group.
        rule: what updates it.
        flags: the rule's flags under the group's options.
        param: the parameter.
        grad: its gradient; None once it is no longer needed, so that no plan keeps it alive.
        names: of its state tensors, in the order of the rule.
        state: its state, complete; not yet the optimizer's if `new` is set.
        new: the entries that were missing, or had to move.
        fresh: whether this is its first step under these flags.
    """

    position: int
    place: str
    group: int
    rule: AnyRule
    flags: Flags
    param: Tensor
    grad: Tensor | None
    names: tuple[str, ...] = ()
    state: State = field(default_factory=dict)
    new: dict[str, Tensor] = field(default_factory=dict)
    fresh: bool = False

    def operands(self) -> tuple[Tensor, ...]:
        """Parameter, gradient and state tensors, in the order of the rule's update."""
        assert self.grad is not None
        return (self.param, self.grad, *(self.state[name] for name in self.names))

    def counts(self) -> tuple[Tensor, ...]:
        """Its step count and counters."""
        return tuple(self.state[name] for name in self.rule.counts)


def place_of(owner: str, index: int, within: int, group: Mapping[str, Any]) -> str:
    """What a message calls a parameter: by its optimizer, its group, its place there, its name."""
    place = f"{owner}, group {index}, parameter {within}"
    names = group.get("param_names")
    return f"{place} ({names[within]})" if names else place


def check(param: Tensor, grad: Tensor, place: str) -> None:
    """Refuse a gradient that does not fit, and a parameter that cannot be written to.

    Args:
        param: the parameter.
        grad: its gradient.
        place: what to call the parameter in a message.

    Raises:
        GradientError: the gradient's shape does not fit, or memory has been released.
        ParameterError: the parameter cannot be written to.
    """
    if grad.shape != param.shape:
        raise GradientError(
            f"{place}: the gradient has shape {tuple(grad.shape)} but the parameter has "
            f"shape {tuple(param.shape)}; it was computed before the parameter changed: "
            "call zero_grad() and backward() again"
        )
    for what, tensor in (("parameter", param), ("gradient", grad)):
        if _released(tensor):
            raise GradientError(
                f"{place}: the memory of the {what} has been released; "
                "load it again before the step"
            )
    if param.is_inference() and not torch.is_inference_mode_enabled():
        raise ParameterError(
            f"{place}: the parameter was made in inference mode, so it cannot be updated; "
            "make it outside of torch.inference_mode(), or pass parameter.clone()"
        )
    if (
        type(param) in DENSE_TYPES
        and torch._debug_has_internal_overlap(param) == _SEVERAL_ELEMENTS_PER_PLACE
    ):
        raise ParameterError(
            f"{place}: several elements of the parameter share one memory location "
            "(an expanded tensor), so it cannot be updated; pass parameter.clone() instead"
        )


def _check_layout(rule: AnyRule, grad: Tensor, place: str) -> None:
    """Refuse a gradient that is dense, or sparse, where the rule takes only the other."""
    if grad.layout is torch.strided and not rule.dense:
        raise GradientError(
            f"{place}: the gradient is dense, and this optimizer takes sparse gradients "
            "only; use Adam, or build the layer with sparse=True"
        )
    if grad.layout is not torch.strided and rule.sparse is None:
        raise GradientError(
            f"{place}: the gradient is sparse, and this optimizer takes dense gradients "
            "only; use SGD, Adagrad or SparseAdam, or build the layer with sparse=False"
        )


def admit(options: Options, stored: State | None, member: Member) -> Member:
    """Check a parameter against its gradient and state, and make the state that is missing.

    Nothing of the optimizer's changes here; `commit` does that.

    Raises:
        GradientError: the gradient's shape or kind does not fit.
        ParameterError: the parameter cannot be written to.
        StateError: the state does not fit the parameter.
    """
    rule, param, grad = member.rule, member.param, member.grad
    assert grad is not None
    check(param, grad, member.place)
    if options.get("differentiable") and param.is_leaf and param.requires_grad:
        raise ParameterError(
            f"{member.place}: with differentiable=True autograd records the update, which a leaf "
            "tensor that requires a gradient forbids; pass parameter.clone()"
        )
    _check_layout(rule, grad, member.place)
    state: State = stored if stored is not None else {}
    new: dict[str, Tensor] = {}
    shapes = rule.shapes(param, member.flags)
    member.names = tuple(shapes)
    for name, shape in shapes.items():
        value = state.get(name)
        if value is None:
            member.fresh = True
            start = rule.start(name, options)
            if shape == param.shape:
                new[name] = filled_like(param, start)
            else:
                new[name] = param.detach().new_full(shape, start)
        elif not isinstance(value, Tensor):
            raise StateError(
                f"{member.place}: its state {name!r} is {value!r} ({type(value).__name__}), but it "
                "must be a tensor; to start it anew: del optimizer.state[parameter]"
            )
        elif value.shape != shape:
            raise StateError(
                f"{member.place}: its state {name!r} has shape {tuple(value.shape)} but the "
                f"parameter has shape {tuple(param.shape)}; to start it anew: "
                "del optimizer.state[parameter]"
            )
        elif value.layout is not param.layout:
            raise StateError(
                f"{member.place}: its state {name!r} has the layout {value.layout} but the "
                f"parameter has {param.layout}; to start it anew: del optimizer.state[parameter]"
            )
        elif value.device != param.device:
            new[name] = value.to(param.device)
    counts: dict[str, Tensor] = {}
    device = param.device if options.get("capturable") else torch.device("cpu")
    for name in rule.counts:
        count = state.get(name)
        try:
            value = counted(name, rule.start(name, options) if count is None else count, device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise StateError(
                f"{member.place}: its state {name!r} is {count!r}, but it must be one number; to "
                "start it anew: del optimizer.state[parameter]"
            ) from error
        if value is not count:
            counts[name] = value
    new = {**counts, **new}
    member.state = {**state, **new} if new else state
    member.new = new
    return member


def _released(tensor: Tensor) -> bool:
    """Whether the elements of an ordinary tensor have lost their memory (`storage.resize_(0)`)."""
    return (
        type(tensor) in DENSE_TYPES
        and tensor.layout is torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and tensor.numel() > 0
        and tensor.untyped_storage().nbytes() == 0
    )


def filled_like(param: Tensor, start: float) -> Tensor:
    """A state tensor for a parameter: of its shape, dtype, device and layout, full of `start`.

    On the CPU NumPy fills it, on this thread: torch would wake its OpenMP threads, which a forked
    child has lost, and wait for them for ever.
    """
    tensor = torch.empty_like(param, memory_format=torch.preserve_format, requires_grad=False)
    value = complex(start, start) if param.is_complex() else start
    if type(param) not in DENSE_TYPES or param.device.type != "cpu":
        return tensor.fill_(value)
    number = torch.tensor(value, dtype=param.dtype)
    if param.is_complex():
        torch.view_as_real(tensor).numpy()[...] = torch.view_as_real(number).numpy()
    else:
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(
            param.element_size(), torch.int8
        )
        tensor.view(bits).numpy()[...] = number.view(bits).numpy()
    return tensor


def counted(name: str, value: Any, device: torch.device) -> Tensor:
    """A step count (float32, as in torch) or a counter (float64) as it should be: one element."""
    dtype = torch.float32 if name == "step" else torch.float64
    if isinstance(value, Tensor):
        if (
            type(value) is Tensor
            and value.dtype is dtype
            and value.device == device
            and value.ndim == 0
        ):
            return value
        return value.detach().to(device=device, dtype=dtype, copy=True).reshape(())
    return torch.tensor(float(value), dtype=dtype, device=device)


def plain(tensors: Iterable[Tensor], like: Tensor) -> bool:
    """Whether these are ordinary dense tensors with the layout of `like` in memory.

    Such tensors can be walked as flat ranges of memory side by side, whatever the order of their
    dimensions.
    """
    shape, strides, device = like.shape, like.stride(), like.device
    if not _dense(like):
        return False
    for tensor in tensors:
        if (
            type(tensor) not in DENSE_TYPES
            or tensor.layout is not torch.strided
            or tensor.device != device
            or tensor.shape != shape
            or tensor.is_neg()
            or not tensor.is_floating_point()
        ):
            return False
        if tensor.stride() != strides and any(
            mine != theirs
            for mine, theirs, size in zip(tensor.stride(), strides, shape, strict=True)
            if size != 1 and tensor.numel()
        ):
            return False
    return True


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill their memory without gap or overlap, in whatever order."""
    if type(tensor) not in DENSE_TYPES or tensor.layout is not torch.strided:
        return False
    if tensor.is_contiguous() or not tensor.numel():
        return True
    expected = 1
    for stride, size in sorted(
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size != 1
    ):
        if stride != expected:
            return False
        expected *= size
    return True


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The range of addresses that a tensor's elements lie in."""
    if type(tensor) not in DENSE_TYPES or tensor.layout is not torch.strided:
        return (0, 0)
    start = tensor.data_ptr()
    if not tensor.numel() or not start:
        return (0, 0)
    span = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return (start, start + (span + 1) * tensor.element_size())


@dataclass
class Written:
    """The address ranges that a plan's kernels write, sorted and apart from each other."""

    starts: np.ndarray[Any, np.dtype[np.int64]]
    ends: np.ndarray[Any, np.dtype[np.int64]]


def entangled(
    members: list[Member], operands: Callable[[Member], tuple[Tensor, ...]]
) -> tuple[set[int], Written]:
    """The members (by index) that share written memory with another or with themselves.

    They must be taken one after the other, in order, as torch does; all others may run at once
    and in any order.

    Returns:
        The indices, and the ranges that the rest writes.
    """
    owners: list[int] = []
    ranges: list[tuple[int, int]] = []
    reads: list[tuple[int, int]] = []
    for index, member in enumerate(members):
        param, grad, *states = operands(member)
        reads.append(_extent(grad))
        for tensor in (param, *states):
            owners.append(index)
            ranges.append(_extent(tensor))
    lines = np.array(ranges, dtype=np.int64).reshape(-1, 2)
    owner = np.array(owners, dtype=np.int64)
    used = lines[:, 1] > lines[:, 0]
    lines, owner = lines[used], owner[used]
    order = np.argsort(lines[:, 0], kind="stable")
    starts, ends, owner = lines[order, 0], lines[order, 1], owner[order]
    found: set[int] = set()
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    for later in np.nonzero(starts[1:] < reach[:-1])[0] + 1:
        touching = np.nonzero(ends[:later] > starts[later])[0]
        found.update(owner[touching].tolist(), [int(owner[later])])
    for index, (start, end) in enumerate(reads):
        if end > start:
            hit = (
                np.nonzero((starts < end) & (ends > start))[0]
                if _near(starts, reach, start, end)
                else ()
            )
            if len(hit):
                found.update(owner[hit].tolist(), [index])
    free = np.array([int(one) not in found for one in owner], dtype=bool)
    return found, Written(starts[free], ends[free])


def _near(
    starts: np.ndarray[Any, np.dtype[np.int64]],
    reach: np.ndarray[Any, np.dtype[np.int64]],
    start: int,
    end: int,
) -> bool:
    before = int(np.searchsorted(starts, end))
    return before > 0 and bool(reach[before - 1] > start)
