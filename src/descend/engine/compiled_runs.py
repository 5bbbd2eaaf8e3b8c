"""The compiled function that finds the rows of a sparse gradient; see `sparse_rows`.

Imported only where it must be compiled. It is called with the address of the words `RUNS`.
"""

from typing import Any

import torch
from numba import cfunc, njit

from descend.engine.compiled_apart import sort
from descend.engine.kernel_words import CHUNK, RUNS
from descend.engine.memory_access import loader, storer

word, put_word = loader(torch.int64), storer(torch.int64)
WORDS_OF_CHUNK = len(CHUNK)


@njit(error_model="numpy")
def put_in_order(at: int) -> bool:
    """Note each entry's row in `order`, sorted where need be; False if there is no such row."""
    many, order = word(at, RUNS.entries), word(at, RUNS.order)
    for entry in range(many):
        row = 0
        for d in range(word(at, RUNS.dims)):
            size = word(word(at, RUNS.shape), d)
            place = word(
                word(at, RUNS.indices), d * word(at, RUNS.by_dim) + entry * word(at, RUNS.by_entry)
            )
            if place < 0 or place >= size:
                return False
            row = row * size + place
        put_word(order, entry, row * many + entry)  # sorted by row, then by entry
    if word(at, RUNS.repeated) != 0:
        sort(order, 0, many)
    return True


@njit(error_model="numpy")
def begin(at: int, run: int, row: int, place: int) -> int:
    """Write down a run from this row on, whose values are at this place; returns its chunk."""
    chunk = word(at, RUNS.chunks) + 8 * WORDS_OF_CHUNK * run
    put_word(chunk, CHUNK.member, run)
    put_word(chunk, CHUNK.start, 0)
    put_word(chunk, CHUNK.length, word(at, RUNS.length))
    put_word(word(at, RUNS.rows), run, word(at, RUNS.row))
    pointers = word(at, RUNS.pointers) + 8 * word(at, RUNS.columns) * run
    for column in range(word(at, RUNS.columns)):
        by = word(at, RUNS.length) * word(word(at, RUNS.itemsizes), column)
        if column == 1:
            put_word(pointers, column, word(at, RUNS.sums) + place * by)
        elif column < word(at, RUNS.operands):
            put_word(pointers, column, word(word(at, RUNS.member), column) + row * by)
        else:
            put_word(pointers, column, word(at, RUNS.spare))
    return chunk


@njit(error_model="numpy")
def count_once(at: int, run: int) -> None:
    """Write down a run without elements, with which alone the kernel counts the step."""
    chunk = begin(at, run, 0, 0)
    put_word(chunk, CHUNK.length, 0)
    pointers = word(at, RUNS.pointers) + 8 * word(at, RUNS.columns) * run
    put_word(pointers, 1, 1)  # not 0, which says that there is no gradient
    for column in range(word(at, RUNS.operands), word(at, RUNS.columns)):
        put_word(pointers, column, word(word(at, RUNS.member), column))


def finder(dtype: torch.dtype) -> Any:
    """The function that finds the runs of adjacent rows, and adds up what stands there twice.

    Args:
        dtype: of the gradient.
    """
    load, store, itemsize = loader(dtype), storer(dtype), dtype.itemsize

    @njit(error_model="numpy")
    def add(at, place, entry, first):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        length = word(at, RUNS.length)
        source = word(at, RUNS.values) + itemsize * length * entry
        target = word(at, RUNS.sums) + itemsize * length * place
        for i in range(length):
            value = load(source, i)
            store(target, i, value if first else load(target, i) + value)

    @cfunc("int64(int64)", error_model="numpy")
    def find(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """The first run that is free now, or -1 where the gradient has a row of no parameter."""
        if not put_in_order(at):
            return -1
        many, run = word(at, RUNS.entries), word(at, RUNS.first)
        count_once(at, run)
        chunk, places, before = 0, 0, -2  # no row is next to -2
        for i in range(many):
            row, entry = word(word(at, RUNS.order), i) // many, word(word(at, RUNS.order), i) % many
            if word(at, RUNS.repeated) != 0:
                add(at, places - (row == before), entry, row != before)
            if row == before:
                continue
            if row == before + 1:
                put_word(chunk, CHUNK.length, word(chunk, CHUNK.length) + word(at, RUNS.length))
            else:
                run += 1
                chunk = begin(at, run, row, places)
            places += 1
            before = row
        return run + 1

    return find
