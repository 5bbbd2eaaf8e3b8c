"""Sparse gradients on the CPU: the dense step's kernel, on the rows that a gradient holds.

A kernel walks chunks of memory; here each is a run of adjacent rows. Parameter and state are
written where they are: nothing is gathered, and nothing scattered. A compiled function finds the
runs: it checks the indices, sorts them, and adds up what a gradient holds of one row twice.
"""

from array import array
from collections.abc import Callable, Mapping
from functools import cache as remember
from operator import lt
from typing import Any

import torch
from torch import Tensor

from descend.engine import cpu, eager, native, pointers
from descend.engine.hyperparameters import Options
from descend.engine.rule import Variant
from descend.engine.step_inputs import DENSE_TYPES, Member, check, is_whole
from descend.errors import GradientError


def accepts(member: Member) -> bool:
    """Whether the kernel can walk the rows of this member's gradient.

    Raises:
        GradientError: the gradient holds a row that the parameter has not, or memory has been
            released.
    """
    grad, rule = member.grad, member.rule
    assert grad is not None
    if grad.layout is not torch.sparse_coo or rule.sparse is None or not rule.sparse(member.flags):
        return False
    check(member.param, grad, member)
    if not _inside(grad):
        raise GradientError(
            f"{member}: the gradient holds indices beyond its own shape "
            f"{tuple(grad.shape)}; make it with torch.sparse_coo_tensor(..., check_invariants=True)"
        )
    return _walkable(member, grad)


class Batch(eager.Batch):
    """Members with sparse gradients, of one dtype combination: one kernel call each.

    Args:
        variant: the kernel's constants; its dtypes are the members'.
        device: the CPU.
    """

    backend = cpu.name

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__()
        self.variant = variant
        self._kernel = cpu.kernel(variant)
        self._runs: dict[Member, _Runs] = {}

    @property
    def whole(self) -> bool:  # type: ignore[override]
        """Whether a launch is one call, which no signal splits."""
        return len(self._active) == 1 and not self.variant.rule.counts

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        super().extend(members)
        self._runs.update((member, _Runs(self.variant, member)) for member in members)

    def check(self, grads: list[Any]) -> bool:
        """Take note of the gradients; False where the kernel cannot take something any more."""
        self._active = []
        for member, runs in self._runs.items():
            grad = grads[member.position]
            if grad is not None:
                if not runs.find(grad):
                    return False
                member.grad = grad
                self._active.append(member)
        return True

    def prepare(self, options: list[Options], factors: list[float], limit: float | None) -> None:
        """Work out every member's scalars now: nothing has been written yet if one fails."""
        variant = self.variant
        self._steps: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []
        for member in self._active:
            group = member.group
            counts = eager.counts_of(member, options[group]) or (1 if member.fresh else 2,)
            numbers = variant.rule.numbers(options[group], counts)
            prologue = [factors[group]] * variant.scaled + [limit or 0.0] * variant.limited
            self._runs[member].scalars = array("d", [*numbers.values(), *prologue])
            self._steps.append((counts, numbers))

    def launch(self) -> None:
        """Update rows, state and step counts."""
        for member, (counts, numbers) in zip(self._active, self._steps, strict=True):
            self._runs[member].walk(self._kernel)
            # Torch did not see the writing; autograd must, to refuse a backward() through old
            # values.
            torch._C._increment_version([member.param])
            member.grad = None
            member.fresh = False
            for name in member.rule.counts:
                member.state[name].fill_(counts[0] if name == "step" else numbers[name])


class _Runs:
    """The runs of adjacent rows that a parameter's gradient holds, as the chunks of a kernel.

    Args:
        variant: the kernel's constants.
        member: whose gradient it is.

    Attributes:
        scalars: the rule's numbers in this step, and what the gradient meets first.
    """

    def __init__(self, variant: Variant, member: Member) -> None:
        self._variant, self._member = variant, member
        self._written = _ranges(member)
        self._seen = _facts(member)
        self._counts = array("d", bytes(8 * len(variant.rule.counts)))  # the kernel's own
        counts = pointers.address(self._counts)
        first, *others = [low for low, _ in self._written]
        operands = [first, 0, *others, *range(counts, counts + 8 * len(self._counts), 8)]
        items = [dtype.itemsize for dtype in variant.dtypes] + [0] * len(self._counts)
        self._operands, self._items = array("q", operands), array("q", items)
        self._sizes = array("q", member.param.shape)
        self.scalars = array("d")
        self._words = array("q", bytes(8 * len(_LAYOUT)))
        self._at = pointers.address(self._words)
        self._room = 0
        self._find = _finder(variant.dtypes[1])
        self._set(
            columns=variant.columns,
            sizes=pointers.address(self._sizes),
            operands=pointers.address(self._operands),
            items=pointers.address(self._items),
        )
        self._kept: tuple[Tensor, ...] = ()
        self._many = self._elements = 0

    def _set(self, **words: int) -> None:
        for name, word in words.items():
            self._words[_LAYOUT.index(name)] = word

    def find(self, grad: Tensor) -> bool:
        """Find the runs of this gradient; False where something does not fit the kernel."""
        member = self._member
        if (
            type(grad) is not Tensor
            or grad.layout is not torch.sparse_coo
            or grad.shape != member.param.shape
            or _facts(member) != self._seen
        ):
            return False
        if grad.requires_grad:
            grad = grad.detach()
        values, index = grad._values(), grad._indices()
        if values.dtype is not self._variant.dtypes[1] or not (
            is_whole(values) and is_whole(index)
        ):
            return False
        if not values.is_contiguous() or values.is_neg():
            values = values.resolve_neg().contiguous()
        start = values.data_ptr()
        end = start + values.nbytes
        if any(low < end and high > start for low, high in self._written):
            values = values.clone()
        dims, many = index.shape
        twice = many > 1 and not grad.is_coalesced()
        # What the kernel reads by address must live until it has run.
        self._kept = index, values, torch.empty_like(values) if twice else values
        self._elements = values.numel()
        if many > self._room:
            self._make_room(many)
        by_dim, by_entry = index.stride()
        length = self._elements // (many or 1)
        where = (many, dims, index.data_ptr(), by_dim, by_entry, values.data_ptr(), length, twice)
        self._words[: len(where)] = array("q", where)
        self._operands[1] = self._kept[2].data_ptr()
        self._many = self._find(self._at) if self._elements else 0
        return self._many >= 0

    def _make_room(self, many: int) -> None:
        self._room = many
        self._pointers = array("q", bytes(8 * many * self._variant.columns))
        self._chunks = array("q", bytes(8 * many * cpu.CHUNK_WORDS))
        self._rows = array("q", bytes(8 * many))
        self._order = array("q", bytes(8 * many))
        places = [*map(pointers.address, (self._chunks, self._pointers, self._rows))]
        self._call = array("q", [0, 0, *places, 0])
        self._set(pointers=places[1], chunks=places[0], order=pointers.address(self._order))

    def walk(self, kernel: Callable[[int], None]) -> None:
        """Call the kernel on the runs."""
        if self._many:
            call = self._call
            call[0], call[1], call[5] = 0, self._many, pointers.address(self.scalars)
            cpu.run(kernel, pointers.address(self._call), self._elements, self._many)
        self._kept = ()


_LAYOUT = (
    "entries",
    "dims",
    "index",
    "by_dim",
    "by_entry",
    "values",
    "length",
    "twice",
    "columns",
    "sizes",
    "operands",
    "items",
    "pointers",
    "chunks",
    "order",
)
"""The words that the compiled function is given, by name."""


def _ranges(member: Member) -> list[tuple[int, int]]:
    """The address ranges of the parameter and its state, which are contiguous."""
    tensors = member.param, *(member.state[name] for name in member.names)
    return [(start := tensor.data_ptr(), start + tensor.nbytes) for tensor in tensors]


def _facts(member: Member) -> list[Any]:
    """What must stay as it is: the memory, dtype and layout of the parameter and its state."""
    state = member.state
    tensors = member.param, *[state[name] for name in member.names]
    return [
        *[
            (t.data_ptr(), t.untyped_storage().nbytes(), t.dtype, t.shape, t.is_contiguous())
            for t in tensors
        ],
        *[id(state[name]) for name in member.rule.counts],
    ]


@remember
def _finder(dtype: torch.dtype) -> Callable[[int], int]:
    """The compiled function that finds the runs, for gradients of this dtype."""
    key = f"runs {dtype}\n{native.text_of('sparse_rows.py', 'memory_access.py')}"
    return native.holding(native.address_of(key, lambda: _build(dtype)))


def _build(dtype: torch.dtype) -> Any:  # noqa: PLR0915 - one compiled function
    from numba import cfunc, njit

    from descend.engine.memory_access import loader, storer

    word, put_word = loader(torch.int64), storer(torch.int64)
    load, store, item = loader(dtype), storer(dtype), dtype.itemsize
    chunk_words = cpu.CHUNK_WORDS

    names = ("entries", "dims", "index", "by_dim", "by_entry", "values", "length", "twice")
    at_entries, at_dims, at_index, at_by_dim, at_by_entry, at_values, at_length, at_twice = (
        _LAYOUT.index(name) for name in names
    )
    tables = ("columns", "sizes", "operands", "items", "pointers", "chunks", "order")
    at_columns, at_sizes, at_operands, at_items, at_pointers, at_chunks, at_order = (
        _LAYOUT.index(name) for name in tables
    )

    @njit(error_model="numpy")
    def sink(order, root, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        while 2 * root + 1 < count:
            child = 2 * root + 1
            if child + 1 < count and word(order, child) < word(order, child + 1):
                child += 1
            if word(order, root) >= word(order, child):
                return
            value = word(order, root)
            put_word(order, root, word(order, child))
            put_word(order, child, value)
            root = child

    def find(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0912
        many, dims, index = word(at, at_entries), word(at, at_dims), word(at, at_index)
        by_dim, by_entry = word(at, at_by_dim), word(at, at_by_entry)
        values, length, twice = word(at, at_values), word(at, at_length), word(at, at_twice)
        width, sizes, operands = word(at, at_columns), word(at, at_sizes), word(at, at_operands)
        items, order = word(at, at_items), word(at, at_order)
        pointers, chunks = word(at, at_pointers), word(at, at_chunks)
        sums = word(operands, 1)
        for entry in range(many):
            row = 0
            for d in range(dims):
                place = word(index, d * by_dim + entry * by_entry)
                if place < 0 or place >= word(sizes, d):
                    return -1
                row = row * word(sizes, d) + place
            put_word(order, entry, row * many + entry)  # sorted by row, then by entry
        if twice != 0:
            for root in range(many // 2 - 1, -1, -1):
                sink(order, root, many)
            for last in range(many - 1, 0, -1):
                value = word(order, 0)
                put_word(order, 0, word(order, last))
                put_word(order, last, value)
                sink(order, 0, last)
        runs, rows, before = 0, 0, -2
        for place in range(many):
            row, entry = word(order, place) // many, word(order, place) % many
            source = values + item * length * entry
            if twice != 0:
                target = sums + item * length * (rows - (row == before))
                for i in range(length):
                    value = load(source, i)
                    store(target, i, load(target, i) + value if row == before else value)
            if row == before:
                continue
            if row == before + 1:
                chunk = chunks + 8 * chunk_words * (runs - 1)
                put_word(chunk, 2, word(chunk, 2) + length)
            else:
                chunk = chunks + 8 * chunk_words * runs
                put_word(chunk, 0, runs)
                put_word(chunk, 1, 0)
                put_word(chunk, 2, length)
                for column in range(width):
                    offset = (rows if column == 1 else row) * length * word(items, column)
                    put_word(pointers, runs * width + column, word(operands, column) + offset)
                runs += 1
            rows += 1
            before = row
        return runs

    return cfunc("int64(int64)", error_model="numpy")(find)


def _walkable(member: Member, grad: Tensor) -> bool:
    """Whether all rows are runs of memory on the CPU."""
    tensors = member.param, *(member.state[name] for name in member.names)
    return (
        bool(grad.sparse_dim())
        and grad.device.type == "cpu"
        and all(
            type(tensor) in DENSE_TYPES
            and tensor.layout is torch.strided
            and tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and not tensor.is_neg()
            for tensor in tensors
        )
    )


def _inside(grad: Tensor) -> bool:
    """Whether all indices are within the gradient's shape, which torch checks only if asked to."""
    index = grad._indices()
    if not index.numel():
        return True
    low, high = torch.aminmax(index, dim=1)
    return min(low.tolist()) >= 0 and all(map(lt, high.tolist(), grad.shape))
