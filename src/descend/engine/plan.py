"""Which parameters go into which kernel: decided when a parameter first has a gradient, then kept.

    params + grads -> step inputs -> batches (one per backend and dtype combination) -> kernel calls

A plan stands while training changes: another lr, other gradients or none, tensors at another
address. It takes in a parameter whose first gradient comes later. It is made anew only where
something else has changed: a parameter group, a dtype, a shape, a state that was replaced.
"""

import gc
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from operator import is_, is_not, itemgetter
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from descend.checks import plain_number
from descend.engine import cpu, eager, gpu, interrupts, sparse_rows
from descend.engine.hyperparameters import Hyperparameter, Options, validate
from descend.engine.pointers import BadCountError, set_apart
from descend.engine.rule import AnyRule, State, Variant
from descend.engine.step_inputs import (
    DENSE_TYPES,
    Member,
    admit,
    counted_as,
    entangled,
    extent,
    plain,
    refuse_lost_memory,
)
from descend.errors import ConflictError, StateError

BACKENDS = (cpu, gpu)
"""The backends with kernels, in order of preference; `eager` takes the rest."""

FILLED = (Tensor, np.ndarray)
"""The types of a hyperparameter that may be filled in place from one step to the next."""

NORM_GUARD = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it."""

MANY = 1_000
"""From so many new parameters on the garbage collector would be called often."""

RuleOf: TypeAlias = AnyRule | Callable[[Tensor, Options], AnyRule]
"""The rule of an optimizer; or which of its rules updates a parameter under its options."""

_forced: str | None = None


@contextmanager
def forced_backend(name: str) -> Iterator[None]:
    """Let every step in the block run on this backend, where it has a kernel, else on eager.

    For tests and measurements. With `TRITON_INTERPRET=1`, "gpu" takes CPU tensors too.

    Args:
        name: "eager", "cpu" or "gpu".

    Raises:
        ValueError: there is no such backend.
    """
    global _forced  # noqa: PLW0603 - a setting of the process
    known = [eager.name, *(backend.name for backend in BACKENDS)]
    if name not in known:
        raise ValueError(f"there is no backend {name!r}; known: {', '.join(known)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


@dataclass(frozen=True)
class Clipping:
    """What happens to gradients on their way into the update; the gradients stay as they are.

    Args:
        norm: the largest global norm, or None.
        value: the largest magnitude of an element, after that, or None.
        skip_nonfinite: leave the step out if any gradient element is not finite.

    Example:
        >>> Clipping(norm=1.0).norm
        1.0
    """

    norm: float | None = None
    value: float | None = None
    skip_nonfinite: bool = False


class Batch(Protocol):
    """What a backend makes of members that share one kernel."""

    backend: str

    @property
    def whole(self) -> bool:
        """Whether a launch is one call, which no signal splits."""

    @property
    def members(self) -> list[Member]:
        """The parameters of the batch."""

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""

    @property
    def active(self) -> int:
        """How many members have a gradient in this step."""

    def active_members(self) -> list[Member]:
        """Those members."""

    def prepare(self, options: list[Options], factors: list[float], limit: Any) -> None:
        """Work out what depends on the step and the hyperparameters."""

    def measure(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, and whether all elements are finite."""

    def launch(self) -> None:
        """Update parameters, state and step counts."""


class Stepper:
    """Steps one optimizer: keeps its plan, and sees to it that the plan still holds.

    Args:
        owner: the optimizer's name, for messages.
        rule_of: its rule, or which of its rules updates a parameter.
        hyperparameters: what it declares.
    """

    def __init__(
        self, owner: str, rule_of: RuleOf, hyperparameters: Mapping[str, Hyperparameter]
    ) -> None:
        self._owner = owner
        self._rule_of = rule_of
        self._declared = hyperparameters
        self._plan: _Plan | None = None
        # The tables of a plan are one step's: two threads must not fill them at once.
        self._lock = threading.RLock()
        self.ahead: set[Tensor] = set()
        """The parameters whose state was made before their first step, and which had none yet."""
        _steppers.add(self)

    def step(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        clipping: Clipping,
        unscale: float | None = None,
    ) -> bool:
        """Update every parameter that has a gradient.

        Args:
            groups: the parameter groups.
            state: per parameter; made here where it is missing.
            clipping: what happens to the gradients first.
            unscale: what the gradients were multiplied by (GradScaler), or None.

        Returns:
            False if `clipping` left the step out because of a non-finite gradient.

        Raises:
            DescendError: something does not fit; nothing has changed then.
        """
        with self._lock:
            return self._step(groups, state, clipping, unscale)

    def _step(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        clipping: Clipping,
        unscale: float | None,
    ) -> bool:
        params = [param for group in groups for param in group["params"]]
        grads = [param.grad for param in params]
        scaled = unscale is not None or clipping.norm is not None
        mode = (scaled, clipping.value is not None, _forced)
        plan = self._planned(groups, state, params, grads, mode)
        batches = [batch for batch in plan.batches if batch.active]
        if not batches:
            self._plan = plan
            return True
        plan.refuse_capture()
        factor = 1.0 if unscale is None else 1.0 / unscale
        if clipping.norm is not None or clipping.skip_nonfinite:
            measures = [batch.measure() for batch in batches]
            if clipping.skip_nonfinite and not all(finite for _, finite in measures):
                if not (plan.new or plan.sequential):  # else it holds this step's gradients
                    self._plan = plan
                return False
            if clipping.norm is not None:
                norm = math.sqrt(_total(squares for squares, _ in measures)) * factor
                coefficient = clipping.norm / (norm + NORM_GUARD)
                # As torch.clamp(max=1): a NaN stays.
                factor *= 1.0 if coefficient > 1 else coefficient
        factors = plan.signs if factor == 1 else [sign * factor for sign in plan.signs]
        if len(batches) == 1 and batches[0].whole and not plan.new:
            batches[0].prepare(plan.options, factors, clipping.value)
            batches[0].launch()
            self._plan = plan
            return True
        with interrupts.deferred():
            for batch in batches:
                batch.prepare(plan.options, factors, clipping.value)
            plan.commit(state)
            for batch in batches:
                batch.launch()
        self._plan = plan
        return True

    def init_state(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: Iterable[Tensor],
    ) -> None:
        """Make the state that is missing, as the first step would, and take no step.

        Args:
            groups: the parameter groups.
            state: per parameter.
            params: those whose state is made.

        Raises:
            DescendError: something does not fit; nothing has changed then.
        """
        with self._lock:
            wanted, members = set(params), []
            for index, group in enumerate(groups):
                options = _Group(self._owner, self._declared, group, index).options
                for within, param in enumerate(group["params"]):
                    if param not in wanted:
                        continue
                    where = (self._owner, index, within, group.get("param_names"))
                    rule = self._rule_of
                    rule = rule(param, options) if callable(rule) else rule
                    # A gradient of the kind that the rule takes: no more is asked of it.
                    shape = param.shape
                    grad = param if rule.dense else torch.empty(shape, layout=torch.sparse_coo)
                    member = Member(0, where, index, rule, rule.flags(options), param, grad)
                    members.append(admit(options, state.get(param), member))
            self._plan = None
            for member in members:
                if member.new:
                    if not state.get(member.param):
                        self.ahead.add(member.param)
                        state[member.param] = {}
                    state[member.param].update(member.new)

    def untouched(self, param: Tensor, stored: State | None) -> bool:
        """Whether a state is as it was made before the first step; or is not there at all."""
        return not stored or (param in self.ahead and _unused(stored))

    def _planned(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        grads: list[Tensor | None],
        mode: tuple[bool, bool, str | None],
    ) -> "_Plan":
        """The plan that is right for these tensors: the one that is there, or a new one."""
        # A step that fails leaves no plan half changed, nor one that keeps its gradients.
        plan, self._plan = self._plan, None
        if plan is None or not (plan.holds(groups, state, params, mode) and plan.take(grads)):
            made_from = (
                self._owner,
                self._rule_of,
                self._declared,
                groups,
                state,
                params,
                mode,
                self.ahead,
            )
            plan = _Plan(*made_from)
            if not plan.take(grads):
                plan.refuse_lost_memory(grads)
                plan = _Plan(*made_from, shared=True)
                if not plan.take(grads):
                    raise StateError(
                        f"{self._owner}: parameters, gradients or state changed while the step "
                        "looked at them; another thread must not change them during a step"
                    )
        return plan

    def explain(self) -> list[dict[str, Any]]:
        """How the last step ran: one record per kernel call."""
        if self._plan is None:
            return []
        return [
            {
                "backend": batch.backend,
                "tensors": len(members),
                "elements": sum(member.param.numel() for member in members),
                "groups": len({member.group for member in members}),
            }
            for batch in self._plan.batches
            if (members := batch.active_members())
        ]


_steppers: "weakref.WeakSet[Stepper]" = weakref.WeakSet()


def _unlock() -> None:
    """A forked child has no thread that could release a lock, or end a step under way."""
    for stepper in list(_steppers):
        stepper._lock = threading.RLock()
        stepper._plan = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def _unused(stored: State) -> bool:
    """Whether no step has been taken with a state."""
    return all(map(is_zero, [stored["step"]] if "step" in stored else stored.values()))


def is_zero(value: Any) -> bool:
    """Whether a number or every element of a tensor is zero; one without data counts as such."""
    if not isinstance(value, Tensor):
        return not value
    if value.is_meta or isinstance(value, FakeTensor):
        return True
    return not bool((value.coalesce().values() if value.is_sparse else value).any())


@contextmanager
def _no_collection(tensors: int) -> Iterator[None]:
    """Keep the garbage collector still while the state of many tensors is made.

    None of it is garbage, and to look through all of it again and again took twice as long as to
    make it.
    """
    paused = tensors >= MANY and gc.isenabled()
    if paused:
        gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def _total(sums: Iterator[list[float]]) -> float:
    """The sum of all, rounded once: it depends neither on their order nor on who joined when."""
    values = [value for some in sums for value in some]
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, eq=False)
class _Part:
    """What all parameters of a group that share a rule have in common."""

    group: int
    rule: AnyRule
    flags: Mapping[str, bool]
    pairs: tuple[tuple[str, bool], ...]
    maximize: bool
    by_torch: bool
    """Whether torch operations must take them: autograd or a CUDA graph has to see the step."""


class _Plan:
    """The batches of an optimizer's parameters, and everything that they were made from.

    Args:
        shared: parameters may share memory with each other, or a gradient with a parameter: find
            out which do, and take those one after the other. That holds for one step.
    """

    def __init__(
        self,
        owner: str,
        rule_of: RuleOf,
        declared: Mapping[str, Hyperparameter],
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        mode: tuple[bool, bool, str | None],
        ahead: set[Tensor],
        shared: bool = False,
    ) -> None:
        self._owner, self._rule_of, self._declared = owner, rule_of, declared
        self._mode = mode
        self._ahead = ahead
        self._begin: set[Tensor] = set()
        self._shared = shared
        self._used = False
        self._groups = [_Group(owner, declared, group, i) for i, group in enumerate(groups)]
        self.options: list[Options] = [group.options for group in self._groups]
        rules = [self._rules_of(group, index) for index, group in enumerate(groups)]
        self._rules = rules
        self._parts = [
            {rule: self._part(index, rule) for rule in of_group}
            for index, of_group in enumerate(rules)
        ]
        self.signs = [-1.0 if options.get("maximize") else 1.0 for options in self.options]
        self._params = params
        self._given = groups
        self._where = [
            (index, within)
            for index, group in enumerate(groups)
            for within in range(len(group["params"]))
        ]
        self._param_names = [group.get("param_names") for group in groups]
        self._absent: list[int] = list(range(len(params)))
        """The parameters that have not had a gradient yet."""
        self._state = state
        self._remember()
        self.new: list[Member] = []
        """The members whose state is not yet in the optimizer, or is at its beginning."""
        # In a CUDA graph these would take the same step again and again.
        self._uncaptured: list[Member] = []
        self.batches: list[Batch] = []
        self._fused: list[cpu.Batch | gpu.Batch] = []
        self.sequential: list[eager.Batch] = []
        self._by_kind: dict[Any, Any] = {}
        self._known: dict[Any, Any] = {}
        # In a layout that no kernel walks; another time it may be a usual one.
        self._odd: list[Member] = []
        self._counts: set[int] = set()
        self._sequential_ranges: list[tuple[int, int]] = []

    def _part(self, index: int, rule: AnyRule) -> _Part:
        options = self.options[index]
        flags = rule.flags(options)
        maximize, capturable, differentiable = _switches(options)
        by_torch = capturable or differentiable or self._mode[2] == eager.name or not rule.readable
        return _Part(index, rule, flags, tuple(sorted(flags.items())), maximize, by_torch)

    def refuse_capture(self) -> None:
        """Refuse a step whose numbers a CUDA graph would keep for ever.

        Raises:
            ConflictError: a stream is capturing, and a group is not capturable.
        """
        if self._uncaptured and torch.cuda.is_current_stream_capturing():
            raise ConflictError(
                f"{self._uncaptured[0]}: a CUDA graph is capturing this step, and "
                "capturable=False keeps its count and lr on the host, so every replay would repeat "
                "this very step; pass capturable=True, and lr as a tensor if it is to change"
            )

    def _rules_of(self, group: dict[str, Any], index: int) -> list[AnyRule]:
        """The rule of each of a group's parameters; a single one if it is that of all."""
        rule_of = self._rule_of
        if not callable(rule_of):
            return [rule_of]
        return [rule_of(param, self.options[index]) for param in group["params"]]

    def _remember(self) -> None:
        """Note what the state is."""
        self._states = list(self._state.values())
        self._keys = list(self._state)

    def take(self, grads: list[Tensor | None]) -> bool:
        """Take in these gradients, and the parameters that have one for the first time.

        Args:
            grads: one for each parameter, or None; one in another layout than its parameter is
                replaced by a copy.

        Returns:
            Whether every kernel may go ahead; if not, this plan is of no more use.

        Raises:
            DescendError: something does not fit.
        """
        came = [position for position in self._absent if grads[position] is not None]
        if came:
            with _no_collection(len(came)):
                self._admit(came, grads)
        if self._shared and self._used:
            return False
        self._used = True
        try:
            moved = self._look(grads, came)
        except KeyError:  # a state entry was deleted
            return False
        except BadCountError as error:
            (member,) = error.args
            counted_as(self.options[member.group], member, "step", member.state["step"])
            return False
        apart = moved is False or (moved is True and self._set_apart())
        return apart and (self._shared or self._reads_apart())

    def _look(self, grads: list[Tensor | None], came: list[int]) -> bool | None:
        """Let each batch look at its tensors.

        Returns:
            Whether it must be found out anew which memory is written; None where a batch is wrong
            for what it has been given.
        """
        for one in self.sequential:
            if not one.check(grads):
                return None
        if self._odd and any(m.grad is not None and _walkable(m) for m in self._odd):
            return None
        moved = False
        # Kernels that go over rows look for no overlap themselves; nor does the eager backend,
        # whose tensors may lie elsewhere than in the step before.
        if self.sequential and not self._shared and (came or eager in self._by_kind):
            ranges = self._ranges()
            moved = moved or ranges != self._sequential_ranges
            self._sequential_ranges = ranges
        for batch in self._fused:
            answer = batch.table.check(self._params, grads)
            if answer is None:
                return None
            moved = moved or answer != 0
        return moved

    def _set_apart(self) -> bool:
        """Find out which memory is written; False if two tensors share some."""
        tables = [batch.table for batch in self._fused]
        if not all(table.written_is_plain() for table in tables):
            return False
        if set_apart(tables, self._sequential_ranges):
            return True
        # Those without a gradient may be long gone, and others be there now.
        for table in tables:
            table.forget_inactive()
        return set_apart(tables, self._sequential_ranges)

    def _reads_apart(self) -> bool:
        """Whether no gradient that is read after a kernel's call lies where the kernel writes."""
        return not self._fused or not any(
            self._fused[0].table.is_written(*extent(member.grad))
            for batch in self.sequential
            for member in batch.active_members()
            if member.grad is not None
        )

    def refuse_lost_memory(self, grads: list[Tensor | None]) -> None:
        """Refuse tensors whose memory was released: no kernel takes them, and none says why.

        Raises:
            GradientError: of a parameter or its gradient.
            StateError: of a state.
        """
        for batch in self.batches:
            for member in batch.members:
                member.grad = grads[member.position]
                if member.grad is not None:
                    refuse_lost_memory(member)

    def _admit(self, positions: list[int], grads: list[Tensor | None]) -> None:
        """Take in parameters that have a gradient for the first time."""
        members: list[Member] = []
        single = not callable(self._rule_of)
        for position in positions:
            index, within = self._where[position]
            rules = self._rules[index]
            part = self._parts[index][rules[0 if single else within]]
            param = self._params[position]
            where = (self._owner, index, within, self._param_names[index])
            member = Member(position, where, index, part.rule, part.flags, param, grads[position])
            members.append(admit(self.options[index], self._state.get(param), member))
            if param in self._ahead:
                self._start(member)
        _own_steps([m for m in members if m.state is not m.new], self._counts)
        self.new += [member for member in members if member.new or member.param in self._begin]
        self._sort(members)
        taken = set(positions)
        self._absent = [position for position in self._absent if position not in taken]

    def _start(self, member: Member) -> None:
        """See to it that a state made before the first step is as the step would have made it.

        What starts from the lr starts from the one of this step: the state may have been made at
        another, such as 0.
        """
        param, state = member.param, member.state
        if not _unused(state):
            self._ahead.discard(param)  # what was loaded into it is no beginning
            return
        member.fresh = True
        self._begin.add(param)
        for name in member.rule.from_lr:
            state[name].fill_(member.rule.start(name, self.options[member.group]))

    def _sort(self, members: list[Member]) -> None:
        """Sort members by the kernel that takes them; what no kernel takes goes to eager."""
        shared = entangled(members) if self._shared else set()
        by_kind: dict[Any, list[Member]] = {}
        for index, member in enumerate(members):
            kind = eager if index in shared else self._kind(member)
            by_kind.setdefault(kind, []).append(member)
        for kind, same in by_kind.items():
            if kind not in self._by_kind:
                self._by_kind[kind] = self._batch(kind)
            batch = self._by_kind[kind]
            batch.extend(same)
            self._uncaptured += [
                member
                for member in same
                if member.param.device.type == "cuda"
                and not self.options[member.group].get("capturable")
            ]

    def _ranges(self) -> list[tuple[int, int]]:
        """The memory that is written without a table."""
        return [
            (start, end)
            for batch in self.sequential
            for member in batch.members
            for tensor in (
                member.param,
                *(member.state[name] for name in (*member.names, *member.rule.counts)),
            )
            for start, end in (extent(tensor),)
            if end > start
        ]

    def _kind(self, member: Member) -> Any:
        """Which kernel takes a member: what it is compiled for, and the device; or `eager`."""
        part = self._parts[member.group][member.rule]
        param, grad = member.param, member.grad
        assert grad is not None
        if part.by_torch or type(param) not in DENSE_TYPES:
            return eager
        fresh = member.state is member.new  # what was just made is like the parameter
        states = [] if fresh else [member.state[name].dtype for name in member.names]
        seen = (part, param.dtype, grad.dtype, grad.layout, param.device, *states)
        if seen not in self._known:
            dtypes = tuple(tensor.dtype for tensor in member.operands())
            backend = self._backend(param.device, dtypes)
            kind: Any = (backend, part.rule, part.pairs, dtypes, part.maximize, param.device)
            self._known[seen] = eager if backend is None else kind
        kind = self._known[seen]
        if kind is not eager:
            if kind[0] is cpu and grad.layout is not torch.strided and sparse_rows.accepts(member):
                return (sparse_rows, *kind[1:])
            if not _walkable(member):
                self._odd.append(member)
                return eager
        return kind

    def _backend(self, device: torch.device, dtypes: tuple[torch.dtype, ...]) -> Any:
        """The backend that has a kernel for such tensors, if one has."""
        forced = self._mode[2]
        for one in BACKENDS:
            if forced in (None, one.name) and one.accepts(device, dtypes):
                return one
        return None

    def _batch(self, kind: Any) -> Any:
        """A new batch for members of this kind."""
        if kind is eager:
            batch: Any = eager.Batch()
        else:
            backend, rule, pairs, dtypes, maximize, device = kind
            scaled, limited, _ = self._mode
            batch = backend.Batch(Variant(rule, pairs, dtypes, scaled or maximize, limited), device)
        (self.sequential if isinstance(batch, eager.Batch) else self._fused).append(batch)
        self.batches = [*self._fused, *self.sequential]
        return batch

    def commit(self, state: MutableMapping[Tensor, State]) -> None:
        """Put the state that was missing into the optimizer."""
        for member in self.new:
            stored = state.get(member.param)
            if stored is None:
                state[member.param] = member.state
            else:
                stored.update(member.new)
                member.state = stored
            member.new = _NOTHING
        if self.new:
            self.new = []
            self._ahead -= self._begin
            self._begin = set()
            self._remember()
            for batch in self._fused:
                batch.table.adopt_states()

    def holds(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        mode: tuple[bool, bool, str | None],
    ) -> bool:
        """Whether this plan is right for these tensors; takes over changed hyperparameters."""
        if (
            mode != self._mode
            or state is not self._state
            or len(params) != len(self._params)
            or len(groups) != len(self._groups)
            or len(state) != len(self._states)
            or not all(map(is_, params, self._params))
            or not all(map(is_, state.values(), self._states))
            or not all(map(is_, state, self._keys))
        ):
            return False
        for index, group in enumerate(groups):
            known = self._groups[index]
            changed = known.read(group)
            self.options[index] = options = known.options
            if changed is None or not _SWITCHES.isdisjoint(changed):
                return False
            if changed:
                for rule, part in self._parts[index].items():
                    if rule.flags(options) != part.flags:
                        return False
                if callable(self._rule_of) and self._rules_of(group, index) != self._rules[index]:
                    return False
        return True


class _Group:
    """The hyperparameters of a group as they were last seen.

    Args:
        owner: the optimizer's name.
        declared: what it declares.
        group: the group.
        index: which of the optimizer's groups it is.
    """

    def __init__(
        self,
        owner: str,
        declared: Mapping[str, Hyperparameter],
        group: dict[str, Any],
        index: int,
    ) -> None:
        self._owner, self._declared, self._where = owner, declared, f"group {index}"
        self._look(group)

    def _look(self, group: dict[str, Any]) -> None:
        validate(self._owner, self._declared, group, self._where)
        self._keys = tuple(group)
        self._names = tuple(name for name in self._declared if name in group)
        self._missing = {
            name: one.default for name, one in self._declared.items() if name not in group
        }
        self._values_of = _values_of(self._names)
        self._values = self._values_of(group)
        self._tensors = [name for name in self._names if _holds_tensor(group[name])]
        # Keys of the user's own, which a rule of the user's own may read, are taken as they are.
        self._foreign = not group.keys() <= {*self._declared, "params", "param_names", "initial_lr"}
        self._read_numbers(group)

    def _read_numbers(self, group: dict[str, Any]) -> None:
        """Read tensors as numbers, unless the step must keep them."""
        options: Options = group
        if group.get("capturable") or group.get("differentiable"):
            options = {**self._missing, **group}
        elif self._tensors or self._missing:
            numbers = {name: _number(group[name]) for name in self._tensors}
            options = {**self._missing, **group, **numbers}
        self.options = options

    def read(self, group: dict[str, Any]) -> list[str] | None:
        """Which hyperparameters have changed; they are validated, and nothing else is.

        Returns:
            Their names, or None where a key came or went.
        """
        if tuple(group) != self._keys:
            self._look(group)
            return None
        values = self._values_of(group)
        changed = [*compress(self._names, map(is_not, values, self._values))]
        if not changed:
            changed = self._tensors  # one may have been filled in place
        else:
            self._values = values
            tensors = [name for name in changed if _holds_tensor(group[name])]
            if tensors or self._tensors:
                self._tensors = [*(n for n in self._tensors if n not in changed), *tensors]
                changed = [*{*changed, *self._tensors}]
        for name in changed:
            if name in self._tensors and group.get("capturable"):
                continue  # it is read on the device only
            if not self._declared[name].allowed.admits(group[name]):
                validate(self._owner, self._declared, {name: group[name]}, self._where)
        if self._tensors or (self._foreign and self.options is not group):
            self._read_numbers(group)
        elif changed and self.options is not group:
            self.options = {**self.options, **{name: group[name] for name in changed}}
        return changed


def _values_of(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda group: tuple(group[name] for name in names)


def _number(value: Any) -> Any:
    """A hyperparameter with tensors, and NumPy's arrays, read as numbers."""
    if isinstance(value, tuple):
        return tuple(map(plain_number, value))
    numbers = value.reshape(-1).tolist()
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(isinstance(one, FILLED) for one in value)
    return isinstance(value, FILLED)


def _walkable(member: Member) -> bool:
    """Whether a kernel can walk a member's parameter and state as flat ranges side by side.

    A gradient in another layout is copied into theirs, in each step in which it is.
    """
    param, grad = member.param, member.grad
    if grad is None or type(grad) not in DENSE_TYPES or grad.layout is not torch.strided:
        return False
    if member.state is member.new and param.is_contiguous() and not param.is_neg():
        return grad.device == param.device
    states = [member.state[name] for name in member.names]
    return grad.device == param.device and plain((param, *states), param)


_NOTHING: dict[str, Tensor] = {}
"""What is new of a member whose state is the optimizer's; nothing is put into it."""

_SWITCHES = frozenset(("maximize", "capturable", "differentiable"))


def _switches(options: Options) -> tuple[bool, ...]:
    """The switches that every rule has, which decide about the kernel too."""
    return tuple(bool(options.get(name)) for name in ("maximize", "capturable", "differentiable"))


def _own_steps(members: list[Member], seen: set[int]) -> None:
    """Give every parameter counts of its own, where a loaded state shares one.

    Args:
        members: the newcomers.
        seen: where the counts of those before them lie; theirs are added.
    """
    for member in members:
        for name, count in zip(member.rule.counts, member.counts(), strict=True):
            # A tensor of another type, such as a FakeTensor, has no memory to tell of.
            own = count.clone() if _memory(count) in seen else count
            if own is not count:
                member.state = {**member.state, name: own}
                member.new = {**member.new, name: own}
            seen.add(_memory(own))


def _memory(count: Tensor) -> int:
    return count.data_ptr() if type(count) is Tensor else id(count)
