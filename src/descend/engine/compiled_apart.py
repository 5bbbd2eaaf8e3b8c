"""The compiled function that finds out whether tensors share memory; see `written_memory`.

Imported only where it must be compiled. It is called with the address of the words `APART`.
"""

from typing import Any

import torch
from numba import cfunc, njit

from descend.engine.kernel_words import APART, CHECK
from descend.engine.memory_access import loader, storer

word, put_word = loader(torch.int64), storer(torch.int64)


@njit(error_model="numpy")
def swap(keys: int, others: int, i: int, j: int) -> None:
    """Exchange two keys, and what goes with them if anything does."""
    key = word(keys, i)
    put_word(keys, i, word(keys, j))
    put_word(keys, j, key)
    if others != 0:
        other = word(others, i)
        put_word(others, i, word(others, j))
        put_word(others, j, other)


@njit(error_model="numpy")
def sink(keys: int, others: int, root: int, count: int) -> None:
    """Let a key sink to its place in a heap of so many."""
    while 2 * root + 1 < count:
        child = 2 * root + 1
        if child + 1 < count and word(keys, child) < word(keys, child + 1):
            child += 1
        if word(keys, root) >= word(keys, child):
            return
        swap(keys, others, root, child)
        root = child


@njit(error_model="numpy")
def sort(keys: int, others: int, count: int) -> None:
    """Sort keys: a heap sort, which needs neither recursion nor memory."""
    for root in range(count // 2 - 1, -1, -1):
        sink(keys, others, root, count)
    for last in range(count - 1, 0, -1):
        swap(keys, others, 0, last)
        sink(keys, others, 0, last)


@njit(error_model="numpy")
def meets(starts: int, ends: int, total: int, start: int, end: int) -> bool:
    """Whether a range of addresses meets one of these, which are sorted and apart."""
    low, high = 0, total  # the first range that starts at or after `end`
    while low < high:
        middle = (low + high) // 2
        if word(starts, middle) < end:
            low = middle + 1
        else:
            high = middle
    return end > start and low > 0 and word(ends, low - 1) > start


@njit(error_model="numpy")
def add_written(at: int, batch: int) -> None:
    """Add the ranges that a batch writes."""
    width, total = word(batch, CHECK.columns), word(at, APART.total)
    for member in range(word(batch, CHECK.members)):
        for column in range(width):
            start = word(word(batch, CHECK.pointers), member * width + column)
            length = word(word(batch, CHECK.itemsizes), column)
            if column < width - word(batch, CHECK.counts):
                length *= word(word(batch, CHECK.sizes), member)
            if column != 1 and start != 0 and length != 0:
                put_word(word(at, APART.starts), total, start)
                put_word(word(at, APART.ends), total, start + length)
                total += 1
    put_word(at, APART.total, total)


@njit(error_model="numpy")
def reads_written(at: int, batch: int) -> bool:
    """Whether a gradient of a batch meets what is written."""
    starts, ends, total = word(at, APART.starts), word(at, APART.ends), word(at, APART.total)
    for member in range(word(batch, CHECK.members)):
        start = word(word(batch, CHECK.pointers), member * word(batch, CHECK.columns) + 1)
        size = word(word(batch, CHECK.sizes), member) * word(word(batch, CHECK.itemsizes), 1)
        if start != 0 and meets(starts, ends, total, start, start + size):
            return True
    return False


def apart(at: int) -> int:
    """Whether no two ranges that are written overlap, and no gradient lies in one; sorts them."""
    for index in range(word(at, APART.batch_total)):
        add_written(at, word(word(at, APART.batches), index))
    starts, ends, total = word(at, APART.starts), word(at, APART.ends), word(at, APART.total)
    sort(starts, ends, total)
    for index in range(1, total):
        if word(starts, index) < word(ends, index - 1):
            return 0
    for index in range(word(at, APART.batch_total)):
        if reads_written(at, word(word(at, APART.batches), index)):
            return 0
    return 1


def builder() -> Any:
    """The compiled `apart`."""
    return cfunc("int64(int64)", error_model="numpy")(apart)
