"""The words (64-bit integers) that compiled functions are given, by name.

Both sides take an index from here, Python as `words[CHECK.active]` and a kernel as
`word(at, CHECK.active)`: an index that is off by one would be a segmentation fault.
"""

from array import array
from typing import Any, NamedTuple, TypeVar

Layout = TypeVar("Layout", bound=tuple[int, ...])


class Check(NamedTuple):
    """Of `compiled_check`: where to read from, what is expected, and what was found."""

    list_item: int  # CPython's PyList_GetItem
    view_of: int  # torch's function from a tensor to its DLPack view
    dlpack: int  # the room for that view (Numba has a meaning of its own for "view")
    none: int  # None, as an object
    params: int  # lists of Python objects
    grads: int
    others: int
    members: int  # how many there are
    columns: int  # the addresses of each
    counts: int  # how many of these are a step count and counters
    positions: int  # of each member among the parameters
    groups: int
    sizes: int
    itemsizes: int  # of each column
    expected: int  # device and dtype of each column
    begun: int  # the count that a rule is told that counts none
    written_total: int  # the ranges that the step writes, sorted
    written_starts: int
    written_ends: int
    pointers: int  # a table with one row a member; 0 for a gradient says that there is none
    rows: int  # the row of scalars of each member
    row_groups: int  # the group of each row
    row_counts: int  # the counts of each row
    row_total: int
    slots: int  # a hash table of rows
    slot_mask: int
    active: int  # how many members have a gradient
    elements: int  # how many elements those have
    moved: int  # one bit for each column in which an address is another
    touched: int  # whether a gradient overlaps what is written
    odd: int  # the members whose gradient is in another layout than the parameter
    odd_total: int


class Apart(NamedTuple):
    """Of `compiled_apart`: the batches, and the ranges that they write."""

    batches: int  # the addresses of their words, as above
    batch_total: int
    starts: int
    ends: int
    total: int


class Call(NamedTuple):
    """Of the CPU's kernels: of a step, of a measure, and of a norm."""

    next_chunk: int  # a counter that all threads draw from
    chunk_total: int
    chunks: int
    pointers: int
    columns: int
    rows: int
    scalars: int
    sums: int  # two numbers for each block of a gradient, or one for each term of a measure


class Chunk(NamedTuple):
    """The elements that one thread takes at once."""

    member: int  # its row of pointers
    start: int  # the first element
    length: int
    block: int  # its first block of sums


class Runs(NamedTuple):
    """Of `compiled_runs`: a sparse gradient, and where the runs of its rows are written down."""

    # Others in each step:
    entries: int
    dims: int
    indices: int
    by_dim: int  # strides of the indices
    by_entry: int
    values: int
    length: int  # of one row
    repeated: int  # whether a row may stand there twice
    sums: int  # where the values of such rows are added up
    row: int  # of scalars
    first: int  # the first run that is free
    # The same until there is more room:
    shape: int
    member: int  # the parameter's row of pointers
    columns: int
    operands: int  # how many of the columns are no counts
    itemsizes: int
    spare: int  # memory that stands for the counts in all chunks but one
    order: int  # room for one word an entry
    chunks: int
    pointers: int
    rows: int


def _numbered(layout: type[Layout]) -> Layout:
    return layout(*range(len(layout._fields)))  # type: ignore[attr-defined]


CHECK, APART, CALL = _numbered(Check), _numbered(Apart), _numbered(Call)
CHUNK, RUNS = _numbered(Chunk), _numbered(Runs)


def new_words(layout: tuple[int, ...]) -> "array[int]":
    """Words of this layout, all zero."""
    return array("q", bytes(8 * len(layout)))


def put(words: "array[int]", layout: tuple[int, ...], **values: int) -> None:
    """Set words by name."""
    for name, value in values.items():
        words[getattr(layout, name)] = value


def address(buffer: Any) -> int:
    """Where the items of an `array.array` lie; it must not grow afterwards."""
    return int(buffer.buffer_info()[0])
