"""Read every pointer afresh, and check the tensor behind it, each step.

A table holds the addresses of a batch of tensors. What a kernel gets to see is only what was
checked in the same step: device, dtype, shape, strides; an unchanged address for parameter and
state, a gradient that overlaps nothing that is written, a step count equal to its row's. The check
itself is a compiled function that asks torch for each tensor's DLPack view (torch 2.10 and later)
and otherwise a slower one in Python.
"""

import ctypes
from array import array
from collections.abc import Callable
from functools import cache as remember
from itertools import chain
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from descend.engine import native
from descend.engine.members import Member, Written
from descend.engine.rule import Variant

_DTYPE_BITS = {
    torch.float32: 0x12002,
    torch.float64: 0x14002,
    torch.bfloat16: 0x11004,
    torch.float16: 0x11002,
}
_DLPACK_CPU = 1
_PROBE_WORDS = 6


class Table:
    """The addresses of a batch, and what they were checked against.

    Args:
        variant: the kernel's constants; its dtypes are the members'.
        members: the parameters of the batch.
        written: every range that this step's kernels write.

    Attributes:
        pointers: `variant.columns` addresses of each member: parameter, gradient, states, and the
            step count and the counters if there are any.
        rows: the row of scalars of each member.
        row_groups: the group of each row.
        row_counts: the count of steps already taken, and the counters, of each row.
    """

    def __init__(self, variant: Variant, members: list[Member], written: Written) -> None:
        self.variant = variant
        self.members = members
        self.written = written
        names = variant.states + variant.rule.counts
        self.sizes = [member.param.numel() for member in members]
        self._states = [member.state for member in members]
        self._names = names
        self._width = max(1, len(variant.rule.counts))
        self._getter = itemgetter(*names) if len(names) > 1 else None
        self._assign_rows()
        self.pointers = array("q", bytes(8 * variant.columns * len(members)))
        for index, operands in enumerate(self._operands()):
            for column, tensor in enumerate(operands):
                self.pointers[index * variant.columns + column] = tensor.data_ptr()
        self.check: Callable[[list[Any], list[Any]], bool] = _checker(self)

    def _assign_rows(self) -> None:
        self.rows = array("q")
        self.row_groups: list[int] = []
        self.row_counts = array("d")
        self.row_firsts = array("q")
        known: dict[tuple[int, bytes], int] = {}
        for index, member in enumerate(self.members):
            counts = array("d", [float(count) for count in member.counts()])
            if not counts:
                counts.append(0.0 if member.fresh else 1.0)
            row = known.setdefault((member.group, counts.tobytes()), len(known))
            if row == len(self.row_groups):
                self.row_groups.append(member.group)
                self.row_counts.extend(counts)
                self.row_firsts.append(index)
            self.rows.append(row)

    def counts(self, row: int) -> tuple[float, ...]:
        """The number of this step, counted from 1, and the counters as they are, of a row."""
        width = self._width
        if width == 1:
            return (int(self.row_counts[row]) + 1,)
        taken, *counters = self.row_counts[row * width : (row + 1) * width]
        return (int(taken) + 1, *counters)

    def _operands(self) -> list[tuple[Tensor, ...]]:
        return [(*member.operands(), *member.counts()) for member in self.members]

    def state_tensors(self) -> list[Tensor]:
        """All state tensors as they are now, member by member."""
        if self._getter is not None:
            return list(chain.from_iterable(map(self._getter, self._states)))
        return [state[name] for state in self._states for name in self._names]


def _checker(table: Table) -> Callable[[list[Any], list[Any]], bool]:
    exchange = _exchange()
    if exchange is None or not native.available():
        return _PythonCheck(table)
    return _NativeCheck(table, exchange)


@remember
def _exchange() -> int | None:
    """The address of torch's function from a tensor object to its DLPack view."""
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    fields = (ctypes.c_uint64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    major = fields[0] & 0xFFFFFFFF
    # Version, older API, then five functions; the fourth fills in a view that owns nothing.
    return int(fields[5]) if major == 1 else None


@remember
def _device_word(device: torch.device) -> int:
    if device.type == "cpu":
        return _DLPACK_CPU
    view = (ctypes.c_int64 * _PROBE_WORDS)()
    probe = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(_exchange() or 0)
    probe(torch.empty(1, device=device), ctypes.addressof(view))
    return int(view[1])


def _dtype_word(dtype: torch.dtype) -> int:
    """Code, bits and lanes as the upper half of the word that also holds the rank."""
    return _DTYPE_BITS[dtype] << 32


class _NativeCheck:
    """The compiled check; see `_build` for the words it is given."""

    def __init__(self, table: Table, exchange: int) -> None:
        members, variant = table.members, table.variant
        device = _device_word(members[0].param.device)
        self._expected = array("q")
        for dtype in variant.dtypes:
            self._expected.extend((device, _dtype_word(dtype)))
        for name in variant.rule.counts:
            dtype = torch.float32 if name == "step" else torch.float64
            self._expected.extend((_DLPACK_CPU, _dtype_word(dtype)))
        self._dims, self._offsets, self._positions = array("q"), array("q"), array("q")
        for member in members:
            param = member.param
            self._offsets.append(len(self._dims))
            self._dims.extend((param.ndim, *param.shape, *param.stride()))
            self._positions.append(member.position)
        item = variant.dtypes[1].itemsize
        self._bytes = array("q", [size * item for size in table.sizes])
        self._view = array("q", bytes(8 * _PROBE_WORDS))
        self._table = table
        # A parameter of one element may get a gradient that is a lazy negation: its strides say
        # nothing, and DLPack does not tell.
        self._single = [m.position for m in members if m.param.numel() == 1]
        written = table.written
        self._words = array(
            "q",
            [
                _list_item(),
                exchange,
                0,
                0,
                0,
                len(members),
                table.variant.columns,
                len(variant.rule.counts),
                *map(
                    address,
                    (
                        self._positions,
                        self._expected,
                        self._dims,
                        self._offsets,
                        self._bytes,
                        table.pointers,
                        table.rows,
                        table.row_firsts,
                        table.row_counts,
                        self._view,
                    ),
                ),
                len(written.starts),
                written.starts.ctypes.data,
                written.ends.ctypes.data,
            ],
        )
        self._at = address(self._words)
        self._call = _compiled()

    def __call__(self, params: list[Any], grads: list[Any]) -> bool:
        # Kept until the next check: the kernel runs without the interpreter lock, and another
        # thread may replace a state tensor meanwhile.
        self._others = others = self._table.state_tensors()
        words = self._words
        words[2], words[3], words[4] = id(params), id(grads), id(others)
        try:
            if self._call(self._at):
                return False
        except RuntimeError:  # torch has no DLPack view of one of them
            return False
        return not self._single or not any(grads[position].is_neg() for position in self._single)


class _PythonCheck:
    """The same check without the compiled function: for torch before 2.10, or without Numba."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._facts = [[_facts(t) for t in operands] for operands in table._operands()]

    def __call__(self, params: list[Any], grads: list[Any]) -> bool:
        table = self._table
        width, counts = table.variant.columns, len(table.variant.rule.counts)
        self._others = others = table.state_tensors()  # kept alive, as above
        for index, member in enumerate(table.members):
            states = others[index * (width - 2) : (index + 1) * (width - 2)]
            grad = grads[member.position]
            operands = (params[member.position], grad, *states)
            for column, (tensor, facts) in enumerate(
                zip(operands, self._facts[index], strict=True)
            ):
                if tensor.layout is not torch.strided or _facts(tensor) != facts:
                    return False
                pointer = tensor.data_ptr()
                if column == 1:
                    table.pointers[index * width + 1] = pointer
                elif tensor.numel() and table.pointers[index * width + column] != pointer:
                    return False
            size = grad.numel() * grad.element_size()
            start = grad.data_ptr()
            if size and not start:
                return False
            written = table.written
            last = int(written.starts.searchsorted(start + size)) - 1
            if grad.is_neg() or (size and last >= 0 and written.ends[last] > start):
                return False
            row = table.rows[index]
            for place, count in enumerate(states[len(states) - counts :], row * counts):
                if table.row_firsts[row] == index:
                    table.row_counts[place] = float(count)
                elif not _same(table.row_counts[place], float(count)):
                    return False
        return True


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124 - NaN


def _facts(tensor: Tensor) -> tuple[object, ...]:
    strides = tuple(
        stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1
    )
    return (tensor.dtype, tensor.device, tensor.shape, strides if tensor.numel() else ())


def address(buffer: Any) -> int:
    """Where the items of an `array.array` lie; it must not grow afterwards."""
    return int(buffer.buffer_info()[0])


@remember
def _list_item() -> int:
    return ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value or 0


@remember
def _compiled() -> Callable[[int], int]:
    return native.holding(native.address_of(native.text_of("gather.py", "memory.py"), _build))


def _build() -> Any:  # noqa: PLR0915 - one compiled function
    from numba import cfunc, types

    from descend.engine.memory import caller, loader, storer

    word, put_word = loader(torch.int64), storer(torch.int64)
    number, put_number = loader(torch.float64), storer(torch.float64)
    step_count = loader(torch.float32)
    call, ask = caller(types.int64), caller(types.int32)

    def check(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0911, PLR0912
        item, exchange = word(at, 0), word(at, 1)
        params, grads, others = word(at, 2), word(at, 3), word(at, 4)
        count, width, counts = word(at, 5), word(at, 6), word(at, 7)
        positions, expected, dims, offsets = word(at, 8), word(at, 9), word(at, 10), word(at, 11)
        sizes, pointers, rows, firsts = word(at, 12), word(at, 13), word(at, 14), word(at, 15)
        row_counts, view = word(at, 16), word(at, 17)
        written, starts, ends = word(at, 18), word(at, 19), word(at, 20)
        for member in range(count):
            position = word(positions, member)
            shape = dims + 8 * word(offsets, member)
            for column in range(width):
                if column == 0:
                    tensor = call(item, params, position)
                elif column == 1:
                    tensor = call(item, grads, position)
                else:
                    tensor = call(item, others, member * (width - 2) + column - 2)
                if tensor == 0 or ask(exchange, tensor, view) != 0:
                    return 1
                which = column - (width - counts)  # 0: the step count; above: a counter
                rank = 0 if which >= 0 else word(shape, 0)
                if word(view, 1) != word(expected, 2 * column):
                    return 2
                if word(view, 2) != word(expected, 2 * column + 1) + rank:
                    return 3
                its_shape, its_strides = word(view, 3), word(view, 4)
                for d in range(rank):
                    size = word(shape, 1 + d)
                    if word(its_shape, d) != size:
                        return 4
                    if (
                        size != 1
                        and word(sizes, member) != 0
                        and word(its_strides, d) != word(shape, 1 + rank + d)
                    ):
                        return 5
                pointer = word(view, 0)
                if column == 1:
                    put_word(pointers, member * width + 1, pointer)
                    end = pointer + word(sizes, member)
                    if pointer == 0 and end != 0:  # its memory was released
                        return 9
                    low, high = 0, written  # the first range that starts at or after `end`
                    while low < high:
                        middle = (low + high) // 2
                        if word(starts, middle) < end:
                            low = middle + 1
                        else:
                            high = middle
                    if end > pointer and low > 0 and word(ends, low - 1) > pointer:
                        return 6
                elif (which >= 0 or word(sizes, member) != 0) and word(
                    pointers, member * width + column
                ) != pointer:
                    return 7
                if which >= 0:
                    if which == 0:
                        value = types.float64(step_count(pointer, 0))
                    else:
                        value = number(pointer, 0)
                    row = word(rows, member)
                    place = row * counts + which
                    if word(firsts, row) == member:
                        put_number(row_counts, place, value)
                    else:
                        known = number(row_counts, place)
                        if known != value and (known == known or value == value):  # noqa: PLR0124
                            return 8
        return 0

    return cfunc("int64(int64)", error_model="numpy")(check)
