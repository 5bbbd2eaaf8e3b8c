"""The compiled functions that read and check the addresses of a batch; see `pointers`.

Imported only where they must be compiled. Each is called with the address of the words `CHECK`,
and reads and writes what these point to. A tensor is asked for through torch's DLPack view, which
owns nothing and is filled in anew each time.
"""

from typing import Any

import torch
from numba import cfunc, njit, types

from descend.engine.compiled_apart import meets
from descend.engine.kernel_words import CHECK
from descend.engine.memory_access import caller, loader, storer

word, put_word = loader(torch.int64), storer(torch.int64)
number, put_number = loader(torch.float64), storer(torch.float64)
step_count = loader(torch.float32)
list_item, ask = caller(types.int64), caller(types.int32)

# The words of a DLPack view; the third holds the rank in its lower half, the dtype in its upper.
ADDRESS, DEVICE, RANK_AND_DTYPE, SHAPE, STRIDES = range(5)
RANK_BITS = 0xFFFFFFFF
OTHER_SHAPE, OTHER_STRIDES, SAME = range(3)
INFINITY = float("inf")
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: what a product with it spreads well


@njit(error_model="numpy", forceinline=True)
def is_dense(rank: int, shape: int, strides: int) -> bool:
    """Whether the elements fill their memory without gap or overlap, in whatever order."""
    # First as most tensors are: the last dimension is the nearest.
    stride, flat = 1, True
    for d in range(rank - 1, -1, -1):
        size = word(shape, d)
        if size != 1:
            flat = flat and word(strides, d) == stride
            stride *= size
    if flat or stride == 0:
        return True
    # Dimensions in another order: from 1 on, each stride times its size is another's stride.
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


@njit(error_model="numpy", forceinline=True)
def is_written(at: int, start: int, end: int) -> bool:
    """Whether a range of addresses meets one that the step writes."""
    starts, ends = word(at, CHECK.written_starts), word(at, CHECK.written_ends)
    return meets(starts, ends, word(at, CHECK.written_total), start, end)


@njit(error_model="numpy", forceinline=True)
def row_of(at: int, group: int, width: int) -> int:
    """The row of this group and of the counts that lie behind the last row; it may be new."""
    total = word(at, CHECK.row_total)
    fresh = word(at, CHECK.row_counts) + 8 * width * total
    # Parameters of one group that have taken as many steps share their scalars.
    key = types.uint64(group + 1) * types.uint64(GOLDEN)
    for i in range(width):
        key = (key ^ types.uint64(word(fresh, i))) * types.uint64(GOLDEN)
    mask, slots = word(at, CHECK.slot_mask), word(at, CHECK.slots)
    slot = types.int64(key >> types.uint64(32)) & mask
    # There are fewer rows than slots, so that this ends.
    while True:
        row = word(slots, slot) - 1
        if row < 0:
            put_word(slots, slot, total + 1)
            put_word(word(at, CHECK.row_groups), total, group)
            put_word(at, CHECK.row_total, total + 1)
            return total
        known = word(at, CHECK.row_counts) + 8 * width * row
        # Counts are compared by their bits: a NaN among the counters must find its row, too.
        same = word(word(at, CHECK.row_groups), row) == group
        for i in range(width):
            same = same and word(known, i) == word(fresh, i)
        if same:
            return row
        slot = (slot + 1) & mask


@njit(error_model="numpy", forceinline=True)
def look_at(at: int, tensor: int, column: int) -> bool:
    """Have torch fill in the view; whether it has this column's device and dtype."""
    view, expected = word(at, CHECK.dlpack), word(at, CHECK.expected)
    return (
        tensor != 0
        and ask(word(at, CHECK.view_of), tensor, view) == 0
        and word(view, DEVICE) == word(expected, 2 * column)
        and word(view, RANK_AND_DTYPE) >> 32 == word(expected, 2 * column + 1)
    )


@njit(error_model="numpy", forceinline=True)
def note(at: int, mine: int, column: int, pointer: int) -> None:
    """Write down the address of what a kernel writes, and whether it is another than before."""
    if word(mine, column) != pointer:
        put_word(mine, column, pointer)
        put_word(at, CHECK.moved, word(at, CHECK.moved) | (1 << column))


@njit(error_model="numpy", forceinline=True)
def check_counts(at: int, member: int, mine: int) -> bool:
    """Find the row of a member's counts; False where its step count is none."""
    many, width = word(at, CHECK.counts), word(at, CHECK.columns)
    values = max(many, 1)
    # Written behind the last row: if no row is like it, it is the next one already.
    fresh = word(at, CHECK.row_counts) + 8 * values * word(at, CHECK.row_total)
    if many == 0:
        put_number(fresh, 0, number(word(at, CHECK.begun), member))
    else:
        count = types.float64(step_count(word(mine, width - many), 0))
        if not 0 <= count < INFINITY:  # of a NaN nothing is true
            return False
        put_number(fresh, 0, count)
        for i in range(1, many):
            put_number(fresh, i, number(word(mine, width - many + i), 0))
    row = row_of(at, word(word(at, CHECK.groups), member), values)
    put_word(word(at, CHECK.rows), member, row)
    return True


@njit(error_model="numpy", forceinline=True)
def layout(dlpack: int, rank: int, shape: int, strides: int, size: int) -> int:
    """How the tensor of a view is laid out, beside a shape and its strides."""
    same = SAME
    for d in range(rank):
        here = word(shape, d)
        if word(word(dlpack, SHAPE), d) != here:
            return OTHER_SHAPE
        # Where there is one index, or none, a stride does not matter.
        if here != 1 and size != 0 and word(word(dlpack, STRIDES), d) != word(strides, d):
            same = OTHER_STRIDES
    return same


@njit(error_model="numpy", forceinline=True)
def check_param(at: int, param: int, size: int, mine: int) -> bool:
    """Whether the kernel can walk a parameter; notes where it lies."""
    dlpack = word(at, CHECK.dlpack)
    if not look_at(at, param, 0):
        return False
    rank, pointer = word(dlpack, RANK_AND_DTYPE) & RANK_BITS, word(dlpack, ADDRESS)
    # The chunks of the kernel were cut for so many elements.
    elements = 1
    for d in range(rank):
        elements *= word(word(dlpack, SHAPE), d)
    if elements != size or not is_dense(rank, word(dlpack, SHAPE), word(dlpack, STRIDES)):
        return False
    # An empty tensor may lie at any address, or at none.
    if size != 0:
        note(at, mine, 0, pointer)
    return pointer != 0 or size == 0


@njit(error_model="numpy", forceinline=True)
def note_gradient(at: int, member: int, mine: int, pointer: int, same: bool) -> None:
    """Note where a gradient lies; one in another layout than its parameter will be copied."""
    size = word(word(at, CHECK.sizes), member)
    if not same:
        put_word(word(at, CHECK.odd), word(at, CHECK.odd_total), member)
        put_word(at, CHECK.odd_total, word(at, CHECK.odd_total) + 1)
    elif is_written(at, pointer, pointer + size * word(word(at, CHECK.itemsizes), 1)):
        put_word(at, CHECK.touched, 1)
    put_word(mine, 1, pointer if same and size != 0 else 1)  # 0 says that there is none


@njit(error_model="numpy", forceinline=True)
def check_member(at: int, member: int, position: int, grad: int, mine: int) -> bool:
    """Read a member's addresses afresh; False where it is not what the kernel was made for."""
    width, dlpack, item = word(at, CHECK.columns), word(at, CHECK.dlpack), word(at, CHECK.list_item)
    size = word(word(at, CHECK.sizes), member)
    if not check_param(at, list_item(item, word(at, CHECK.params), position), size, mine):
        return False
    # Shape and strides are torch's own memory: they live as long as the parameter does.
    rank = word(dlpack, RANK_AND_DTYPE) & RANK_BITS
    shape, strides = word(dlpack, SHAPE), word(dlpack, STRIDES)
    for column in range(1, width):
        tensor, is_count = grad, column >= width - word(at, CHECK.counts)
        if column > 1:
            place = member * (width - 2) + column - 2
            tensor = list_item(item, word(at, CHECK.others), place)
        if not look_at(at, tensor, column):
            return False
        pointer = word(dlpack, ADDRESS)
        if word(dlpack, RANK_AND_DTYPE) & RANK_BITS != (0 if is_count else rank):
            return False
        if pointer == 0 and (size != 0 or is_count):  # its memory was released
            return False
        laid = SAME if is_count else layout(dlpack, rank, shape, strides, size)
        if laid == OTHER_SHAPE or (laid == OTHER_STRIDES and column != 1):
            return False
        if column == 1:
            note_gradient(at, member, mine, pointer, laid == SAME)
        elif size != 0 or is_count:
            note(at, mine, column, pointer)
    return True


def check(at: int) -> int:
    """Whether something is not what the kernel was made for; a step count that is none is such.

    Reads each active member's addresses afresh, finds the row of scalars of each, and writes down
    what has moved, which gradients overlap what is written, and which are in another layout.
    """
    # Counts change in each step, so rows are found anew.
    for slot in range(word(at, CHECK.slot_mask) + 1):
        put_word(word(at, CHECK.slots), slot, 0)
    put_word(at, CHECK.active, 0)
    put_word(at, CHECK.elements, 0)
    put_word(at, CHECK.row_total, 0)
    put_word(at, CHECK.moved, 0)
    put_word(at, CHECK.touched, 0)
    put_word(at, CHECK.odd_total, 0)
    for member in range(word(at, CHECK.members)):
        position = word(word(at, CHECK.positions), member)
        mine = word(at, CHECK.pointers) + 8 * word(at, CHECK.columns) * member
        grad = list_item(word(at, CHECK.list_item), word(at, CHECK.grads), position)
        if grad == word(at, CHECK.none):  # parameter and state may be anything, and are not read
            put_word(mine, 1, 0)
            put_word(word(at, CHECK.rows), member, 0)
            continue
        if not (check_member(at, member, position, grad, mine) and check_counts(at, member, mine)):
            return 1
        put_word(at, CHECK.active, word(at, CHECK.active) + 1)
        size = word(word(at, CHECK.sizes), member)
        put_word(at, CHECK.elements, word(at, CHECK.elements) + size)
    return 0


def checker() -> Any:
    """The compiled `check`."""
    return cfunc("int64(int64)", error_model="numpy")(check)


def copier(dtype: torch.dtype) -> Any:
    """The function that copies gradients in another layout to where their pointers say.

    Args:
        dtype: of the gradients.
    """
    load, store, itemsize = loader(dtype), storer(dtype), dtype.itemsize

    @njit(error_model="numpy")
    def copy_lines(rank, size, shape, to, by, target, source):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
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
                value = load(source + itemsize * get, i * get_by)
                store(target + itemsize * put, i * put_by, value)

    @cfunc("int64(int64)", error_model="numpy")
    def copy(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        view, item, view_of = (
            word(at, CHECK.dlpack),
            word(at, CHECK.list_item),
            word(at, CHECK.view_of),
        )
        for index in range(word(at, CHECK.odd_total)):
            member = word(word(at, CHECK.odd), index)
            size = word(word(at, CHECK.sizes), member)
            if size == 0:
                continue
            position = word(word(at, CHECK.positions), member)
            target = word(word(at, CHECK.pointers), member * word(at, CHECK.columns) + 1)
            ask(view_of, list_item(item, word(at, CHECK.params), position), view)
            rank = word(view, RANK_AND_DTYPE) & RANK_BITS
            shape, to = word(view, SHAPE), word(view, STRIDES)
            ask(view_of, list_item(item, word(at, CHECK.grads), position), view)
            copy_lines(rank, size, shape, to, word(view, STRIDES), target, word(view, ADDRESS))
        return 0

    return copy
