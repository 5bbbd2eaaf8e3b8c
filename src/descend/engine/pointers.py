"""Read every pointer afresh, and check the tensor behind it, each step.

A table holds the addresses of a batch of tensors. What a kernel gets to see is only what was
checked in the same step: device, dtype, shape, strides, an address that is not empty, a gradient
that overlaps nothing that is written. Addresses may change from one step to the next; so may which
of the parameters have a gradient: one without is a row that the kernels skip.

The check is a compiled function that asks torch for each tensor's DLPack view. DLPack tells
neither a lazy negation nor where the storage ends: these two are looked at in Python.
"""

import ctypes
from array import array
from bisect import bisect_left
from collections.abc import Callable
from functools import cache as remember
from itertools import chain, compress, pairwise
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from descend.engine import native
from descend.engine.compiled_check import (
    AT,
    BAD_COUNT,
    CHECK,
    COPIED_HERE,
    LAYOUT,
    MEETS,
    RANGES,
    SORT,
    copier,
    tasks,
)
from descend.engine.rule import Variant
from descend.engine.step_inputs import DENSE_TYPES, Member, is_whole, laid_out

_DTYPE_BITS = {
    torch.float32: 0x12002,
    torch.float64: 0x14002,
    torch.bfloat16: 0x11004,
    torch.float16: 0x11002,
}
_DLPACK_CPU = 1
_VIEW_WORDS = 6
"""The words of a DLTensor: address, device, rank and dtype, shape, strides, offset."""

_PARAMS, _GRADS, _OTHERS = (AT[name] for name in ("params", "grads", "others"))
_ACTIVE, _ELEMENTS, _ROW_TOTAL = (AT[name] for name in ("active", "elements", "row_total"))
_MOVED, _TOUCHED, _ODD_TOTAL = (AT[name] for name in ("moved", "touched", "odd_total"))

MOVED, TOUCHED = 1, 2
"""What `Table.check` finds that must be found out anew."""

_is_negated = Tensor.is_neg
_storage_of = Tensor.untyped_storage
_bytes_of = torch.UntypedStorage.nbytes


class BadCountError(Exception):
    """A step count is no count: negative, or not a number. Its argument is the member."""


class Table:
    """The addresses of a batch of members, and the row of scalars of each.

    Args:
        variant: the kernel's constants; its dtypes are the members'.
        device: where the tensors lie.

    Attributes:
        members: whose addresses these are.
        pointers: `variant.columns` addresses of each member: parameter, gradient (0: it has none
            in this step), states, and the step count and the counters if there are any.
        rows: the row of scalars of each member.
        sizes: the number of elements of each member.
    """

    def __init__(self, variant: Variant, device: torch.device) -> None:
        self.variant = variant
        self.members: list[Member] = []
        self.sizes = array("q")
        self.pointers = array("q")
        self.rows = array("q")
        self._positions, self._groups = array("q"), array("q")
        self.row_groups, self._row_counts = array("q"), array("d")
        self._odd = array("q")
        self._slots = array("q")
        # A rule that counts no steps is told 1 at the first step of a parameter, and 2 later.
        self._taken = array("d")
        self._untaken: list[int] = []
        self._names = names = variant.states + variant.rule.counts
        self._width = max(1, len(variant.rule.counts))
        self._getter = itemgetter(*names) if len(names) > 1 else None
        self._view = array("q", bytes(8 * _VIEW_WORDS))
        counts = [4 if name == "step" else 8 for name in variant.rule.counts]
        self._itemsizes = array("q", [*(dtype.itemsize for dtype in variant.dtypes), *counts])
        self._expected = array("q")
        for dtype in variant.dtypes:
            self._expected.extend((_device_word(device), _dtype_word(dtype)))
        for name in variant.rule.counts:
            dtype = torch.float32 if name == "step" else torch.float64
            self._expected.extend((_DLPACK_CPU, _dtype_word(dtype)))
        self._words = array("q", bytes(8 * len(LAYOUT)))
        self._set(
            list_item=_list_item(),
            view_of=_exchange(),
            none=id(None),
            columns=variant.columns,
            counts=len(variant.rule.counts),
            itemsizes=address(self._itemsizes),
            expected=address(self._expected),
            view=address(self._view),
        )
        self._at = address(self._words)
        self._call = tasks()
        self._copies: list[Any] = []
        self._ranges = array("q"), array("q"), 0

    def _set(self, **words: int) -> None:
        for name, word in words.items():
            self._words[AT[name]] = word

    @property
    def active(self) -> int:
        """How many members have a gradient in this step."""
        return self._words[_ACTIVE]

    @property
    def elements(self) -> int:
        """How many elements those have."""
        return self._words[_ELEMENTS]

    @property
    def row_total(self) -> int:
        """How many rows of scalars there are in this step."""
        return self._words[_ROW_TOTAL]

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        columns, many = self.variant.columns, len(members)
        self.members += members
        self.pointers.frombytes(bytes(8 * columns * many))
        self.rows.frombytes(bytes(8 * many))
        self.row_groups.frombytes(bytes(8 * many))
        self._odd.frombytes(bytes(8 * many))
        self._row_counts.frombytes(bytes(8 * self._width * many))
        for member in members:
            self._positions.append(member.position)
            self._groups.append(member.group)
            self.sizes.append(member.param.numel())
            if member.fresh and not self.variant.rule.counts_steps:
                self._untaken.append(len(self._taken))
            self._taken.append(0.0 if member.fresh else 1.0)
        total = len(self.members)
        slots = 1 << (2 * total).bit_length()
        self._slots = array("q", bytes(8 * slots))
        self._bytes = [
            [size * item if column < len(self.variant.operands) else item for size in self.sizes]
            for column, item in enumerate(self._itemsizes)
        ]
        self._of_mine = _items(self._positions)
        # The dicts may be replaced by the optimizer's own before the first launch.
        self._states: list[Any] | None = None
        self._set(
            members=total,
            slot_mask=slots - 1,
            positions=address(self._positions),
            groups=address(self._groups),
            sizes=address(self.sizes),
            taken=address(self._taken),
            pointers=address(self.pointers),
            rows=address(self.rows),
            row_groups=address(self.row_groups),
            row_counts=address(self._row_counts),
            slots=address(self._slots),
            odd=address(self._odd),
        )

    def counts(self, row: int) -> tuple[float, ...]:
        """The number of this step, counted from 1, and the counters as they are, of a row."""
        width = self._width
        if width == 1:
            return (int(self._row_counts[row]) + 1,)
        taken, *counters = self._row_counts[row * width : (row + 1) * width]
        return (int(taken) + 1, *counters)

    def count_first_steps(self) -> None:
        """Take note of the members whose first step this was, for a rule that counts none."""
        if not self._untaken:
            return
        for index in self._untaken:
            if self.pointers[index * self.variant.columns + 1]:
                self._taken[index] = 1.0
                self.members[index].fresh = False
        self._untaken = [index for index in self._untaken if not self._taken[index]]

    def active_rows(self) -> list[int]:
        """The row of each active member."""
        return [*compress(self.rows, self.pointers[1 :: self.variant.columns])]

    def active_members(self) -> list[Member]:
        """The members that have a gradient in this step."""
        if self.active == len(self.members):
            return self.members
        return [*compress(self.members, self.pointers[1 :: self.variant.columns])]

    def adopt_states(self) -> None:
        """Read each member's state from where it is now."""
        self._states = None

    def check(self, params: list[Any], grads: list[Any]) -> int | None:
        """Whether the tensors are still what the kernel was prepared for; notes their addresses.

        Args:
            params: all parameters of the optimizer.
            grads: the gradient of each, or None. Of one in another layout than its parameter the
                kernel gets a copy in the parameter's.

        Returns:
            None where something else than an address has changed; otherwise 0, or what must be
            found out anew: `MOVED` an address that is written to, `TOUCHED` whether a gradient
            overlaps what is written.

        Raises:
            BadCountError: a step count is no count.
        """
        if self._states is None:
            self._states = [member.state for member in self.members]
        if self._getter is not None:
            others = list(chain.from_iterable(map(self._getter, self._states)))
        else:
            others = [state[name] for state in self._states for name in self._names]
        # Kept until the next check: the kernel runs without the interpreter lock, and another
        # thread may replace a state tensor meanwhile.
        self._others = others
        mine = self._of_mine(grads)
        live = [grad for grad in mine if grad is not None]
        # A parameter or a state of another type has no memory of its own, or an ordinary one.
        if not DENSE_TYPES.issuperset(map(type, live)):
            return None
        self._copies = []
        words = self._words
        words[_PARAMS], words[_GRADS], words[_OTHERS] = id(params), id(grads), id(others)
        try:
            if not self._gradients_are_whole(mine, live):
                return None
            if any(map(_is_negated, live)):
                self._resolve_negated(params, grads)
            if answer := self._call(self._at):
                if answer % 4 == BAD_COUNT:
                    raise BadCountError(self.members[answer // 4])
                return None
            if words[_ODD_TOTAL]:
                self._lay_out(params, grads)
        except (RuntimeError, NotImplementedError):  # a sparse gradient has no storage, no view
            return None
        return (words[_MOVED] and MOVED) | (words[_TOUCHED] and TOUCHED)

    def _gradients_are_whole(self, mine: list[Any], live: list[Any]) -> bool:
        expected = self._bytes[1]
        if len(live) != len(expected):
            expected = [*compress(expected, (grad is not None for grad in mine))]
        return _are_whole(live, expected)

    def _resolve_negated(self, params: list[Any], grads: list[Any]) -> None:
        """Put copies in the place of gradients that are lazy negations, which no kernel knows."""
        for position in self._positions:
            if grads[position] is not None and grads[position].is_neg():
                grads[position] = laid_out(grads[position], params[position])

    def _lay_out(self, params: list[Any], grads: list[Any]) -> None:
        """Copy the gradients that are not in their parameter's layout."""
        columns, dtype = self.variant.columns, self.variant.dtypes[1]
        odd = self._odd[: self._words[_ODD_TOTAL]]
        here = COPIED_HERE if params[self._positions[odd[0]]].device.type == "cpu" else -1
        small = [index for index in odd if self.sizes[index] <= here]
        for index in odd:
            if self.sizes[index] > here:
                position = self._positions[index]
                copy = laid_out(grads[position], params[position])
                self._copies.append(copy)
                self.pointers[index * columns + 1] = copy.data_ptr()
        if small:
            elements = sum(self.sizes[index] for index in small)
            room = torch.empty(elements, dtype=dtype, device="cpu")  # whatever the default is
            start = room.data_ptr()
            for index in small:
                self.pointers[index * columns + 1] = start
                start += self.sizes[index] * dtype.itemsize
            copier(dtype)(self._at)
            self._copies.append(room)

    def release(self) -> None:
        """Let go of copies of gradients."""
        self._copies = []

    def written_is_plain(self) -> bool:
        """Whether all that is written lies within its storage, and nothing is a lazy negation.

        A storage that is cut off moves, so this is looked at only where an address has changed.
        """
        moved = self._words[_MOVED]
        active = [grad != 0 for grad in self.pointers[1 :: self.variant.columns]]
        width = len(self._names)
        for column in (0, *range(2, self.variant.columns)):
            if moved >> column & 1:
                tensors = (
                    [member.param for member in self.members]
                    if column == 0
                    else self._others[column - 2 :: width]
                )
                tensors = [*compress(tensors, active)]
                if any(map(_is_negated, tensors)) or not _are_whole(
                    tensors, [*compress(self._bytes[column], active)]
                ):
                    return False
        return True

    def run(self, task: int) -> int:
        """Let the compiled function do one of its other tasks."""
        self._set(task=task)
        answer = self._call(self._at)
        self._set(task=CHECK)
        return answer

    def forget_inactive(self) -> None:
        """Forget the addresses of members without a gradient: their memory may be long gone.

        They count as moved when they come again.
        """
        columns = self.variant.columns
        for index, grad in enumerate(self.pointers[1::columns]):
            if not grad:
                self.pointers[index * columns : (index + 1) * columns] = array("q", [0] * columns)

    def watch(self, starts: "array[int]", ends: "array[int]", count: int) -> None:
        """Look out for gradients in these ranges from now on: sorted, and apart from each other."""
        self._ranges = starts, ends, count  # kept alive
        self._set(written=count, starts=address(starts), ends=address(ends))

    def is_written(self, start: int, end: int) -> bool:
        """Whether addresses lie in the ranges that are watched."""
        starts, ends, count = self._ranges
        before = bisect_left(starts, end, 0, count)
        return end > start and before > 0 and ends[before - 1] > start


class Tabled:
    """A batch whose addresses are in a table.

    Args:
        variant: the kernel's constants.
        device: where the tensors lie.
    """

    def __init__(self, variant: Variant, device: torch.device) -> None:
        self.variant = variant
        self.table = Table(variant, device)

    @property
    def members(self) -> list[Member]:
        """The parameters of the batch."""
        return self.table.members

    @property
    def active(self) -> int:
        """How many members have a gradient in this step."""
        return self.table.active

    def active_members(self) -> list[Member]:
        """Those members."""
        return self.table.active_members()


def set_apart(tables: list[Table], others: list[tuple[int, int]]) -> bool:
    """Find the ranges of addresses that are written; False if two overlap, or one that is read.

    Args:
        tables: the tensors of kernels; each looks out for gradients in these ranges from now on.
        others: ranges (start, end) that a step writes without a table.
    """
    if not tables:
        return all(end <= start for (_, end), (start, _) in pairwise(sorted(others)))
    most = len(others) + sum(len(table.members) * table.variant.columns for table in tables)
    starts, ends = (array("q", bytes(8 * most)) for _ in range(2))
    count = len(others)
    for index, (start, end) in enumerate(others):
        starts[index], ends[index] = start, end
    for table in tables:
        table.watch(starts, ends, count)
        count = table.run(RANGES)
    for table in tables:
        table.watch(starts, ends, count)
    return not (tables[0].run(SORT) or any(table.run(MEETS) for table in tables))


def _are_whole(tensors: list[Tensor], expected: list[int]) -> bool:
    """Whether no tensor reaches beyond the end of its storage.

    Args:
        tensors: the tensors.
        expected: how many bytes each has; most have a storage of just that size.
    """
    return list(map(_bytes_of, map(_storage_of, tensors))) == expected or all(
        map(is_whole, tensors)
    )


def _items(positions: "array[int]") -> Callable[[list[Any]], Any]:
    """A function that takes these items from a list."""
    if len(positions) > 1:
        return itemgetter(*positions)
    only = positions[0]
    return lambda items: (items[only],)


def available() -> bool:
    """Whether this torch tells what the check asks, and the check can be compiled."""
    return native.available() and hasattr(Tensor, "__dlpack_c_exchange_api__")


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


def _dtype_word(dtype: torch.dtype) -> int:
    """Code, bits and lanes as the upper half of the word that also holds the rank."""
    return _DTYPE_BITS[dtype] << 32


def address(buffer: Any) -> int:
    """Where the items of an `array.array` lie; it must not grow afterwards."""
    return int(buffer.buffer_info()[0])


@remember
def _list_item() -> int:
    return ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value or 0
