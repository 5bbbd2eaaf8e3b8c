"""The compiled functions that read and check the addresses of a table; see `pointers`.

Each is called with the address of the table's words, and reads and writes what these point to. A
tensor is asked for through torch's DLPack view, which owns nothing and is filled in anew each time.
"""

from collections.abc import Callable
from functools import cache as remember
from typing import Any

import torch

from descend.engine import native

LAYOUT = (
    "task",
    # Where to read from.
    "list_item",
    "view_of",
    "none",
    "params",
    "grads",
    "others",
    # What is expected.
    "members",
    "columns",
    "counts",
    "positions",
    "expected",
    "groups",
    "sizes",
    "itemsizes",
    "taken",
    # What is written down.
    "view",
    "pointers",
    "rows",
    "row_groups",
    "row_counts",
    "slots",
    "slot_mask",
    # The ranges that kernels write.
    "written",
    "starts",
    "ends",
    # What came out.
    "active",
    "elements",
    "row_total",
    "moved",
    "touched",
    "odd",
    "odd_total",
)
"""The words that the compiled check is given, by name: their indices follow from here alone."""
AT = {name: index for index, name in enumerate(LAYOUT)}

CHANGED, BAD_COUNT = 1, 2
"""What `check` says of a member that it does not take."""

COPIED_HERE = 32_768
"""Up to this many elements of a gradient in another layout are copied by `copy`; torch takes more
of them on several threads."""


CHECK, RANGES, SORT, MEETS = range(4)
"""The tasks of the compiled function, in the word "task"."""


@remember
def tasks() -> Callable[[int], int]:
    """The compiled function of a table's words that does what its "task" says."""
    return _function("check", _build)


@remember
def copier(dtype: torch.dtype) -> Callable[[int], int]:
    """The compiled function that copies gradients in another layout to where their pointers say.

    Args:
        dtype: of the gradients.
    """
    return _function(f"copy {dtype}", lambda: _build_copy(dtype))


def _function(name: str, build: Callable[[], Any]) -> Callable[[int], int]:
    text = native.text_of("compiled_check.py", "memory_access.py")
    return native.holding(native.address_of(f"{name}\n{text}", build))


def _build() -> Any:
    from descend.engine.memory_access import loader

    word = loader(torch.int64)
    task = AT["task"]
    check, ranges, sort, meets = _check(), _ranges(), _sort(), _meets()

    def run(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if word(at, task) == CHECK:
            return check(at)
        if word(at, task) == RANGES:
            return ranges(at)
        if word(at, task) == SORT:
            return sort(at)
        return meets(at)

    return _compiled(run)


def _check() -> Any:  # noqa: PLR0915 - one compiled function
    """`check`: 0, or four times the member that it does not take and why.

    Reads each active member's addresses afresh, finds the row of scalars of each, and writes down
    what has moved, which gradients overlap what is written, and which are in another layout.
    """
    from numba import njit, types

    from descend.engine.memory_access import caller, loader, storer

    word, put_word = loader(torch.int64), storer(torch.int64)
    put_number, number = storer(torch.float64), loader(torch.float64)
    step_count = loader(torch.float32)
    call, ask = caller(types.int64), caller(types.int32)
    list_item, view_of, none, view = AT["list_item"], AT["view_of"], AT["none"], AT["view"]
    params, grads, others = AT["params"], AT["grads"], AT["others"]
    members, columns, counts = AT["members"], AT["columns"], AT["counts"]
    positions, expected, groups = AT["positions"], AT["expected"], AT["groups"]
    sizes, itemsizes, taken = AT["sizes"], AT["itemsizes"], AT["taken"]
    pointers, rows, row_groups, row_counts = (
        AT["pointers"],
        AT["rows"],
        AT["row_groups"],
        AT["row_counts"],
    )
    slots, slot_mask = AT["slots"], AT["slot_mask"]
    active, elements, row_total = AT["active"], AT["elements"], AT["row_total"]
    moved, touched, odd, odd_total = AT["moved"], AT["touched"], AT["odd"], AT["odd_total"]
    changed, bad_count = CHANGED, BAD_COUNT
    infinity = float("inf")
    overlaps = _overlaps()

    @njit(error_model="numpy")
    def is_dense(rank, shape, strides):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Whether the elements fill their memory without gap or overlap, in whatever order."""
        stride, flat = 1, True
        for d in range(rank - 1, -1, -1):
            size = word(shape, d)
            if size != 1:
                flat = flat and word(strides, d) == stride
                stride *= size
        if flat or stride == 0:
            return True
        whole, stride = stride, 1
        while stride < whole:
            grown = 0
            for d in range(rank):
                if word(shape, d) != 1 and word(strides, d) == stride:
                    grown = word(shape, d)
            if grown == 0:
                return False
            stride *= grown
        return True

    @njit(error_model="numpy")
    def row_of(at, group, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """The row of this group and of the counts that lie behind the last row; it may be new."""
        total = word(at, row_total)
        fresh = word(at, row_counts) + 8 * width * total
        key = types.uint64(group + 1) * types.uint64(0x9E3779B97F4A7C15)
        for i in range(width):
            key = (key ^ types.uint64(word(fresh, i))) * types.uint64(0x9E3779B97F4A7C15)
        mask = word(at, slot_mask)
        slot = types.int64(key >> types.uint64(32)) & mask
        while True:
            row = word(word(at, slots), slot) - 1
            if row < 0:
                put_word(word(at, slots), slot, total + 1)
                put_word(word(at, row_groups), total, group)
                put_word(at, row_total, total + 1)
                return total
            known = word(at, row_counts) + 8 * width * row
            same = word(word(at, row_groups), row) == group
            for i in range(width):
                same = same and word(known, i) == word(fresh, i)
            if same:
                return row
            slot = (slot + 1) & mask

    @njit(error_model="numpy")
    def check(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0911, PLR0912, PLR0915
        item, exchange, looked = word(at, list_item), word(at, view_of), word(at, view)
        width, kinds, many = word(at, columns), word(at, expected), word(at, counts)
        table = word(at, pointers)
        for slot in range(word(at, slot_mask) + 1):
            put_word(word(at, slots), slot, 0)
        for result in (active, elements, row_total, moved, touched, odd_total):
            put_word(at, result, 0)
        for member in range(word(at, members)):
            position = word(word(at, positions), member)
            mine = table + 8 * width * member
            grad = call(item, word(at, grads), position)
            if grad == word(at, none):
                put_word(mine, 1, 0)
                put_word(word(at, rows), member, 0)
                continue
            shape, strides, rank = 0, 0, 0
            size = word(word(at, sizes), member)
            for column in range(width):
                if column == 0:
                    tensor = call(item, word(at, params), position)
                elif column == 1:
                    tensor = grad
                else:
                    tensor = call(item, word(at, others), member * (width - 2) + column - 2)
                if tensor == 0 or ask(exchange, tensor, looked) != 0:
                    return 4 * member + changed
                if word(looked, 1) != word(kinds, 2 * column):
                    return 4 * member + changed
                pointer, kind = word(looked, 0), word(looked, 2)
                if column == 0:
                    rank, shape, strides = kind & 0xFFFFFFFF, word(looked, 3), word(looked, 4)
                    elements_here = 1
                    for d in range(rank):
                        elements_here *= word(shape, d)
                    if elements_here != size or not is_dense(rank, shape, strides):
                        return 4 * member + changed
                is_count = column >= width - many
                if kind != word(kinds, 2 * column + 1) + (0 if is_count else rank):
                    return 4 * member + changed
                same = True
                if not is_count and column > 0:
                    for d in range(rank):
                        if word(word(looked, 3), d) != word(shape, d):
                            return 4 * member + changed
                        if (
                            word(shape, d) != 1
                            and size != 0
                            and word(word(looked, 4), d) != word(strides, d)
                        ):
                            same = False
                if pointer == 0 and (size != 0 or is_count):  # its memory was released
                    return 4 * member + changed
                if column == 1 and not same:  # a copy takes its place
                    put_word(word(at, odd), word(at, odd_total), member)
                    put_word(at, odd_total, word(at, odd_total) + 1)
                    put_word(mine, 1, 1)
                elif not same:
                    return 4 * member + changed
                elif column == 1:
                    if overlaps(at, pointer, pointer + size * word(word(at, itemsizes), 1)):
                        put_word(at, touched, 1)
                    put_word(mine, 1, pointer if size != 0 else 1)  # 0 says that there is none
                elif (size != 0 or is_count) and word(mine, column) != pointer:
                    put_word(mine, column, pointer)
                    put_word(at, moved, word(at, moved) | (1 << column))
            values = max(many, 1)
            fresh = word(at, row_counts) + 8 * values * word(at, row_total)
            if many == 0:
                put_number(fresh, 0, number(word(at, taken), member))
            else:
                count = types.float64(step_count(word(mine, width - many), 0))
                if not 0 <= count < infinity:
                    return 4 * member + bad_count
                put_number(fresh, 0, count)
                for i in range(1, many):
                    put_number(fresh, i, number(word(mine, width - many + i), 0))
            put_word(word(at, rows), member, row_of(at, word(word(at, groups), member), values))
            put_word(at, active, word(at, active) + 1)
            put_word(at, elements, word(at, elements) + size)
        return 0

    return check


def _ranges() -> Any:
    """`ranges`: adds what is written to the ranges; returns how many there are then."""
    from numba import njit

    from descend.engine.memory_access import loader, storer

    word, put_word = loader(torch.int64), storer(torch.int64)
    members, columns, counts = AT["members"], AT["columns"], AT["counts"]
    sizes, itemsizes, pointers = AT["sizes"], AT["itemsizes"], AT["pointers"]
    written, starts, ends = AT["written"], AT["starts"], AT["ends"]

    @njit(error_model="numpy")
    def ranges(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        total, width = word(at, written), word(at, columns)
        for member in range(word(at, members)):
            for column in range(width):
                start = word(word(at, pointers), member * width + column)
                length = word(word(at, itemsizes), column)
                if column < width - word(at, counts):
                    length *= word(word(at, sizes), member)
                if column != 1 and start != 0 and length != 0:
                    put_word(word(at, starts), total, start)
                    put_word(word(at, ends), total, start + length)
                    total += 1
        return total

    return ranges


def _sort() -> Any:
    """`sort`: sorts the ranges (a heap sort: no recursion); returns 1 if two of them overlap."""
    from numba import njit

    from descend.engine.memory_access import loader, storer

    word, put_word = loader(torch.int64), storer(torch.int64)
    written, starts, ends = AT["written"], AT["starts"], AT["ends"]

    @njit(error_model="numpy")
    def swap(at, i, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        for column in (word(at, starts), word(at, ends)):
            value = word(column, i)
            put_word(column, i, word(column, j))
            put_word(column, j, value)

    @njit(error_model="numpy")
    def sink(at, root, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        first = word(at, starts)
        while 2 * root + 1 < count:
            child = 2 * root + 1
            if child + 1 < count and word(first, child) < word(first, child + 1):
                child += 1
            if word(first, root) >= word(first, child):
                return
            swap(at, root, child)
            root = child

    @njit(error_model="numpy")
    def sort(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        count = word(at, written)
        for root in range(count // 2 - 1, -1, -1):
            sink(at, root, count)
        for last in range(count - 1, 0, -1):
            swap(at, 0, last)
            sink(at, 0, last)
        for index in range(1, count):
            if word(word(at, starts), index) < word(word(at, ends), index - 1):
                return 1
        return 0

    return sort


def _meets() -> Any:
    """`meets`: 1 if a gradient overlaps a range that is written (as they are sorted now)."""
    from numba import njit

    from descend.engine.memory_access import loader

    word = loader(torch.int64)
    members, columns, sizes = AT["members"], AT["columns"], AT["sizes"]
    itemsizes, pointers = AT["itemsizes"], AT["pointers"]
    overlaps = _overlaps()

    @njit(error_model="numpy")
    def meets(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        for member in range(word(at, members)):
            start = word(word(at, pointers), member * word(at, columns) + 1)
            size = word(word(at, sizes), member) * word(word(at, itemsizes), 1)
            if start != 0 and overlaps(at, start, start + size):
                return 1
        return 0

    return meets


def _overlaps() -> Any:
    """Whether a range of addresses meets one that is written."""
    from numba import njit

    from descend.engine.memory_access import loader

    word = loader(torch.int64)
    written, starts, ends = AT["written"], AT["starts"], AT["ends"]

    @njit(error_model="numpy")
    def overlaps(at, start, end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Whether a range of addresses meets one that kernels write."""
        low, high = 0, word(at, written)  # the first range that starts at or after `end`
        while low < high:
            middle = (low + high) // 2
            if word(word(at, starts), middle) < end:
                low = middle + 1
            else:
                high = middle
        return end > start and low > 0 and word(word(at, ends), low - 1) > start

    return overlaps


def _build_copy(dtype: torch.dtype) -> Any:
    """`copy`: copies the gradients in another layout to where their pointers say."""
    from numba import types

    from descend.engine.memory_access import caller, loader, storer

    word = loader(torch.int64)
    load, store, item = loader(dtype), storer(dtype), dtype.itemsize
    call, ask = caller(types.int64), caller(types.int32)
    list_item, view_of, view = AT["list_item"], AT["view_of"], AT["view"]
    params, grads, positions, sizes = AT["params"], AT["grads"], AT["positions"], AT["sizes"]
    columns, pointers, odd, odd_total = AT["columns"], AT["pointers"], AT["odd"], AT["odd_total"]
    most = COPIED_HERE

    def copy(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        looked = word(at, view)
        for index in range(word(at, odd_total)):
            member = word(word(at, odd), index)
            size = word(word(at, sizes), member)
            if size == 0 or size > most:
                continue
            position = word(word(at, positions), member)
            target = word(word(at, pointers), member * word(at, columns) + 1)
            ask(word(at, view_of), call(word(at, list_item), word(at, params), position), looked)
            rank, shape, to = word(looked, 2) & 0xFFFFFFFF, word(looked, 3), word(looked, 4)
            ask(word(at, view_of), call(word(at, list_item), word(at, grads), position), looked)
            source, by = word(looked, 0), word(looked, 4)
            # Along the longest dimension; where a line of it begins is worked out once.
            along = 0
            for d in range(rank):
                if word(shape, d) > word(shape, along):
                    along = d
            length, put_by, get_by = word(shape, along), word(to, along), word(by, along)
            for line in range(size // length):
                rest, put, get = line, 0, 0
                for d in range(rank - 1, -1, -1):
                    if d != along:
                        place = rest % word(shape, d)
                        rest //= word(shape, d)
                        put += place * word(to, d)
                        get += place * word(by, d)
                for i in range(length):
                    value = load(source + item * get, i * get_by)
                    store(target + item * put, i * put_by, value)
        return 0

    return _compiled(copy)


def _compiled(function: Callable[[int], int]) -> Any:
    from numba import cfunc

    return cfunc("int64(int64)", error_model="numpy")(function)
