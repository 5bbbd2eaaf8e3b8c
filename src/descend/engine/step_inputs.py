"""One parameter's part in a step, checked: what goes into a kernel and what must not."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack as _any_mode

from descend.engine.hyperparameters import Options
from descend.engine.rule import AnyRule, Flags, Rule, State, WholeRule
from descend.errors import GradientError, ParameterError, StateError

DENSE_TYPES = frozenset((Tensor, torch.nn.Parameter))
_SEVERAL_ELEMENTS_PER_PLACE = 1
"""What torch answers for a tensor that holds one memory location several times (expanded)."""

_ON_ONE_THREAD = 32_768
"""Up to this many elements torch fills a tensor on the calling thread (its grain size)."""


class Place(NamedTuple):
    """What a message calls a parameter: by its optimizer, its group, its place there, its name."""

    owner: str
    group: int
    within: int
    names: list[str] | None

    def __str__(self) -> str:
        """Such as "AdamW, group 0, parameter 3 (head.weight)"."""
        name = f" ({self.names[self.within]})" if self.names else ""
        return f"{self.owner}, group {self.group}, parameter {self.within}{name}"


def place_of(owner: str, index: int, within: int, group: Mapping[str, Any]) -> Place:
    """The place of a parameter of this group."""
    return Place(owner, index, within, group.get("param_names"))


class Member:
    """A parameter with a gradient, its state (made where it is missing) and its place.

    Args:
        position: its index among all parameters of the optimizer.
        where: its place: the optimizer's name, its group, its index there, the names there.
        group: the index of its group.
        rule: what updates it.
        flags: the rule's flags under the group's options.
        param: the parameter.
        grad: its gradient; None once it is no longer needed, so that no plan keeps it alive.

    Attributes:
        names: of its state tensors, in the order of the rule.
        state: its state, complete; not yet the optimizer's if `new` is set.
        new: the entries that were missing, or had to move.
        fresh: whether this is its first step under these flags.
    """

    __slots__ = (
        "flags",
        "fresh",
        "grad",
        "group",
        "names",
        "new",
        "param",
        "position",
        "rule",
        "state",
        "where",
    )

    def __init__(
        self,
        position: int,
        where: tuple[str, int, int, list[str] | None],
        group: int,
        rule: AnyRule,
        flags: Flags,
        param: Tensor,
        grad: Tensor | None,
    ) -> None:
        self.position = position
        self.where = where
        self.group = group
        self.rule = rule
        self.flags = flags
        self.param = param
        self.grad = grad
        self.names: tuple[str, ...] = ()
        self.state: State = {}
        self.new: dict[str, Tensor] = {}
        self.fresh = False

    def __str__(self) -> str:
        """What a message calls it."""
        return str(Place(*self.where))

    def operands(self) -> tuple[Tensor, ...]:
        """Parameter, gradient and state tensors, in the order of the rule's update."""
        assert self.grad is not None
        return (self.param, self.grad, *(self.state[name] for name in self.names))

    def counts(self) -> tuple[Tensor, ...]:
        """Its step count and counters."""
        return tuple(self.state[name] for name in self.rule.counts)


def check(param: Tensor, grad: Tensor, place: object) -> None:
    """Refuse a gradient that does not fit, and a parameter that cannot be written to.

    Args:
        param: the parameter.
        grad: its gradient.
        place: what to call the parameter in a message.

    Raises:
        GradientError: the gradient's shape does not fit, or memory has been released.
        ParameterError: the parameter cannot be written to.
    """
    check_kind(param, grad, place)
    held = [grad._values(), grad._indices()] if grad.layout is torch.sparse_coo else [grad]
    for what, tensor in (("parameter", param), *(("gradient", part) for part in held)):
        if (lost := lost_memory(tensor)) is not None:
            raise GradientError(
                f"{place}: the memory of the {what} has been {lost}; load it again before the step"
            )


def check_kind(param: Tensor, grad: Tensor, place: object) -> None:
    """As `check`, but for where memory ends: a kernel's own check tells that."""
    if grad.shape != param.shape:
        raise GradientError(
            f"{place}: the gradient has shape {tuple(grad.shape)} but the parameter has "
            f"shape {tuple(param.shape)}; it was computed before the parameter changed: "
            "call zero_grad() and backward() again"
        )
    if param.layout is not torch.strided:
        raise ParameterError(
            f"{place}: the parameter has the layout {param.layout}, and an optimizer updates dense "
            "(strided) parameters only; pass parameter.to_dense()"
        )
    if param._is_zerotensor() or grad._is_zerotensor():
        what = "parameter" if param._is_zerotensor() else "gradient"
        raise GradientError(
            f"{place}: the {what} is a zero tensor, which has no memory; pass {what}.clone()"
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
    if not (param.is_floating_point() or param.is_complex()):
        raise ParameterError(
            f"{place}: the parameter is of {param.dtype}, which would cut off every update; train "
            "parameter.float(), or give it no gradient"
        )


def _check_layout(rule: AnyRule, grad: Tensor, place: object) -> None:
    """Refuse a gradient that is dense, or sparse, where the rule takes only the other."""
    if grad.layout is torch.strided:
        if not rule.dense:
            raise GradientError(
                f"{place}: the gradient is dense, and this optimizer takes sparse gradients "
                "only; use Adam, or build the layer with sparse=True"
            )
    elif rule.sparse is None:
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
    check_kind(param, grad, member)
    if options.get("differentiable") and param.is_leaf and param.requires_grad:
        raise ParameterError(
            f"{member}: with differentiable=True autograd records the update, which a leaf "
            "tensor that requires a gradient forbids; pass parameter.clone()"
        )
    _check_layout(rule, grad, member)
    state: State = stored or {}
    new: dict[str, Tensor] = {}
    for name in rule.counts:
        count = state.get(name)
        wanted = counted_as(options, member, name, count)
        if wanted is not count:
            new[name] = wanted
    # None stands for the shape of the parameter.
    shapes = rule.shapes(param, member.flags) if isinstance(rule, WholeRule) else None
    member.names = rule.present(member.flags) if isinstance(rule, Rule) else tuple(shapes or ())
    for name in member.names:
        shape = shapes[name] if shapes is not None else None
        value = state.get(name)
        if value is None:
            member.fresh = True
            start = rule.start(name, options)
            if shape is None or shape == param.shape:
                new[name] = filled_like(param, start)
            else:
                new[name] = param.detach().new_full(shape, start)
        else:
            _check_state(member, name, value, param.shape if shape is None else shape)
            if value.device != param.device:
                new[name] = value.to(param.device)
    member.new = new
    if not state:
        member.state = new
    else:
        member.state = {**state, **new} if new else state
    return member


def refuse_lost_memory(member: Member) -> None:
    """Refuse a member some of whose memory was released.

    Raises:
        GradientError: of the parameter or the gradient.
        StateError: of its state.
    """
    assert member.grad is not None
    check(member.param, member.grad, member)
    for name in member.names:
        _check_state(member, name, member.state[name], member.state[name].shape)


def _check_state(member: Member, name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuse a state tensor that does not fit its parameter, or cannot be written to."""
    param = member.param
    if not isinstance(value, Tensor):
        why = f"is {value!r} ({type(value).__name__}), but it must be a tensor"
    elif value.shape != shape:
        why = f"has shape {tuple(value.shape)} but the parameter has shape {tuple(param.shape)}"
    elif value.layout is not param.layout:
        why = f"has the layout {value.layout} but the parameter has {param.layout}"
    elif value._is_zerotensor():
        why = "is a zero tensor, which has no memory"
    elif (lost := lost_memory(value)) is not None:
        why = f"has lost memory: it was {lost}"
    elif (
        type(value) in DENSE_TYPES
        and torch._debug_has_internal_overlap(value) == _SEVERAL_ELEMENTS_PER_PLACE
    ):
        why = "has several elements that share one memory location (an expanded tensor)"
    else:
        return
    raise StateError(
        f"{member}: its state {name!r} {why}; to start it anew: del optimizer.state[parameter]"
    )


def counted_as(options: Options, member: Member, name: str, count: Any) -> Tensor:
    """A member's step count or counter as it should be; made if it is missing.

    Raises:
        StateError: it is no number, or no count.
    """
    device = member.param.device if options.get("capturable") else _CPU
    if count is None:
        return counted(name, member.rule.start(name, options), device)
    if isinstance(count, Tensor) and (lost := lost_memory(count)) is not None:
        raise StateError(
            f"{member}: its state {name!r} has lost memory: it was {lost}; to start it anew: "
            "del optimizer.state[parameter]"
        )
    try:
        value = counted(name, count, device)
        # On another device the count is read by the step alone: a look at it would wait for it.
        seen = name == "step" and type(value) is Tensor and value.device.type == "cpu"
        good = not seen or 0 <= float(value) < np.inf
    except (TypeError, ValueError, RuntimeError) as error:
        raise StateError(no_count(member, name, count)) from error
    if not good:
        raise StateError(no_count(member, name, count))
    return value


def no_count(member: Member, name: str, count: object) -> str:
    """What to say of a step count or counter that is none."""
    number = isinstance(count, Tensor) and count.numel() == 1
    kind = "a count of steps, 0 or more" if number and name == "step" else "one number"
    return (
        f"{member}: its state {name!r} is {count!r}, but it must be {kind}; to start it "
        "anew: del optimizer.state[parameter]"
    )


_CPU = torch.device("cpu")


def lost_memory(tensor: Tensor) -> str | None:
    """The fate of an ordinary tensor's memory (`storage.resize_`); None where it is all there."""
    if (
        type(tensor) not in DENSE_TYPES
        or tensor.layout is not torch.strided
        or tensor.device.type not in ("cpu", "cuda")
    ):
        return None
    held = tensor.untyped_storage().nbytes()
    if held >= tensor.nbytes and tensor.is_contiguous() and not tensor.storage_offset():
        return None
    if not tensor.numel():
        return None
    if not held:
        return "released"
    return None if is_whole(tensor) else "cut off by a smaller storage"


def is_whole(tensor: Tensor) -> bool:
    """Whether all elements of a strided tensor lie within its storage."""
    held = tensor.untyped_storage().nbytes()
    if not tensor.numel() or (held == tensor.nbytes and tensor.is_contiguous()):
        return True
    span = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    end = (tensor.storage_offset() + span + 1) * tensor.element_size()
    return bool(end <= held)


def filled_like(param: Tensor, start: float) -> Tensor:
    """A state tensor for a parameter: of its shape, dtype, device and layout, full of `start`.

    On the CPU a large one is filled in pieces: for all of it at once torch would wake its OpenMP
    threads, which a forked child has lost, and wait for them for ever.
    """
    if start == 0 and param.numel() <= _ON_ONE_THREAD:
        return torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)
    tensor = torch.empty_like(param, memory_format=torch.preserve_format, requires_grad=False)
    value = complex(start, start) if param.is_complex() else start
    if type(param) not in DENSE_TYPES or param.device.type != "cpu":
        return tensor.fill_(value)
    for piece in torch.split(tensor.as_strided((tensor.numel(),), (1,)), _ON_ONE_THREAD):
        piece.fill_(value)
    return tensor


def laid_out(grad: Tensor, param: Tensor) -> Tensor:
    """A copy of a gradient in its parameter's layout, without a lazy negation."""
    copy = torch.empty_like(param, dtype=grad.dtype, memory_format=torch.preserve_format)
    with torch.no_grad():
        return copy.copy_(grad)


def counted(name: str, value: Any, device: torch.device) -> Tensor:
    """A step count (float32, as in torch) or a counter (float64) as it should be: one element."""
    dtype = torch.float32 if name == "step" else torch.float64
    if isinstance(value, Tensor):
        if (
            type(value) is Tensor
            and value.dtype is dtype
            and value.device == device
            and value.ndim == 0
            and not value.is_neg()
        ):
            return value
        return value.detach().to(device=device, dtype=dtype, copy=True).reshape(())
    if _any_mode():  # FakeTensorMode knows the value of what `torch.tensor` makes, and only of that
        return torch.tensor(float(value), dtype=dtype, device=device)
    return torch.full((), float(value), dtype=dtype, device=device)


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


def extent(tensor: Tensor) -> tuple[int, int]:
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


def entangled(members: list[Member]) -> set[int]:
    """The members (by index) that share written memory with another or with themselves.

    They must be taken one after the other, in order, as torch does; all others may run at once
    and in any order.
    """
    lines: list[tuple[int, int, int]] = []
    for index, member in enumerate(members):
        for tensor in (member.param, *member.operands()[2:], *member.counts()):
            start, end = extent(tensor)
            if end > start:
                lines.append((start, end, index))
    lines.sort()
    starts, ends, owners = np.array(lines, dtype=np.int64).reshape(-1, 3).T
    shared: set[int] = set()
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    for later in np.nonzero(starts[1:] < reach[:-1])[0] + 1:
        touching = np.nonzero(ends[:later] > starts[later])[0]
        shared.update(owners[touching].tolist(), [int(owners[later])])
    for index, member in enumerate(members):
        assert member.grad is not None
        start, end = extent(member.grad)
        before = int(np.searchsorted(starts, end))
        if end > start and before and reach[before - 1] > start:
            touching = np.nonzero((starts < end) & (ends > start))[0]
            shared.update(owners[touching].tolist(), [index] if len(touching) else [])
    return shared
