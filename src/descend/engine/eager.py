"""The eager backend: the update rule on whole tensors, in torch operations.

It is the reference for the others, and takes whatever they do not: complex numbers, sparse
gradients, unusual layouts and devices, tensor subclasses, overlapping memory, and steps that
autograd or a CUDA graph must see (`differentiable`, `capturable`).
"""

import math
from operator import is_
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from descend.engine.hyperparameters import Options
from descend.engine.measure import Measure
from descend.engine.measured import Totals
from descend.engine.pointers import CHANGED, SAME, Found
from descend.engine.rule import Rule, WholeRule
from descend.engine.rule_arguments import where_written
from descend.engine.step_inputs import Member, refused_count
from descend.engine.tensor_layout import DENSE_TYPES, extent, lost_memory
from descend.engine.written_memory import entangled
from descend.errors import RuleError

SUMMED = 16_384
"""So many elements torch adds up on one thread: from 32,768 on their order hangs on the threads."""

STACKED = {False: 2**17, True: 2**25}
"""The most elements that a rule takes together, by whether they lie on a GPU. On the CPU stacks of
matrices that do not fit into its caches are slower than one matrix after the other (SOAP's of 256 x
256 by 1.6); on a GPU it is a matter of room: 128 MiB for each temporary tensor."""

Prologue: TypeAlias = tuple[float, float | None]
"""The first changes of a gradient: its factor, and the largest magnitude of an element."""


class EagerBatch:
    """Members that are taken one after the other, in the order of the optimizer's parameters."""

    backend: ClassVar[str] = "eager"
    atomic: ClassVar[bool] = False

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._active: list[Member] = []
        self._work: list[Work] = []
        self._seen: dict[Member, tuple[Any, ...]] = {}
        # Those of the measures so far.
        self._sums: dict[Member, list[Tensor]] = {}

    @property
    def turns(self) -> int:
        """How many measures the rule of a member has at most."""
        return max([len(_measures(member)) for member in self.members], default=0)

    @property
    def active(self) -> int:
        """How many members have a gradient in this step."""
        return len(self._active)

    def active_members(self) -> list[Member]:
        """Those members."""
        return self._active

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        self.members = sorted([*self.members, *members], key=lambda member: member.position)
        for member in members:
            assert member.grad is not None
            shapes = [tensor.shape for tensor in (member.param, *member.states())]
            self._seen[member] = (member.grad.layout, member.written(), shapes)

    def look(self, params: list[Any], grads: list[Any]) -> Found:
        """Take note of the gradients; see whether anything has changed its kind or shape."""
        self._active = []
        for member in self.members:
            grad, param = grads[member.position], member.param
            if grad is None:
                continue
            layout, written, shapes = self._seen[member]
            if grad.shape != param.shape or grad.layout is not layout:
                return CHANGED
            now = member.written()
            # Another tensor is checked as when it came; so is one that has another shape now.
            if not all(map(is_, now, written)):
                return CHANGED
            if [tensor.shape for tensor in now[: len(shapes)]] != shapes:
                return CHANGED
            if any(map(lost_memory, (grad, *now))):
                return CHANGED
            member.grad = grad
            self._active.append(member)
        return SAME

    def written(self) -> list[tuple[int, int]]:
        """The memory that is written, of members without a gradient too."""
        ranges = [extent(one) for member in self.members for one in member.written()]
        return [(start, end) for start, end in ranges if end > start]

    def add_up(
        self,
        turn: int,
        options: list[Options],
        factors: list[float],
        limit: float | None,
        totals: Totals,
    ) -> None:
        """Measure the members whose rules ask for it before they update."""
        if turn == 0:
            self._sums = {}
        for member in self._active:
            measures = _measures(member)
            if turn >= len(measures):
                continue
            part, measure = member.part, measures[turn]
            assert isinstance(part.rule, Rule)
            group = options[part.group]
            counts = _counts_of(member, group) or (1 if member.first else 2,)
            with torch.set_grad_enabled(bool(group.get("differentiable"))):
                measured = self._measured(member, totals) if turn else {}
                numbers = part.rule.term_numbers(measure, group, counts, measured)
            work = Work(group, (factors[part.group], limit), counts, {**numbers})
            sums = _sums(member, measure, work)
            self._sums.setdefault(member, []).append(sums)
            totals.add(part.rule, measure, sums)

    def prepare(
        self, options: list[Options], factors: list[float], limit: float | None, totals: Totals
    ) -> None:
        """Work out every member's numbers now: nothing has been written yet if one fails."""
        known: dict[Any, dict[str, Any]] = {}
        self._work = []
        for member in self._active:
            part = member.part
            group = options[part.group]
            counts = _counts_of(member, group) or (1 if member.first else 2,)
            # Captured counts are tensors of their own; equal numbers give equal numbers.
            key = (part, *(map(id, counts) if _captured(group) else counts))
            if member in self._sums:
                numbers = _numbers(member, group, counts, self._measured(member, totals))
            elif key in known:
                numbers = known[key]
            else:
                numbers = known[key] = _numbers(member, group, counts, {})
            self._work.append(Work(group, (factors[part.group], limit), counts, numbers))
        self._sums = {}

    def _measured(self, member: Member, totals: Totals) -> dict[str, Tensor]:
        """The sums, means and totals that a member's rule asks for, each of no dimensions.

        Those that are known by now, where its measures are being made.
        """
        rule = member.part.rule
        assert isinstance(rule, Rule)
        # A complex element is two real ones to a rule.
        many = member.param.numel() * (1 + member.param.is_complex())
        found: dict[str, Tensor] = {}
        for measure, sums in zip(rule.measures, self._sums[member], strict=False):
            found |= totals.measured(rule, measure, sums, sums.new_full((1,), max(1, many)))
        return {name: value[0] for name, value in found.items()}

    def launch(self) -> None:
        """Update parameters, state and step counts."""
        alike: dict[Any, list[tuple[Member, Work]]] = {}
        keys = [_likeness(*one) for one in zip(self._active, self._work, strict=True)]
        if len({*keys}) < len(keys) and any(keys):
            # Each of those that share memory must see what the ones before it have done.
            for index in entangled(self._active):
                keys[index] = None
        for member, work, key in zip(self._active, self._work, keys, strict=True):
            if key is None:
                step = _whole_step if isinstance(member.part.rule, WholeRule) else _step
                step(member, work)
                member.grad = None
            else:
                alike.setdefault(key, []).append((member, work))
        for same in alike.values():
            most = max(1, STACKED[same[0][0].param.is_cuda] // max(1, same[0][0].param.numel()))
            for first in range(0, len(same), most):
                _whole_steps(same[first : first + most])
        self._work = []

    def squares(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, and whether all elements are finite."""
        return squares([member.grad for member in self._active if member.grad is not None])


def squares(grads: list[Tensor]) -> tuple[list[float], bool]:
    """The sums of squares of gradients of any kind, and whether all elements are finite."""
    found, finite = [], True
    for one in grads:
        grad = one.detach()
        if grad.layout is not torch.strided:
            grad = grad.coalesce().values()
        if grad.is_complex():
            grad = torch.view_as_real(grad.resolve_conj())
        norm = _everywhere(torch.linalg.vector_norm(grad, dtype=torch.float64)).item()
        found.append(norm * norm)
        finite = finite and (math.isfinite(norm) or bool(_everywhere(grad.isfinite().all())))
    return found, finite


def _everywhere(total: Tensor) -> Tensor:
    """The value of a reduction over all ranks, where a gradient is spread over several."""
    gathered: Tensor = total.full_tensor() if hasattr(total, "full_tensor") else total
    return gathered


class Work(NamedTuple):
    """One member's step.

    Args:
        options: its group's.
        prologue: what happens to its gradient first.
        counts: the number of this step, counted from 1, and the counters as they are.
        numbers: the rule's scalars, then the counters' new values; or those of a measure; empty for
            a `WholeRule`.
    """

    options: Options
    prologue: Prologue
    counts: tuple[Any, ...]
    numbers: dict[str, Any]


def _measures(member: Member) -> tuple[Measure, ...]:
    rule = member.part.rule
    return rule.measures if isinstance(rule, Rule) else ()


def _sums(member: Member, measure: Measure, work: Work) -> Tensor:
    """The sums of one member, one for each term, as the only row of a table."""
    flags, grad = member.part.flags, member.grad
    assert grad is not None
    recorded = bool(work.options.get("differentiable"))
    with torch.set_grad_enabled(recorded):
        # What autograd remembers of the parameter must outlive the update.
        param = member.param.clone() if recorded else member.param
        own, grad = _widened(work, (param, *member.states()), grad)
        # Kernels do so with a product that is returned; here all is: no square is too large.
        own, grad = [one.double() for one in own], grad.double()
        present = dict(zip(member.names, own[1:], strict=True))
        terms = measure.terms(
            own[0],
            grad,
            *[present.get(name) for name in measure.arguments.states],
            **work.numbers,
            **{name: flags[name] for name in measure.arguments.flags},
        )
        if not isinstance(terms, tuple) or len(terms) != len(measure.names):
            raise RuleError(
                f"{where_written(measure.terms)} must return a tuple of the terms "
                f"{', '.join(measure.names)}, and returned {terms!r}"
            )
        return torch.stack([_added_up(term) for term in terms])[None]


def _added_up(term: Tensor) -> Tensor:
    """The sum of a tensor in float64; on the CPU the same bits for any number of threads."""
    if type(term) is Tensor and term.device.type == "cpu" and term.numel() > SUMMED:
        parts = torch.split(term.flatten(), SUMMED)
        return _added_up(torch.stack([part.sum(dtype=torch.float64) for part in parts]))
    return _everywhere(term.sum(dtype=torch.float64))


def _numbers(
    member: Member, options: Options, counts: tuple[Any, ...], measured: dict[str, Tensor]
) -> dict[str, Any]:
    if not isinstance(member.part.rule, Rule):
        return {}
    with torch.set_grad_enabled(bool(options.get("differentiable"))):
        return {
            # Torch takes no other numbers, such as fractions.
            name: value if isinstance(value, Tensor) else float(value)
            for name, value in member.part.rule.numbers(options, counts, measured).items()
        }


def _whole_step(member: Member, work: Work) -> None:
    rule, state, param, grad = member.part.rule, member.state, member.param, member.grad
    assert isinstance(rule, WholeRule)
    assert grad is not None
    recorded = bool(work.options.get("differentiable"))
    (step,) = work.counts
    with torch.set_grad_enabled(recorded):
        grad = _prepared(grad.to(param.device), work.prologue)
        if recorded:
            result = param.clone()
            states = {name: state[name].clone() for name in member.names}
            rule.update(result, grad, states, work.options, step)
            param.copy_(result)
            state.update(states)
        else:
            rule.update(param, grad, state, work.options, step)
        if rule.counts_steps:
            state["step"] += 1


def _likeness(member: Member, work: Work) -> Any:
    """The key of those members that a rule may take together; None for one that goes alone."""
    rule, param, grad = member.part.rule, member.param, member.grad
    if not isinstance(rule, WholeRule) or rule.together is None:
        return None
    if work.options.get("differentiable") or _captured(work.options):
        return None
    # A DTensor's shape is not that of its memory, and another type may mean anything.
    if type(param) not in DENSE_TYPES or type(grad) not in DENSE_TYPES:
        return None
    assert grad is not None
    return member.part, param.shape, param.dtype, grad.dtype, param.device, *work.counts


def _whole_steps(same: list[tuple[Member, Work]]) -> None:
    """One step of members that are alike; see `_likeness`."""
    if len(same) == 1:
        _whole_step(*same[0])
        same[0][0].grad = None
        return
    rule, (_, work) = same[0][0].part.rule, same[0]
    assert isinstance(rule, WholeRule)
    assert rule.together is not None
    with torch.no_grad():
        grads = [
            _prepared(member.grad.to(member.param.device), work.prologue)
            for member, work in same
            if member.grad is not None
        ]
        params = [member.param for member, _ in same]
        states = [member.state for member, _ in same]
        (step,) = work.counts
        rule.together(params, grads, states, work.options, step)
        for member, _ in same:
            if rule.counts_steps:
                member.state["step"] += 1
            member.grad = None


def _step(member: Member, work: Work) -> None:
    rule, state, param, grad = member.part.rule, member.state, member.param, member.grad
    assert isinstance(rule, Rule)
    assert grad is not None
    recorded = bool(work.options.get("differentiable"))
    with torch.set_grad_enabled(recorded):
        tensors = (param, *member.states())
        if grad.layout is torch.strided or not (rule.sparse and rule.sparse(member.part.flags)):
            dense = grad if grad.layout is torch.strided else grad.to_dense()
            if recorded:
                new = _updated(rule, member, work, (param.clone(), *tensors[1:]), dense)
                param.copy_(new[0])
                state.update(zip(member.names, new[1:], strict=True))
            else:
                new = _updated(rule, member, work, tensors, dense)
                for old, value in zip(tensors, new, strict=True):
                    old.copy_(value)
        elif (grad := grad.coalesce())._nnz():
            # Only the rows that the gradient holds: a zero gradient leaves all others alone.
            rows = tuple(grad.indices())
            new = _updated(rule, member, work, tuple(old[rows] for old in tensors), grad.values())
            for old, value in zip(tensors, new, strict=True):
                old[rows] = value
        if rule.counts_steps:
            state["step"] += 1
        for name in rule.counters:
            state[name] = _counter(state[name], work.numbers[name], recorded)


def _counter(old: Tensor, value: Any, recorded: bool) -> Tensor:
    """A counter with its new value; the same tensor, unless autograd records the step."""
    if recorded and isinstance(value, Tensor):
        return value.to(old)
    if isinstance(value, Tensor):
        # A FakeTensor, or one of the meta device, has no value to copy.
        unknown = type(old) is not Tensor or (value.is_meta and not old.is_meta)
        return old if unknown else old.copy_(value)
    if type(old) is Tensor:
        return old.fill_(value)
    return torch.tensor(value, dtype=old.dtype)  # a FakeTensor forgets its value where it is filled


def _captured(options: Options) -> bool:
    return bool(options.get("capturable"))


def _counts_of(member: Member, options: Options) -> tuple[Any, ...]:
    """The number of this step and the counters as they are: numbers, or tensors if captured."""
    counts = member.counts()
    if not counts:
        return ()
    if _captured(options):
        return (counts[0].double() + 1, *counts[1:])
    taken = counts[0].item()
    if not 0 <= taken < math.inf:
        raise refused_count(member, "step", counts[0])
    others = (count if count.requires_grad else count.item() for count in counts[1:])
    return (int(taken) + 1, *others)


def _prepared(grad: Tensor, prologue: Prologue) -> Tensor:
    """The gradient as the rule sees it: scaled, and cut to its limit."""
    factor, limit = prologue
    if grad.dtype in (torch.float16, torch.bfloat16) and (abs(factor) != 1 or limit is not None):
        grad = grad.float()  # as kernels do: a factor may take it out of the range of 16 bits
    if factor != 1:
        grad = grad * factor
    if limit is not None:
        if grad.is_complex():
            return torch.view_as_complex(torch.view_as_real(grad).clamp(-limit, limit))
        return grad.clamp(-limit, limit)
    return grad


def _updated(
    rule: Rule, member: Member, work: Work, tensors: tuple[Tensor, ...], grad: Tensor
) -> list[Tensor]:
    """New values of the parameter and its state (or of rows of them), in their own dtypes."""
    complex_ = tensors[0].is_complex()
    own, grad = _widened(work, tensors, grad)
    present = dict(zip(member.names, own[1:], strict=True))
    scalars = {name: work.numbers[name] for name in rule.scalar_names}
    states = [present.get(name) for name in rule.states]
    new = rule.update(own[0], grad, *states, **scalars, **member.part.flags)
    if not isinstance(new, tuple) or len(new) != 1 + len(rule.states):
        raise RuleError(
            f"{where_written(rule.update)} must return a tuple of the new "
            f"{', '.join(('param', *rule.states))}, and returned {new!r}"
        )
    kept = [new[0], *(new[1 + i] for i, name in enumerate(rule.states) if name in present)]
    # What becomes another tensor's value must not change when its own tensor is written to.
    kept = [
        value.clone() if any(value is one for one in (*own, grad) if one is not mine) else value
        for value, mine in zip(kept, own, strict=True)
    ]
    return [
        (torch.view_as_complex(value.contiguous()) if complex_ else value).to(old.dtype)
        for value, old in zip(kept, tensors, strict=True)
    ]


def _widened(work: Work, tensors: tuple[Tensor, ...], grad: Tensor) -> tuple[list[Tensor], Tensor]:
    """Parameter and states, and the gradient as the rule sees it, in the arithmetic's dtype."""
    param = tensors[0]
    complex_, compute = param.is_complex(), _compute(param)
    own = [_real(tensor.to(param.device), complex_).to(compute) for tensor in tensors]
    return own, _prepared(_real(grad.to(param.device), complex_).to(compute), work.prologue)


def _compute(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype in (torch.float64, torch.complex128) else torch.float32


def _real(tensor: Tensor, complex_: bool) -> Tensor:
    """A complex tensor as pairs of real numbers, which is how torch's optimizers take them."""
    if not complex_:
        return tensor
    return torch.view_as_real(
        tensor.resolve_conj() if tensor.is_complex() else tensor.to(torch.complex128)
    )
