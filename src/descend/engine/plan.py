"""Which parameters go into which kernel: decided once, checked at every step, made anew on change.

params + grads -> members -> batches (one per backend and dtype combination) -> kernel calls
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_, itemgetter
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from descend.engine import cpu, eager, gpu, interrupts, rows
from descend.engine.hyperparameters import Hyperparameter, Options, validate
from descend.engine.members import DENSE_TYPES, Member, admit, entangled, place_of, plain
from descend.engine.rule import AnyRule, Rule, State, Variant
from descend.errors import ConflictError, StateError

BACKENDS = (cpu, gpu)
"""The backends with kernels, in order of preference; `eager` takes the rest."""

NORM_GUARD = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it."""

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
    members: list[Member]
    whole: bool

    def check(self, params: list[Any], grads: list[Any]) -> bool:
        """Whether the tensors are still what the batch was made for."""

    def prepare(self, options: list[Options], factors: list[float], limit: Any) -> None:
        """Work out what depends on the step and the hyperparameters."""

    def measure(self) -> tuple[float, bool]:
        """The gradients' sum of squares, and whether all are finite."""

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
        plan = self._plan
        if plan is None or plan.used or not plan.holds(groups, state, params, grads, mode):
            self._plan = None
            begin = self._beginning(groups, state, params, grads) if self.ahead else set()
            plan = _Plan(
                self._owner,
                self._rule_of,
                self._declared,
                groups,
                state,
                params,
                grads,
                mode,
                begin,
            )
            if not all(batch.check(params, grads) for batch in plan.fused):
                raise StateError(
                    f"{self._owner}: parameters, gradients or state changed while the step looked "
                    "at them; another thread must not change them during a step"
                )
            for batch in plan.fused:
                for member in batch.members:
                    member.grad = None
            self._plan = plan
        if not plan.batches:
            return True
        plan.refuse_capture()
        factor = 1.0 if unscale is None else 1.0 / unscale
        if clipping.norm is not None or clipping.skip_nonfinite:
            measures = [batch.measure() for batch in plan.batches]
            if clipping.skip_nonfinite and not all(finite for _, finite in measures):
                self._plan = None  # an eager batch in it holds this step's gradients
                return False
            if clipping.norm is not None:
                norm = math.sqrt(sum(total for total, _ in measures)) * factor
                coefficient = clipping.norm / (norm + NORM_GUARD)
                # As torch.clamp(max=1): a NaN stays.
                factor *= 1.0 if coefficient > 1 else coefficient
        factors = plan.signs if factor == 1 else [sign * factor for sign in plan.signs]
        if plan.whole and not plan.begin:
            plan.batches[0].prepare(plan.options, factors, clipping.value)
            plan.batches[0].launch()
            return True
        with interrupts.deferred():
            for batch in plan.batches:
                batch.prepare(plan.options, factors, clipping.value)
            plan.commit(state)
            plan.used = plan.once
            for batch in plan.batches:
                batch.launch()
            if plan.begin:
                self.ahead -= plan.begin
                plan.begin = set()
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
                validate(self._owner, self._declared, group, f"group {index}")
                options = _numbers(group)
                for within, param in enumerate(group["params"]):
                    if param not in wanted:
                        continue
                    place = place_of(self._owner, index, within, group)
                    rule = self._rule_of
                    rule = rule(param, options) if callable(rule) else rule
                    # A gradient of the kind that the rule takes: no more is asked of it.
                    shape = param.shape
                    grad = param if rule.dense else torch.empty(shape, layout=torch.sparse_coo)
                    member = Member(0, place, index, rule, rule.flags(options), param, grad)
                    members.append(admit(options, state.get(param), member))
            _own_steps(members)
            self._plan = None
            for member in members:
                if member.new:
                    if not state.get(member.param):
                        self.ahead.add(member.param)
                        state[member.param] = {}
                    state[member.param].update(member.new)

    def untouched(self, param: Tensor, stored: State | None) -> bool:
        """Whether a state is as it was made before the first step; or is not there at all."""
        if not stored:
            return True
        if param not in self.ahead:
            return False
        values = [stored["step"]] if "step" in stored else stored.values()
        return not any(one.any() if isinstance(one, Tensor) else one for one in values)

    def _beginning(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        grads: list[Tensor | None],
    ) -> set[Tensor]:
        """The parameters whose first step this is although they have a state.

        What starts from the lr starts from the one of this step: the state may have been made at
        another, such as 0.
        """
        taken = {
            param
            for param, grad in zip(params, grads, strict=True)
            if grad is not None and param in self.ahead
        }
        begin = {param for param in taken if self.untouched(param, state.get(param))}
        self.ahead -= taken - begin  # what was loaded into them is no beginning
        for group in groups if begin else ():
            options = _numbers(group)
            for param in begin.intersection(group["params"]):
                rule = self._rule_of(param, options) if callable(self._rule_of) else self._rule_of
                for name in rule.from_lr:
                    if state.get(param):
                        state[param][name].fill_(rule.start(name, options))
        return begin

    def explain(self) -> list[dict[str, Any]]:
        """How the last step ran: one record per kernel call."""
        if self._plan is None:
            return []
        return [
            {
                "backend": batch.backend,
                "tensors": len(batch.members),
                "elements": sum(member.param.numel() for member in batch.members),
                "groups": len({member.group for member in batch.members}),
            }
            for batch in self._plan.batches
        ]


class _Plan:
    """The batches of one set of tensors, and everything that they were made from."""

    def __init__(
        self,
        owner: str,
        rule_of: RuleOf,
        declared: Mapping[str, Hyperparameter],
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        grads: list[Tensor | None],
        mode: tuple[bool, bool, str | None],
        begin: set[Tensor],
    ) -> None:
        self._owner, self._rule_of, self._declared = owner, rule_of, declared
        self._mode = mode
        self._names = _values_of(tuple(declared))
        self._values = [self._names(group) for group in groups]
        for index, group in enumerate(groups):
            validate(owner, declared, group, f"group {index}")
        self.options: list[Options] = [_numbers(group) for group in groups]
        self._rules = [self._rules_of(group, index) for index, group in enumerate(groups)]
        self._flags = [
            {rule: rule.flags(options) for rule in rules}
            for rules, options in zip(self._rules, self.options, strict=True)
        ]
        self._switched = [_switches(options) for options in self.options]
        self.signs = [-1.0 if options.get("maximize") else 1.0 for options in self.options]
        self._params = params
        self._types = list(map(type, grads))
        members = [
            admit(self.options[member.group], state.get(member.param), member)
            for member in self._members(groups, grads)
        ]
        self.begin = begin
        for member in members if begin else ():
            member.fresh = member.fresh or member.param in begin
        _own_steps(members)
        self._new = [member for member in members if member.new]
        # In a CUDA graph these would take the same step again and again.
        self._uncaptured = [
            member.place
            for member in members
            if member.param.device.type == "cuda"
            and not self.options[member.group].get("capturable")
        ]
        self.used = False
        self.once = any(member.fresh and not member.rule.counts_steps for member in members)
        self.batches: list[Batch] = list(_batches(self.options, members, mode))
        self.fused = [batch for batch in self.batches if not isinstance(batch, eager.Batch)]
        self._remember(state)

    def refuse_capture(self) -> None:
        """Refuse a step whose numbers a CUDA graph would keep for ever.

        Raises:
            ConflictError: a stream is capturing, and a group is not capturable.
        """
        if self._uncaptured and torch.cuda.is_current_stream_capturing():
            raise ConflictError(
                f"{self._uncaptured[0]}: a CUDA graph is capturing this step, and capturable=False "
                "keeps its count and lr on the host, so every replay would repeat this very step; "
                "pass capturable=True, and lr as a tensor if it is to change"
            )

    def _rules_of(self, group: dict[str, Any], index: int) -> list[AnyRule]:
        """The rule of each of a group's parameters; a single one if it is that of all."""
        rule_of = self._rule_of
        if not callable(rule_of):
            return [rule_of]
        return [rule_of(param, self.options[index]) for param in group["params"]]

    def _members(
        self, groups: list[dict[str, Any]], grads: list[Tensor | None]
    ) -> Iterator[Member]:
        position = 0
        for index, group in enumerate(groups):
            for within, param in enumerate(group["params"]):
                grad = grads[position]
                if grad is not None:
                    place = place_of(self._owner, index, within, group)
                    rules = self._rules[index]
                    rule = rules[within] if callable(self._rule_of) else rules[0]
                    flags = self._flags[index][rule]
                    yield Member(position, place, index, rule, flags, param, grad)
                position += 1

    def _remember(self, state: MutableMapping[Tensor, State]) -> None:
        """Note what the state is; a step that adds to it is more than one operation."""
        self.whole = not self._new and len(self.batches) == 1 and self.batches[0].whole
        self._state = state
        self._states = list(state.values())
        self._keys = list(state)

    def commit(self, state: MutableMapping[Tensor, State]) -> None:
        """Put the state that was missing into the optimizer."""
        for member in self._new:
            stored = state.get(member.param)
            if stored is None:
                state[member.param] = member.state
            else:
                stored.update(member.new)
                member.state = stored
                self.once = True  # the kernels were prepared with another mapping
        if self._new:
            self._new = []
            self._remember(state)

    def holds(
        self,
        groups: list[dict[str, Any]],
        state: MutableMapping[Tensor, State],
        params: list[Tensor],
        grads: list[Tensor | None],
        mode: tuple[bool, bool, str | None],
    ) -> bool:
        """Whether this plan is right for these tensors; takes over changed hyperparameters."""
        if (
            mode != self._mode
            or state is not self._state
            or len(params) != len(self._params)
            or len(groups) != len(self._values)
            or len(state) != len(self._states)
            or not all(map(is_, params, self._params))
            or list(map(type, grads)) != self._types
            or not all(map(is_, state.values(), self._states))
            or not all(map(is_, state, self._keys))
        ):
            return False
        for index, group in enumerate(groups):
            values = self._names(group)
            if not all(map(is_, values, self._values[index])):
                validate(self._owner, self._declared, group, f"group {index}")
                self._values[index] = values
                self.options[index] = _numbers(group)
                if (
                    _switches(self.options[index]) != self._switched[index]
                    or self._rules_of(group, index) != self._rules[index]
                    or any(
                        rule.flags(self.options[index]) != flags
                        for rule, flags in self._flags[index].items()
                    )
                ):
                    return False
            elif self.options[index] is not group and not group.get("capturable"):
                # A tensor may have been filled in place. Captured, it is read on the device only.
                validate(self._owner, self._declared, group, f"group {index}")
                self.options[index] = _numbers(group)
        try:
            return all(batch.check(params, grads) for batch in self.batches)
        except KeyError:  # a state entry was deleted
            return False


def _values_of(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda group: tuple(group[name] for name in names)


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    """The group's options with tensors read as numbers, unless the step must keep them."""
    if group.get("capturable") or group.get("differentiable"):
        return dict(group)
    found: dict[str, Any] = {}
    for name, value in group.items():
        if isinstance(value, Tensor):
            found[name] = value.item() if value.numel() == 1 else tuple(value.tolist())
        elif isinstance(value, tuple) and any(isinstance(one, Tensor) for one in value):
            found[name] = tuple(o.item() if isinstance(o, Tensor) else o for o in value)
    return {**group, **found} if found else group


def _switches(options: Options) -> tuple[bool, ...]:
    """The switches that every rule has, which decide about the kernel too."""
    return tuple(bool(options.get(name)) for name in ("maximize", "capturable", "differentiable"))


def _own_steps(members: list[Member]) -> None:
    """Give every parameter counts of its own, where a loaded state shares one."""
    seen: set[int] = set()
    for member in members:
        for name, count in zip(member.rule.counts, member.counts(), strict=True):
            own = count.clone() if count.data_ptr() in seen else count
            if own is not count:
                member.state = {**member.state, name: own}
                member.new = {**member.new, name: own}
            seen.add(own.data_ptr())


def _batches(
    options: list[Options],
    members: list[Member],
    mode: tuple[bool, bool, str | None],
) -> Iterator[Batch]:
    """Sort the members by the kernel that takes them; what no kernel takes goes to eager."""
    scaled, limited, forced = mode
    unusual: list[Member] = []
    provisional = False
    usual: list[tuple[Member, Any]] = []
    for member in members:
        backend = None
        operands = member.operands()
        _, capturable, differentiable = _switches(options[member.group])
        if (
            not (capturable or differentiable)
            and forced != eager.name
            and member.rule.readable
            and type(member.param) in DENSE_TYPES
        ):
            dtypes = tuple(tensor.dtype for tensor in operands)
            backend = next(
                (
                    one
                    for one in BACKENDS
                    if forced in (None, one.name) and one.accepts(member.param.device, dtypes)
                ),
                None,
            )
            if backend is cpu and rows.accepts(member):
                backend = rows
            elif backend is not None and not plain(operands, member.param):
                # A sparse gradient comes here at every step; a layout may be another time's.
                provisional = provisional or operands[1].layout is torch.strided
                backend = None
        if backend is None:
            unusual.append(member)
        else:
            usual.append((member, backend))
    tangled, written = entangled(members, lambda member: (*member.operands(), *member.counts()))
    kept = {id(members[index]) for index in tangled}
    sorted_: dict[tuple[Any, Variant], list[Member]] = {}
    for member, backend in usual:
        if id(member) in kept:
            unusual.append(member)
            provisional = True
            continue
        maximize, _, _ = _switches(options[member.group])
        assert isinstance(member.rule, Rule)
        variant = Variant(
            member.rule,
            tuple(sorted(member.flags.items())),
            tuple(tensor.dtype for tensor in member.operands()),
            scaled or maximize,
            limited,
        )
        sorted_.setdefault((backend, variant), []).append(member)
    for (backend, variant), same in sorted_.items():
        by_device: dict[torch.device, list[Member]] = {}
        for member in same:
            by_device.setdefault(member.param.device, []).append(member)
        for there in by_device.values():
            yield backend.Batch(variant, there, written)
    if unusual:
        unusual.sort(key=lambda member: member.position)
        yield eager.Batch(unusual, provisional)
