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
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from descend.engine import cautious, interrupts
from descend.engine.cpu import CpuBatch
from descend.engine.eager import EagerBatch
from descend.engine.gpu import GpuBatch
from descend.engine.group_options import GroupOptions
from descend.engine.hyperparameters import Hyperparameter, Options
from descend.engine.measured import Totals
from descend.engine.pointers import CHANGED, MOVED, SAME, TOUCHED, Found, KernelBatch
from descend.engine.rule import AnyRule, Rule, State, Variant
from descend.engine.sparse_rows import SparseBatch
from descend.engine.step_inputs import Member, Part, admit, part_shared_counts, refuse_lost_memory
from descend.engine.tensor_layout import DENSE_TYPES, extent
from descend.engine.written_memory import WrittenMemory, entangled, set_apart
from descend.errors import ConflictError, StateError

BACKENDS: tuple[type[KernelBatch], ...] = (CpuBatch, SparseBatch, GpuBatch)
"""The batches with kernels, in order of preference; `EagerBatch` takes the rest."""

NORM_GUARD = 1e-6
"""The number that torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it."""

MANY = 1_000
"""From so many new parameters on the garbage collector would be called often."""

Batch: TypeAlias = KernelBatch | EagerBatch

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
    known = [EagerBatch.backend, *dict.fromkeys(one.backend for one in BACKENDS)]
    if name not in known:
        raise ValueError(f"there is no backend {name!r}; known: {', '.join(known)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


@dataclass(frozen=True)
class Clipping:
    """The way of gradients into the update: clipped, or refused; they themselves stay as they are.

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


class Mode(NamedTuple):
    """The work of a plan's kernels beside their rule, and the backend that is forced."""

    scaled: bool
    limited: bool
    forced: str | None


@dataclass(frozen=True)
class Subject:
    """The optimizer that is stepped.

    Args:
        owner: its name, for messages.
        rule_of: its rule, or which of its rules updates a parameter.
        declared: the hyperparameters that it declares.
        ahead: the parameters whose state was made before their first step, and which had none.
    """

    owner: str
    rule_of: RuleOf
    declared: Mapping[str, Hyperparameter]
    ahead: set[Tensor]


class Stepper:
    """Steps one optimizer: keeps its plan, and sees to it that the plan still holds.

    Args:
        owner: the optimizer's name, for messages.
        rule_of: its rule, or which of its rules updates a parameter.
        hyperparameters: what it declares.

    Attributes:
        ahead: the parameters whose state was made before their first step, and which had none yet.
    """

    def __init__(
        self, owner: str, rule_of: RuleOf, hyperparameters: Mapping[str, Hyperparameter]
    ) -> None:
        self.ahead: set[Tensor] = set()
        self._subject = Subject(owner, rule_of, hyperparameters, self.ahead)
        self._plan: _Plan | None = None
        # The tables of a plan are one step's: two threads must not fill them at once.
        self._lock = threading.RLock()
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
            # Once for the whole step: an attribute of torch's, read again, may be another object.
            params = [param for group in groups for param in group["params"]]
            grads = [param.grad for param in params]
            scaled = unscale is not None or clipping.norm is not None
            mode = (scaled, clipping.value is not None, _forced)
            plan = self._planned(groups, state, params, grads, mode)
            batches = [batch for batch in plan.batches if batch.active]
            if batches:
                if plan.uncaptured:
                    plan.refuse_capture()
                factors = plan.signs
                if scaled or clipping.skip_nonfinite:
                    factor = _factor(batches, clipping, unscale)
                    if factor is None:
                        return False
                    factors = [sign * factor for sign in factors]
                # Holding signals back takes microseconds, and is of no use around a single call.
                if len(batches) == 1 and batches[0].atomic and not plan.new:
                    plan.run(batches, factors, clipping.value)
                else:
                    with interrupts.deferred():
                        plan.run(batches, factors, clipping.value)
            # Only now: whatever was raised before has left no plan.
            self._plan = plan
            return True

    def _planned(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        grads: list[Tensor | None],
        mode: tuple[bool, bool, str | None],
    ) -> "_Plan":
        """The plan that is right for these tensors: the one that is there, or a new one."""
        # A step that fails or is left out leaves no plan: one would be half changed, or would keep
        # this step's gradients alive.
        plan, self._plan = self._plan, None
        if plan is not None and plan.holds(groups, state, params, mode) and plan.take(grads):
            return plan
        plan = _Plan(self._subject, groups, state, params, mode)
        if plan.take(grads):
            return plan
        # A new plan was made for just these tensors. So either some of their memory is gone, or
        # some of them share it.
        plan.refuse_lost_memory(grads)
        plan = _Plan(self._subject, groups, state, params, mode, in_turn=True)
        if plan.take(grads):
            return plan
        raise StateError(
            f"{self._subject.owner}: parameters, gradients or state changed while the step "
            "looked at them; another thread must not change them during a step"
        )

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
            every = [param for group in groups for param in group["params"]]
            wanted = set(params)  # tensors are hashed by identity
            positions = [index for index, param in enumerate(every) if param in wanted]
            # The state that it knows is another one soon.
            self._plan = None
            plan = _Plan(self._subject, groups, state, every, (False, False, _forced))
            for member in plan.newcomers(positions):
                if member.new:
                    # With a state of its own it may have taken steps already.
                    if not state.get(member.param):
                        self.ahead.add(member.param)
                        state[member.param] = {}
                    state[member.param].update(member.new)

    def untouched(self, param: Tensor, stored: State | None) -> bool:
        """Whether a state is as it was made before the first step; or is not there at all."""
        return not stored or (param in self.ahead and _unused(stored))

    def explain(self) -> list[dict[str, Any]]:
        """How the last step ran: one record per kernel call."""
        if self._plan is None:
            return []
        return [
            {
                "backend": batch.backend,
                "tensors": len(members),
                "elements": sum(member.param.numel() for member in members),
                "groups": len({member.part.group for member in members}),
            }
            for batch in self._plan.batches
            if (members := batch.active_members())
        ]


def _factor(batches: list[Batch], clipping: Clipping, unscale: float | None) -> float | None:
    """The factor of all gradients; None if one of them is not finite, and that matters."""
    # One factor for unscaling and clipping: a gradient is multiplied once, in the kernel.
    factor = 1.0 if unscale is None else 1.0 / unscale
    if clipping.norm is None and not clipping.skip_nonfinite:
        return factor
    found = [batch.squares() for batch in batches]
    if clipping.skip_nonfinite and not all(finite for _, finite in found):
        return None
    if clipping.norm is not None:
        norm = math.sqrt(_total(squares for squares, _ in found)) * factor
        coefficient = clipping.norm / (norm + NORM_GUARD)
        factor *= 1.0 if coefficient > 1 else coefficient  # as torch.clamp(max=1): a NaN stays
    return factor


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


class _Plan:
    """The batches of an optimizer's parameters, and everything that they were made from.

    Args:
        subject: the optimizer.
        groups: its parameter groups.
        state: its state.
        params: the parameters of all groups.
        mode: what the kernels do beside their rule.
        in_turn: parameters share memory with each other, or a gradient with a parameter: find out
            which do, and take those one after the other. Such a plan is good for one step: which
            they are is not watched.

    Attributes:
        batches: the parameters that have had a gradient, by the kernel that takes them.
        options: the hyperparameters of each group.
        signs: -1 for each group that climbs.
        new: the members whose state is not yet the optimizer's, or is at its beginning.
        uncaptured: those whose step a CUDA graph would take again and again.
    """

    def __init__(
        self,
        subject: Subject,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        mode: tuple[bool, bool, str | None],
        in_turn: bool = False,
    ) -> None:
        self._subject, self._mode, self._in_turn = subject, Mode(*mode), in_turn
        self._state, self._params = state, params
        self._groups = [
            GroupOptions(subject.owner, subject.declared, group, index)
            for index, group in enumerate(groups)
        ]
        self.options: list[Options] = [group.options for group in self._groups]
        self.signs = [-1.0 if options.get("maximize") else 1.0 for options in self.options]
        self._rules = [self._rules_of(group, index) for index, group in enumerate(groups)]
        self._parts = [
            {rule: self._part(index, group, rule) for rule in self._rules[index]}
            for index, group in enumerate(groups)
        ]
        self._where = [
            (index, within)
            for index, group in enumerate(groups)
            for within in range(len(group["params"]))
        ]
        # The positions of the parameters that have not had a gradient yet: whether one has come
        # is asked in each step.
        self._absent = list(range(len(params)))
        self.new: list[Member] = []
        self.batches: list[Batch] = []
        self._turns = 0  # of measures, of which the later ones need what the earlier ones find
        self._by_kind: dict[_Kind, Batch] = {}
        # Finding a kernel takes longer than a look into this.
        self._kind_of: dict[Any, _Kind] = {}
        self._kernels: list[KernelBatch] = []
        self._eagerly: EagerBatch | None = None
        # What the eager backend takes only for its layout: another time a kernel may.
        self._odd: list[tuple[Member, type[KernelBatch]]] = []
        self.uncaptured: list[Member] = []
        # Where step counts lie: two parameters must not count on one.
        self._count_places: set[int] = set()
        self._written = WrittenMemory(array("q"), array("q"), 0)
        self._written_eagerly: list[tuple[int, int]] = []
        self._remember_state()

    def _rules_of(self, group: dict[str, Any], index: int) -> list[AnyRule]:
        """The rule of each of a group's parameters; a single one if it is that of all."""
        rule_of = self._subject.rule_of
        options = self.options[index]
        if not callable(rule_of):
            return [cautious.applied(rule_of, options)]
        return [cautious.applied(rule_of(param, options), options) for param in group["params"]]

    def _part(self, index: int, group: dict[str, Any], rule: AnyRule) -> Part:
        options = self.options[index]
        maximize, capturable, differentiable = (
            bool(options.get(name)) for name in ("maximize", "capturable", "differentiable")
        )
        by_torch = capturable or differentiable or not rule.readable
        return Part(
            self._subject.owner,
            index,
            group.get("param_names"),
            rule,
            rule.flags(options),
            scaled=self._mode.scaled or maximize,
            by_torch=by_torch or self._mode.forced == EagerBatch.backend,
        )

    def _remember_state(self) -> None:
        """Note which entries the state has: one that comes, goes or is replaced is noticed."""
        self._entries, self._keys = list(self._state.values()), list(self._state)

    def holds(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        mode: tuple[bool, bool, str | None],
    ) -> bool:
        """Whether this plan is right for these tensors; takes over changed hyperparameters.

        Raises:
            HyperparameterError: one of those is out of its range.
        """
        if (
            self._in_turn
            or mode != self._mode
            # By identity: a tensor compares by elements, and equal ones may lie elsewhere.
            or state is not self._state
            or len(params) != len(self._params)
            or len(groups) != len(self._groups)
            or len(state) != len(self._entries)
            or not all(map(is_, params, self._params))
            or not all(map(is_, state.values(), self._entries))
            or not all(map(is_, state, self._keys))
        ):
            return False
        for index, group in enumerate(groups):
            known = self._groups[index]
            # A key that came or went may be a hyperparameter, whose default counts now or no more.
            if tuple(group) != known.keys:
                return False
            changed = known.changed(group)
            self.options[index] = options = known.options
            if not changed:
                continue
            if not _SWITCHES.isdisjoint(changed):
                return False
            # Flags are constants of a kernel: most options change nothing of them.
            for rule, part in self._parts[index].items():
                if rule.flags(options) != part.flags:
                    return False
            if (
                callable(self._subject.rule_of)
                and self._rules_of(group, index) != self._rules[index]
            ):
                return False
        return True

    def take(self, grads: list[Tensor | None]) -> bool:
        """Take in these gradients, and the parameters that have one for the first time.

        Args:
            grads: one for each parameter, or None; a lazy negation is replaced by a copy.

        Returns:
            Whether every batch may go ahead; if not, this plan is of no more use.

        Raises:
            DescendError: something does not fit.
        """
        came = self._absent and [
            position for position in self._absent if grads[position] is not None
        ]
        if came:
            with _no_collection(len(came)):
                members = self.newcomers(came, grads)
                # One whose state is complete, as after a load, has nothing to be put anywhere.
                self.new += [member for member in members if member.new or member.first]
                self._sort(members)
            self._absent = [position for position in self._absent if grads[position] is None]
        try:
            found = self._look(grads)
        except KeyError:  # a state entry was deleted
            return False
        return found is SAME or (found is not CHANGED and self._set_apart())

    def _look(self, grads: list[Tensor | None]) -> Found:
        """Let each batch look at its tensors."""
        found = SAME
        # All of them, even when one has moved: the others' addresses must be known, too.
        for batch in self.batches:
            answer = batch.look(self._params, grads)
            if answer is CHANGED:
                return answer
            found = max(found, answer)
        if self._odd and any(m.grad is not None and kernel.walks(m) for m, kernel in self._odd):
            return CHANGED
        if self._eagerly is None or not self._kernels or self._in_turn:
            return found
        # The eager backend knows no addresses, and kernels go first: these must be seen to here.
        written = self._eagerly.written()
        if written != self._written_eagerly:
            self._written_eagerly = written
            return max(found, MOVED)
        return found if self._reads_apart(self._eagerly) else TOUCHED

    def _reads_apart(self, eagerly: EagerBatch) -> bool:
        """Whether no gradient that is read after the kernels' calls lies where they write."""
        grads = [member.grad for member in eagerly.active_members() if member.grad is not None]
        return not any(self._written.meets(*extent(grad)) for grad in grads)

    def _set_apart(self) -> bool:
        """Find out anew which memory is written; False if two tensors share some."""
        kernels = self._kernels
        places = array("q", [batch.at for batch in kernels])
        most = sum(len(batch.pointers) for batch in kernels)
        written = set_apart(places, most, self._written_eagerly)
        if written is None:
            # Those without a gradient may be long gone, and others be there now.
            for batch in kernels:
                batch.forget_inactive()
            written = set_apart(places, most, self._written_eagerly)
        if written is None:
            return False
        self._written = written
        for batch in kernels:
            batch.watch(written)
        return self._in_turn or self._eagerly is None or self._reads_apart(self._eagerly)

    def newcomers(
        self, positions: list[int], grads: list[Tensor | None] | None = None
    ) -> list[Member]:
        """Admit parameters: each is checked, and its state is made where it is missing.

        Args:
            positions: which.
            grads: one for each parameter; None if there are none yet.

        Raises:
            DescendError: something does not fit.
        """
        members: list[Member] = []
        for position in positions:
            index, within = self._where[position]
            rules = self._rules[index]
            part = self._parts[index][rules[within] if len(rules) > 1 else rules[0]]
            param = self._params[position]
            if grads is not None:
                grad = grads[position]
            else:  # one of the kind that the rule takes: no more is asked of it
                grad = (
                    param
                    if part.rule.dense
                    else torch.empty(param.shape, layout=torch.sparse_coo, device=param.device)
                )
            member = Member(part, position, within, param, grad)
            # `get`: the optimizer's state is a defaultdict, and must not grow by being looked at.
            members.append(admit(self.options[index], self._state.get(param), member))
            if param in self._subject.ahead:
                self._start_again(member)
        part_shared_counts(members, self._count_places)
        return members

    def _start_again(self, member: Member) -> None:
        """See to it that a state made before the first step is as the step would have made it.

        What starts from the lr starts from the one of this step: the state may have been made at
        another, such as 0. What starts from the parameter starts from the values of this step.
        """
        state, rule = member.state, member.part.rule
        if not _unused(state):
            self._subject.ahead.discard(member.param)  # what was loaded into it is no beginning
            return
        member.first = True
        for name, origin in rule.origins.items():
            if origin == "lr":
                state[name].fill_(rule.start(name, self.options[member.part.group]))
        for name in rule.copies:
            state[name].copy_(member.param.detach())

    def _sort(self, members: list[Member]) -> None:
        """Sort members by the kernel that takes them; what no kernel takes is stepped eagerly."""
        in_turn = entangled(members) if self._in_turn else set()
        by_kind: dict[_Kind, list[Member]] = {}
        for index, member in enumerate(members):
            kind = _EAGER if index in in_turn else self._kind(member)
            by_kind.setdefault(kind, []).append(member)
            part = member.part
            if member.param.is_cuda and not self.options[part.group].get("capturable"):
                self.uncaptured.append(member)
        for kind, same in by_kind.items():
            # One that joins later shares the kernel call of those that were there before.
            if kind not in self._by_kind:
                self._by_kind[kind] = kind.batch()
            self._by_kind[kind].extend(same)
        self._kernels = [one for one in self._by_kind.values() if isinstance(one, KernelBatch)]
        eagerly = [one for one in self._by_kind.values() if isinstance(one, EagerBatch)]
        self._eagerly = eagerly[0] if eagerly else None
        self.batches = [*self._kernels, *eagerly]
        self._turns = max(batch.turns for batch in self.batches)

    def _kind(self, member: Member) -> "_Kind":
        """Which kernel takes a member."""
        part, param, grad = member.part, member.param, member.grad
        assert grad is not None
        if part.by_torch or type(param) not in DENSE_TYPES or type(grad) not in DENSE_TYPES:
            return _EAGER
        # A state may be of another dtype than its parameter: a load keeps what was saved.
        dtypes = (param.dtype, grad.dtype, *[value.dtype for value in member.states()])
        sparse = grad.layout is not torch.strided
        seen = (part, dtypes, sparse, param.device)
        if seen not in self._kind_of:
            self._kind_of[seen] = self._kernel(*seen)
        kind = self._kind_of[seen]
        if kind.kernel is not None and not kind.kernel.walks(member):
            self._odd.append((member, kind.kernel))
            return _EAGER
        return kind

    def _kernel(
        self, part: Part, dtypes: tuple[torch.dtype, ...], sparse: bool, device: torch.device
    ) -> "_Kind":
        """The first backend that has a kernel for such tensors, if one has."""
        assert isinstance(part.rule, Rule)
        forced = self._mode.forced
        for one in BACKENDS:
            if (
                one.sparse == sparse
                and forced in (None, one.backend)
                and one.accepts(device, dtypes)
            ):
                flags = tuple(sorted(part.flags.items()))
                variant = Variant(part.rule, flags, dtypes, part.scaled, self._mode.limited)
                return _Kind(one, variant, device)
        return _EAGER

    def refuse_capture(self) -> None:
        """Refuse a step whose numbers a CUDA graph would keep for ever.

        Raises:
            ConflictError: a stream is capturing, and a group is not capturable.
        """
        if torch.cuda.is_current_stream_capturing():
            raise ConflictError(
                f"{self.uncaptured[0]}: a CUDA graph is capturing this step, and "
                "capturable=False keeps its count and lr on the host, so every replay would repeat "
                "this very step; pass capturable=True, and lr as a tensor if it is to change"
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

    def run(self, batches: list[Batch], factors: list[float], limit: float | None) -> None:
        """Update these batches, and put the state that was missing into the optimizer."""
        totals = Totals()
        for turn in range(self._turns):
            for batch in batches:
                if turn < batch.turns:
                    batch.add_up(turn, self.options, factors, limit, totals)
        for batch in batches:
            batch.prepare(self.options, factors, limit, totals)
        # From here on nothing fails for what the user has given: all or nothing.
        if self.new:
            self._commit()
        for batch in batches:
            batch.launch()

    def _commit(self) -> None:
        """Put the state that was missing into the optimizer."""
        for member in self.new:
            # Somebody may hold the dict that is there: it is filled, and not replaced.
            stored = self._state.get(member.param)
            if stored is None:
                self._state[member.param] = member.state
            else:
                stored.update(member.new)
                member.state = stored
            member.new, member.first = {}, False
        self._subject.ahead.difference_update(member.param for member in self.new)
        self.new = []
        self._remember_state()
        for batch in self._kernels:
            batch.begin()


class _Kind(NamedTuple):
    """A kernel and where it runs; without one, torch operations."""

    kernel: type[KernelBatch] | None = None
    variant: Variant | None = None
    device: torch.device | None = None

    def batch(self) -> Batch:
        """A batch of this kind, without members."""
        if self.kernel is None:
            return EagerBatch()
        assert self.variant is not None
        assert self.device is not None
        return self.kernel(self.variant, self.device)


_EAGER = _Kind()

_SWITCHES = frozenset(("maximize", "capturable", "differentiable", *cautious.OPTIONS))
"""The switches that every rule has, which decide about the kernel too."""
