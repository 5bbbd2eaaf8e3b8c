"""Read every address afresh, and check the tensor behind it, in each step.

A kernel gets to see only what was checked in the same step: device, dtype, shape, strides, an
address that is not empty, a gradient that overlaps nothing that is written. Addresses may change
from one step to the next; so may which of the parameters have a gradient: one without is a row
that the kernels skip.

The check is a compiled function that asks torch for each tensor's DLPack view. DLPack tells
neither a lazy negation nor where the storage ends: these two are looked at in Python.
"""

import ctypes
import warnings
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache as remember
from itertools import chain, compress
from operator import itemgetter
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from descend.engine import native
from descend.engine.hyperparameters import Options
from descend.engine.kernel_words import CHECK, address, new_words, put
from descend.engine.measure import Measure
from descend.engine.measured import Totals
from descend.engine.rule import Variant
from descend.engine.step_inputs import Member
from descend.engine.tensor_layout import DENSE_TYPES, is_whole, laid_out, side_by_side
from descend.engine.written_memory import COMPILED, WrittenMemory

COPIED_HERE = 32_768
"""Up to this many elements of a gradient in another layout are copied by a compiled function; torch
takes more of them on several threads."""

# A DLPack view has six words, and tells a dtype by its code, its bits and its lanes.
_VIEW_WORDS = 6
_DTYPE_BITS = {
    torch.float32: 0x12002,
    torch.float64: 0x14002,
    torch.bfloat16: 0x11004,
    torch.float16: 0x11002,
}
_DLPACK_CPU = 1

DTYPES = frozenset(_DTYPE_BITS)
"""The dtypes that kernels take."""

_is_negated = Tensor.is_neg
_storage_of = Tensor.untyped_storage
_bytes_of = torch.UntypedStorage.nbytes


class Found(IntEnum):
    """The finding of a batch that looks at its tensors; of several the greatest counts."""

    SAME = 0
    """Nothing but the values of gradients and counts, and where gradients lie, has changed."""
    MOVED = 1
    """Memory that is written lies elsewhere: it must be found out anew whether it is apart."""
    TOUCHED = 2
    """A gradient seems to overlap what is written: likewise."""
    CHANGED = 3
    """Something that the batch was not made for: the plan must be made anew."""


SAME, MOVED, TOUCHED, CHANGED = Found  # an attribute of an Enum is slow to read


class KernelBatch(ABC):
    """Members that share a kernel: the address of each tensor, and the row of scalars of each.

    Args:
        variant: the kernel's constants; its dtypes are the members'.
        device: where the tensors lie.

    Attributes:
        members: the parameters of the batch.
        pointers: `variant.columns` addresses of each member: parameter, gradient (0: it has none
            in this step), states, and the step count and the counters if there are any.
        rows: the row of scalars of each member: one for all of a group that have counted as far.
        row_groups: the group of each row.
        sizes: the number of elements of each member.
        active: how many members have a gradient in this step.
        elements: how many elements those have.
        at: the address of the words that compiled functions read.
        row_total: how many rows there are in this step.
    """

    backend: ClassVar[str]
    """Its name for `forced_backend` and `explain`."""
    atomic: ClassVar[bool]
    """Whether a launch is one call, which no signal splits."""
    sparse: ClassVar[bool] = False
    """Whether it takes sparse gradients, instead of dense ones."""

    def __init__(self, variant: Variant, device: torch.device) -> None:
        self.variant, self.measures = variant, variant.rule.measures
        self._sums: list[Tensor] = []
        self._divisors: Tensor | None = None  # of the sums that are to be means
        self.members: list[Member] = []
        self.active = self.elements = self.row_total = 0
        self.pointers, self.rows, self.sizes = array("q"), array("q"), array("q")
        self.row_groups, self._row_counts = array("q"), array("d")
        self._positions, self._groups, self._odd = array("q"), array("q"), array("q")
        # A rule that counts no steps is told 1 at the first step of a parameter, and 2 later.
        self._begun = array("d")
        counts = variant.rule.counts
        # In the order of the columns behind parameter and gradient.
        self._names = names = variant.states + counts
        self._state_values = itemgetter(*names) if len(names) > 1 else None
        self._width = max(1, len(counts))  # of a row's counts
        self._copies: list[Any] = []
        self._written: WrittenMemory | None = None
        count_types = [torch.float32 if name == "step" else torch.float64 for name in counts]
        dtypes = [*variant.dtypes, *count_types]
        # Step counts and counters lie on the CPU, wherever the parameters are.
        places = [_device_word(device)] * len(variant.dtypes) + [_DLPACK_CPU] * len(counts)
        self._itemsizes = array("q", [dtype.itemsize for dtype in dtypes])
        kinds = [(place, _DTYPE_BITS[dtype]) for place, dtype in zip(places, dtypes, strict=True)]
        self._expected = array("q", chain.from_iterable(kinds))
        self._view = array("q", bytes(8 * _VIEW_WORDS))
        self._words = new_words(CHECK)
        self.at = address(self._words)
        self._check = _checker()
        put(
            self._words,
            CHECK,
            list_item=_list_item(),
            view_of=_exchange(),
            dlpack=address(self._view),
            none=id(None),
            columns=variant.columns,
            counts=len(counts),
            itemsizes=address(self._itemsizes),
            expected=address(self._expected),
        )

    @staticmethod
    @abstractmethod
    def accepts(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> bool:
        """Whether there is a kernel for such tensors."""

    @abstractmethod
    def add_up(
        self,
        turn: int,
        options: list[Options],
        factors: list[float],
        limit: float | None,
        totals: Totals,
    ) -> None:
        """Measure every member, as the rule asks for before it updates; see `note_sums`.

        Args:
            turn: which of the rule's measures this is.
            options: each group's.
            factors: what each group's gradients are multiplied by.
            limit: the largest magnitude of a gradient element.
            totals: the sums over all batches.
        """

    @property
    def turns(self) -> int:
        """How many measures there are."""
        return len(self.measures)

    @abstractmethod
    def prepare(
        self, options: list[Options], factors: list[float], limit: float | None, totals: Totals
    ) -> None:
        """Work out what depends on the step and the hyperparameters; see `scalars`."""

    @abstractmethod
    def launch(self) -> None:
        """Update parameters, state and step counts."""

    @abstractmethod
    def squares(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, and whether all elements are finite."""

    @staticmethod
    def walks(member: Member) -> bool:
        """Whether a kernel can walk a member's parameter and state as flat ranges side by side.

        A gradient in another layout is copied into theirs, in each step in which it is.
        """
        param, grad = member.param, member.grad
        if grad is None or type(grad) not in DENSE_TYPES or grad.device != param.device:
            return False
        if member.state is member.new and param.is_contiguous() and not param.is_neg():
            return True  # what was just made is laid out like the parameter
        return side_by_side((param, *member.states()), param)

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        self.members += members
        self._divisors = None
        for buffer, width in (
            (self.pointers, self.variant.columns),
            (self.rows, 1),
            (self.row_groups, 1),
            (self._odd, 1),
            (self._row_counts, self._width),
        ):
            # This may move the buffer: all addresses are put down anew below.
            buffer.frombytes(bytes(8 * width * len(members)))
        for member in members:
            member.grad = None  # it is read afresh
            self._positions.append(member.position)
            self._groups.append(member.part.group)
            self._begun.append(0.0 if member.first else 1.0)
            self.sizes.append(member.param.numel())
        total, operands = len(self.members), len(self.variant.operands)
        # A tensor that fills its storage needs no closer look; this is what it must be long.
        self._bytes = [
            [size * item for size in self.sizes] if column < operands else [item] * total
            for column, item in enumerate(self._itemsizes)
        ]
        self._mine = itemgetter(*self._positions)
        # The dicts may be replaced by the optimizer's own before the first launch.
        self._states: list[Any] | None = None
        slots = 1 << (2 * total).bit_length()  # a power of two, and never half full
        self._slots = array("q", bytes(8 * slots))
        put(
            self._words,
            CHECK,
            members=total,
            slot_mask=slots - 1,
            positions=address(self._positions),
            groups=address(self._groups),
            sizes=address(self.sizes),
            begun=address(self._begun),
            pointers=address(self.pointers),
            rows=address(self.rows),
            row_groups=address(self.row_groups),
            row_counts=address(self._row_counts),
            slots=address(self._slots),
            odd=address(self._odd),
        )

    def scalars(
        self,
        row: int,
        options: list[Options],
        factors: list[float],
        limit: float | None,
        measured: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> list[Any]:
        """One row of scalars, as `variant.row` names them.

        Args:
            row: which.
            options: each group's.
            factors: what each group's gradients are multiplied by, where the variant is scaled.
            limit: the largest magnitude of a gradient element, where it is limited.
            measured: of the row's members, what the rule asks for.
        """
        group = self.row_groups[row]
        numbers = self.variant.rule.numbers(options[group], self._counts_of(row), measured)
        return [*numbers.values(), *self._of_gradient(factors[group], limit)]

    def term_scalars(
        self,
        measure: Measure,
        row: int,
        options: list[Options],
        factors: list[float],
        limit: float | None,
        measured: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> list[Any]:
        """One row of scalars of a measure of the rule's; arguments as of `scalars`."""
        group, counts = self.row_groups[row], self._counts_of(row)
        numbers = self.variant.rule.term_numbers(measure, options[group], counts, measured)
        return [*numbers.values(), *self._of_gradient(factors[group], limit)]

    def _counts_of(self, row: int) -> tuple[Any, ...]:
        # The counts as they are: the step that is being taken is the next one.
        taken, *counters = self._row_counts[row * self._width : (row + 1) * self._width]
        return (int(taken) + 1, *counters)

    def _of_gradient(self, factor: float, limit: float | None) -> list[float]:
        """The scalars that a gradient meets first."""
        values = [factor] * self.variant.scaled
        if self.variant.limited:
            assert limit is not None
            values.append(limit)
        return values

    def note_sums(self, turn: int, sums: Tensor, totals: Totals) -> None:
        """Take over the sums.

        Args:
            turn: of which of the rule's measures they are.
            sums: of each member, one for each term; zero for those without a gradient.
            totals: the sums of other batches, to which those of this one are added.
        """
        self._sums = [*self._sums[:turn], sums]
        totals.add(self.variant.rule, self.measures[turn], sums)

    def measured(self, mine: Any, totals: Totals) -> dict[str, Tensor]:
        """The sums, means and totals of some members, by name; those that are known by now.

        Args:
            mine: their indices, or a slice of all.
            totals: the sums over all batches.
        """
        if self._divisors is None:
            sizes = np.maximum(np.array(self.sizes, dtype=np.float64), 1)
            self._divisors = torch.from_numpy(sizes).to(self._sums[0].device)
        found: dict[str, Tensor] = {}
        for measure, sums in zip(self.measures, self._sums, strict=False):
            found |= totals.measured(self.variant.rule, measure, sums[mine], self._divisors[mine])
        return found

    def members_of(self, row: int) -> Any:
        """The indices of a row's members; a slice where they are all."""
        if self.row_total == 1:
            return slice(None)
        active = zip(self.rows, self.pointers[1 :: self.variant.columns], strict=True)
        return [index for index, (one, grad) in enumerate(active) if grad and one == row]

    def active_rows(self) -> list[int]:
        """The row of each active member."""
        return [*compress(self.rows, self.pointers[1 :: self.variant.columns])]

    def active_members(self) -> list[Member]:
        """The members that have a gradient in this step."""
        if self.active == len(self.members):
            return self.members
        return [*compress(self.members, self.pointers[1 :: self.variant.columns])]

    def begin(self) -> None:
        """Know that all states are the optimizer's, and that no member is at its first step now."""
        self._states = None
        self._begun[:] = array("d", [1.0]) * len(self._begun)

    def look(self, params: list[Any], grads: list[Any]) -> Found:
        """Read every address afresh, and check the tensor behind it.

        Args:
            params: all parameters of the optimizer.
            grads: the gradient of each, or None. Of one in another layout than its parameter the
                kernel gets a copy in the parameter's.
        """
        words = self._words
        self._copies = []
        try:
            if self._states is None:
                self._states = [member.state for member in self.members]
            if self._state_values is not None:
                others = list(chain.from_iterable(map(self._state_values, self._states)))
            else:
                others = [state[name] for state in self._states for name in self._names]
            # Kept until the next look: the kernel runs without the interpreter lock, and another
            # thread may replace a state tensor meanwhile.
            self._others = others
            mine = self._mine(grads) if len(self.members) > 1 else (self._mine(grads),)
            live = [grad for grad in mine if grad is not None]
            expected = self._bytes[1]
            if len(live) != len(expected):
                expected = [*compress(expected, (grad is not None for grad in mine))]
            # A parameter or a state of another type has no memory of its own, or an ordinary one.
            if not DENSE_TYPES.issuperset(map(type, live)) or not (
                [*map(_bytes_of, map(_storage_of, live))] == expected or all(map(is_whole, live))
            ):
                return CHANGED
            if any(map(_is_negated, live)):
                self._resolve_negated(params, grads)
            # The lists themselves: the check reads each tensor out of them by its position.
            words[CHECK.params], words[CHECK.grads] = id(params), id(grads)
            words[CHECK.others] = id(others)
            if self._check(self.at):
                return CHANGED
            if words[CHECK.odd_total]:
                self._lay_out(params, grads)
            if words[CHECK.moved] and not self._moved_is_plain():
                return CHANGED
        except (NotImplementedError, RuntimeError):  # a sparse gradient has no storage, no view
            return CHANGED
        self.active, self.elements = words[CHECK.active], words[CHECK.elements]
        self.row_total = words[CHECK.row_total]
        if words[CHECK.touched]:
            return TOUCHED
        return MOVED if words[CHECK.moved] else SAME

    def _resolve_negated(self, params: list[Any], grads: list[Any]) -> None:
        """Put copies in the place of gradients that are lazy negations, which no kernel knows."""
        for position in self._positions:
            if grads[position] is not None and grads[position].is_neg():
                grads[position] = laid_out(grads[position], params[position])

    def _lay_out(self, params: list[Any], grads: list[Any]) -> None:
        """Copy the gradients that are not in their parameter's layout."""
        columns, dtype = self.variant.columns, self.variant.dtypes[1]
        odd = self._odd[: self._words[CHECK.odd_total]]
        on_cpu = params[self._positions[odd[0]]].device.type == "cpu"
        small = [index for index in odd if on_cpu and self.sizes[index] <= COPIED_HERE]
        for index in {*odd}.difference(small):
            # Kept as long as the kernel runs, and no longer: these are as large as gradients.
            position = self._positions[index]
            copy = laid_out(grads[position], params[position])
            self._copies.append(copy)
            self.pointers[index * columns + 1] = copy.data_ptr()
        if small:
            # One piece of memory for all of them, whatever the default device is.
            sizes = [self.sizes[index] for index in small]
            room = torch.empty(sum(sizes), dtype=dtype, device="cpu")
            self._copies.append(room)
            start = room.data_ptr()
            for index, size in zip(small, sizes, strict=True):
                self.pointers[index * columns + 1] = start
                start += size * dtype.itemsize
            self._odd[: len(small)] = array("q", small)
            self._words[CHECK.odd_total] = len(small)
            _copier(dtype)(self.at)

    def _moved_is_plain(self) -> bool:
        """Whether what is written lies within its storage, and nothing is a lazy negation.

        A storage that is cut off moves, so this is looked at only where an address has changed.
        """
        moved, columns = self._words[CHECK.moved], self.variant.columns
        active = [grad != 0 for grad in self.pointers[1::columns]]
        for column in (0, *range(2, columns)):
            if moved >> column & 1:
                # Only those with a gradient: the others are not written, and may be anything.
                tensors = (
                    [member.param for member in self.members]
                    if column == 0
                    else self._others[column - 2 :: len(self._names)]
                )
                tensors = [*compress(tensors, active)]
                expected = [*compress(self._bytes[column], active)]
                if any(map(_is_negated, tensors)) or not _are_whole(tensors, expected):
                    return False
        return True

    def watch(self, written: WrittenMemory) -> None:
        """Look out for gradients in this memory from now on."""
        self._written = written  # the check reads it by its address
        put(
            self._words,
            CHECK,
            written_total=written.total,
            written_starts=address(written.starts),
            written_ends=address(written.ends),
        )

    def forget_inactive(self) -> None:
        """Forget the addresses of members without a gradient: their memory may be long gone.

        They count as moved when they come again.
        """
        columns = self.variant.columns
        for index, grad in enumerate(self.pointers[1::columns]):
            if not grad:
                # In place: the check and the kernels know the table by its address.
                self.pointers[index * columns : (index + 1) * columns] = array("q", [0] * columns)


def _are_whole(tensors: list[Tensor], expected: list[int]) -> bool:
    """Whether no tensor reaches beyond the end of its storage.

    Args:
        tensors: the tensors.
        expected: how many bytes each has; most have a storage of just that size.
    """
    return list(map(_bytes_of, map(_storage_of, tensors))) == expected or all(
        map(is_whole, tensors)
    )


def available() -> bool:
    """Whether this torch tells what the check asks, and the check can be compiled."""
    return native.available() and hasattr(Tensor, "__dlpack_c_exchange_api__")


@remember
def warn_missing(package: str, processor: str) -> None:
    """Tell, once, that a package is missing which kernels need."""
    warnings.warn(
        f"descend: {package} is not installed, so steps on the {processor} take the slower eager "
        f"path; pip install {package.lower()}",
        RuntimeWarning,
        stacklevel=2,
    )


@remember
def _checker() -> Callable[[int], int]:
    def build() -> Any:
        from descend.engine import compiled_check

        return compiled_check.checker()

    return native.holding(native.address_of(f"check\n{_meaning()}", build))


@remember
def _copier(dtype: torch.dtype) -> Callable[[int], int]:
    def build() -> Any:
        from descend.engine import compiled_check

        return compiled_check.copier(dtype)

    return native.holding(native.address_of(f"copy {dtype}\n{_meaning()}", build))


def _meaning() -> str:
    return native.text_of("compiled_check.py", *COMPILED)


@remember
def _exchange() -> int:
    """The address of torch's function from a tensor object to its DLPack view."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = Tensor.__dlpack_c_exchange_api__
    fields = (ctypes.c_uint64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    # Version, older API, then five functions; the fourth fills in a view that owns nothing.
    assert fields[0] & 0xFFFFFFFF == 1, "another version of DLPack's exchange API"
    return int(fields[5])


@remember
def _device_word(device: torch.device) -> int:
    if device.type == "cpu":
        return _DLPACK_CPU
    view = (ctypes.c_int64 * _VIEW_WORDS)()
    probe = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(_exchange())
    probe(torch.empty(1, device=device), ctypes.addressof(view))
    return int(view[1])


@remember
def _list_item() -> int:
    return ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value or 0
