"""One parameter's part in a step, checked: what goes into a kernel and what must not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack as _any_mode

from descend.engine.hyperparameters import Options
from descend.engine.rule import AnyRule, Flags, Rule, State
from descend.engine.tensor_layout import copied_like, filled_like, is_expanded, lost_memory
from descend.errors import GradientError, ParameterError, StateError

ANEW = "to start it anew: del optimizer.state[parameter]"
_CPU = torch.device("cpu")


class Place(NamedTuple):
    """A parameter as a message names it: its optimizer, its group, its place there, its name."""

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


@dataclass(frozen=True, eq=False)
class Part:
    """The parameters of a group that share a rule: all that they have in common.

    Args:
        owner: the optimizer's name.
        group: the group's index.
        param_names: the names of the group's parameters, if it has any.
        rule: what updates them.
        flags: the rule's, under the group's options.
        scaled: whether gradients are multiplied by a factor first.
        by_torch: whether torch operations must take them: autograd or a CUDA graph sees the step.
    """

    owner: str
    group: int
    param_names: list[str] | None
    rule: AnyRule
    flags: Flags
    scaled: bool = False
    by_torch: bool = False

    @cached_property
    def states(self) -> tuple[str, ...] | None:
        """The names of the state tensors, if those of all parameters are the same."""
        return self.rule.present(self.flags) if isinstance(self.rule, Rule) else None

    def shapes(self, param: Tensor) -> Mapping[str, tuple[int, ...]]:
        """The shape of each state tensor of a parameter."""
        if self.states is not None:
            return dict.fromkeys(self.states, param.shape)
        return self.rule.shapes(param, self.flags)


@dataclass(eq=False, slots=True)
class Member:
    """A parameter with a gradient, its state (made where it is missing) and its place.

    Args:
        part: its group and rule.
        position: its index among all parameters of the optimizer.
        within: its index in the group.
        param: the parameter.
        grad: its gradient; None once it is no longer needed, so that no plan keeps it alive.

    Attributes:
        names: of its state tensors, in the order of the rule.
        state: its state, complete; not yet the optimizer's if `new` is set.
        new: the entries that were missing, or had to move.
        first: whether this step is the first that its state sees.
    """

    part: Part
    position: int
    within: int
    param: Tensor
    grad: Tensor | None
    names: tuple[str, ...] = ()
    state: State = field(default_factory=dict)
    new: dict[str, Tensor] = field(default_factory=dict)
    first: bool = False

    def __str__(self) -> str:
        """Its place, as a message names it."""
        part = self.part
        return str(Place(part.owner, part.group, self.within, part.param_names))

    def states(self) -> tuple[Tensor, ...]:
        """Its state tensors, in the order of the rule's update."""
        return tuple([self.state[name] for name in self.names])

    def counts(self) -> tuple[Tensor, ...]:
        """Its step count and counters."""
        return tuple([self.state[name] for name in self.part.rule.counts])

    def written(self) -> tuple[Tensor, ...]:
        """All tensors that its step changes."""
        return (self.param, *self.states(), *self.counts())


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
    # A sparse gradient has no memory of its own, but values and indices have.
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
    # Torch would refuse it too, but with another parameter updated already.
    if param.is_inference() and not torch.is_inference_mode_enabled():
        raise ParameterError(
            f"{place}: the parameter was made in inference mode, so it cannot be updated; "
            "make it outside of torch.inference_mode(), or pass parameter.clone()"
        )
    if is_expanded(param):
        raise ParameterError(
            f"{place}: several elements of the parameter share one memory location "
            "(an expanded tensor), so it cannot be updated; pass parameter.clone() instead"
        )
    if not (param.is_floating_point() or param.is_complex()):
        raise ParameterError(
            f"{place}: the parameter is of {param.dtype}, which would cut off every update; train "
            "parameter.float(), or give it no gradient"
        )


def _check_layout(options: Options, rule: AnyRule, grad: Tensor, place: object) -> None:
    """Refuse a gradient that is dense, or sparse, where the rule takes only the other."""
    if grad.layout is torch.strided:
        if not rule.dense:
            raise GradientError(
                f"{place}: the gradient is dense, and this optimizer takes sparse gradients "
                "only; use Adam, or build the layer with sparse=True"
            )
    elif rule.sparse is None:
        if options.get("cautious"):
            raise GradientError(
                f"{place}: the gradient is sparse, and cautious=True takes dense gradients only: "
                "it counts in how many elements of the parameter a step goes down the gradient; "
                "build the layer with sparse=False, or leave cautious out"
            )
        raise GradientError(
            f"{place}: the gradient is sparse, and this optimizer takes dense gradients "
            "only; use SGD, Adagrad or SparseAdam, or build the layer with sparse=False"
        )


def admit(options: Options, stored: State | None, member: Member) -> Member:
    """Check a parameter against its gradient and state, and make the state that is missing.

    Nothing of the optimizer's changes here: a later parameter may be refused.

    Raises:
        GradientError: the gradient's shape or kind does not fit.
        ParameterError: the parameter cannot be written to.
        StateError: the state does not fit the parameter.
    """
    part, param, grad = member.part, member.param, member.grad
    rule = part.rule
    assert grad is not None
    check_kind(param, grad, member)
    if options.get("differentiable") and param.is_leaf and param.requires_grad:
        raise ParameterError(
            f"{member}: with differentiable=True autograd records the update, which a leaf "
            "tensor that requires a gradient forbids; pass parameter.clone()"
        )
    _check_layout(options, rule, grad, member)
    state: State = stored or {}
    new: dict[str, Tensor] = {}
    for name in rule.counts:
        count = state.get(name)
        wanted = _as_count(options, member, name, count)
        if wanted is not count:
            new[name] = wanted
    # Shapes first: a rule on whole tensors has other states for a matrix than for a vector.
    shapes = part.shapes(param)
    member.names = part.states or tuple(shapes)
    for name, shape in shapes.items():
        value = state.get(name)
        if value is None:
            member.first = True
            if name in rule.copies:
                new[name] = copied_like(param, bool(options.get("differentiable")))
                continue
            start = rule.start(name, options) if name in rule.origins else 0.0
            dtype = rule.dtype(name, param.dtype) if rule.dtype else param.dtype
            new[name] = (
                filled_like(param, start)
                if shape == param.shape and dtype is param.dtype
                else param.detach().new_full(shape, start, dtype=dtype)
            )
        else:
            _check_state(member, name, value, shape)
            # The state follows a parameter that was moved, as the optimizer's docstring promises.
            if value.device != param.device:
                new[name] = value.to(param.device)
    member.new = new
    # Without a copy where it is all old, or all new: the optimizer's own dict, or what becomes it.
    member.state = new if not state else {**state, **new} if new else state
    return member


def refuse_lost_memory(member: Member) -> None:
    """Refuse a member some of whose memory was released.

    Raises:
        GradientError: of the parameter or the gradient.
        StateError: of its state.
    """
    assert member.grad is not None
    check(member.param, member.grad, member)
    for name, value in zip(member.names, member.states(), strict=True):
        _check_state(member, name, value, value.shape)


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
    elif is_expanded(value):
        why = "has several elements that share one memory location (an expanded tensor)"
    else:
        return
    raise StateError(f"{member}: its state {name!r} {why}; {ANEW}")


def _as_count(options: Options, member: Member, name: str, count: Any) -> Tensor:
    """A member's step count or counter as it should be; made if it is missing.

    Raises:
        StateError: it is no number, or no count.
    """
    # On the CPU reading it costs nothing; a CUDA graph has to count on the device.
    device = member.param.device if options.get("capturable") else _CPU
    if count is None:
        return counted(name, member.part.rule.start(name, options), device)
    if isinstance(count, Tensor) and (lost := lost_memory(count)) is not None:
        raise StateError(f"{member}: its state {name!r} has lost memory: it was {lost}; {ANEW}")
    try:
        value = counted(name, count, device)
        # On another device the count is read by the step alone: a look at it would wait for it.
        seen = name == "step" and type(value) is Tensor and value.device.type == "cpu"
        good = not seen or 0 <= float(value) < np.inf
    except (TypeError, ValueError, RuntimeError) as error:
        raise refused_count(member, name, count) from error
    if not good:
        raise refused_count(member, name, count)
    return value


def refused_count(member: Member, name: str, count: object) -> StateError:
    """The error for a step count or counter that is none."""
    number = isinstance(count, Tensor) and count.numel() == 1
    kind = "a count of steps, 0 or more" if number and name == "step" else "one number"
    return StateError(f"{member}: its state {name!r} is {count!r}, but it must be {kind}; {ANEW}")


def counted(name: str, value: Any, device: torch.device) -> Tensor:
    """A step count (float32, as in torch) or a counter (float64) as it should be: one element."""
    dtype = torch.float32 if name == "step" else torch.float64
    if isinstance(value, Tensor):
        # The very tensor, where it is as it should be: others may look at it, too.
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


def part_shared_counts(members: list[Member], seen: set[int]) -> None:
    """Give every parameter counts of its own, where a loaded state shares one.

    Args:
        members: the newcomers.
        seen: where the counts of those before them lie; theirs are added.
    """
    for member in members:
        if member.state is member.new:
            continue  # all of it was made just now
        for name, count in zip(member.part.rule.counts, member.counts(), strict=True):
            # Counted twice a step, it would be wrong for both.
            own = count.clone() if _memory(count) in seen else count
            if own is not count:
                # Copies: until the step is sure, nothing of the optimizer's changes.
                member.state = {**member.state, name: own}
                member.new = {**member.new, name: own}
            seen.add(_memory(own))


def _memory(count: Tensor) -> int:
    """Where a count lies. A tensor of another type, such as a FakeTensor, has no memory to tell."""
    return count.data_ptr() if type(count) is Tensor else id(count)
