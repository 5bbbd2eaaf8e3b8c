"""The CPU backend: Numba, fused, vectorized, threaded, over raw addresses.

One kernel call serves every tensor of a dtype combination. It claims chunks of tensors with one
atomic counter, so that any number of threads share it, and reads each tensor's row of scalars. The
update rule is compiled into its loop.
"""

import math
from array import array
from collections.abc import Callable
from functools import cache as remember
from struct import Struct
from typing import Any

import numpy as np
import torch

from descend.engine import kernel_text, kernel_threads, native
from descend.engine.hyperparameters import Options
from descend.engine.kernel_words import CALL, CHUNK, address, new_words, put
from descend.engine.measure import Measure
from descend.engine.measured import Totals
from descend.engine.pointers import DTYPES, KernelBatch, available, warn_missing
from descend.engine.rule import Variant
from descend.engine.step_inputs import Member

CHUNKS = (32_768, 262_144)
"""The fewest and the most elements that a thread claims at once."""

SHARES = 64
"""How many chunks there are at least, between those limits. Long runs stream faster (SGD on 42 M
elements: 7 %); short ones share the work evenly."""

NORM_BLOCK = 32_768
"""How many elements of a tensor are summed up by themselves. Neither the number of threads nor the
other tensors have a say, so that a norm has the same bits in any process."""

SERIAL = 65_536
"""Below this many elements one thread is faster than waking another."""


class CpuBatch(KernelBatch):
    """All members of one dtype combination: one kernel call a step."""

    backend = "cpu"
    atomic = True  # the call updates parameters and state and counts the step

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__(variant, device)
        self._pack = Struct(f"{len(variant.row)}d")
        self._step = kernel(variant)
        self._call = new_words(CALL)
        self._call_at = address(self._call)
        self._add_up = [_measure_kernel(variant, measure) for measure in self.measures]
        if self.measures:
            self._term_pack = Struct(f"{len(variant.measure_row(self.measures[0]))}d")

    @staticmethod
    def accepts(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> bool:
        """Whether there is a kernel for such tensors."""
        if device.type != "cpu":
            return False
        if not available():
            warn_missing("Numba", "CPU")
            return False
        if torch.float16 in dtypes and not native.has_feature("f16c"):
            return False
        return DTYPES.issuperset(dtypes)

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        super().extend(members)
        self._params = [member.param for member in self.members]
        self._scalars = array("d", bytes(self._pack.size * len(self.members)))
        put(self._call, CALL, scalars=address(self._scalars), columns=self.variant.columns)
        if self.measures:
            # What is measured is each member's own, and so is what follows from it.
            self._own_rows = array("q", range(len(self.members)))
            self._firsts: Any = None  # the first block of each member, and whether it has one
            self._term_scalars = array("d", bytes(self._term_pack.size * len(self.members)))
        self._cut()

    def _cut(self) -> None:
        """Cut the members into the chunks that threads take."""
        length = _chunk(sum(self.sizes))
        chunks: list[int] = []
        self._blocks = 0
        for index, size in enumerate(self.sizes):
            # One without elements has a chunk all the same, which counts its steps.
            for start in range(0, max(size, 1), length):
                chunks += (index, start, min(length, size - start), self._blocks)
                self._blocks += -(-min(length, size - start) // NORM_BLOCK)
        self._chunks, self._chunk_total = array("q", chunks), len(chunks) // len(CHUNK)
        put(
            self._call,
            CALL,
            chunk_total=self._chunk_total,
            chunks=address(self._chunks),
            pointers=address(self.pointers),
            rows=address(self.rows),
        )

    def _read_rows(self, rows: "array[int]", scalars: "array[float]") -> None:
        """Let the next kernel read these scalars; `rows` is each member's row in them."""
        put(self._call, CALL, rows=address(rows), scalars=address(scalars))

    def add_up(
        self,
        turn: int,
        options: list[Options],
        factors: list[float],
        limit: float | None,
        totals: Totals,
    ) -> None:
        """Measure every member, as the rule asks for before it updates."""
        measure, given = self.measures[turn], (options, factors, limit)
        if turn == 0:
            size = self._term_pack.size
            for row in range(self.row_total):
                values = self.term_scalars(measure, row, *given)
                self._term_pack.pack_into(self._term_scalars, row * size, *values)
            self._read_rows(self.rows, self._term_scalars)
        else:
            self._scalars = self._own_scalars(
                len(self.variant.measure_row(measure)),
                totals,
                lambda row, measured: self.term_scalars(measure, row, *given, measured),
            )
            self._read_rows(self._own_rows, self._scalars)
        sums = np.zeros((self._blocks, len(measure.names)))
        self._call[CALL.sums] = sums.ctypes.data
        self._run(self._add_up[turn])
        self.note_sums(turn, self._by_member(sums), totals)

    def _own_scalars(
        self, width: int, totals: Totals, scalars: Callable[[int, Any], list[Any]]
    ) -> "array[float]":
        """A row of scalars for each member, where they follow from what was measured of it.

        Args:
            width: how many there are.
            totals: the sums over all batches.
            scalars: those of a row, by what was measured of the row's members.
        """
        table = np.empty((len(self.members), width))
        for row in range(self.row_total):
            mine = self.members_of(row)
            for column, value in enumerate(scalars(row, self.measured(mine, totals))):
                number = value.detach().numpy() if isinstance(value, torch.Tensor) else value
                table[mine, column] = number
        return array("d", table.tobytes())

    def _by_member(self, sums: Any) -> Any:
        """The sums of each member: those of its blocks, in their order."""
        if self._firsts is None:
            blocks = -(-np.array(self.sizes) // NORM_BLOCK)
            self._firsts = blocks.cumsum() - blocks, blocks > 0
        firsts, filled = self._firsts
        if filled.all():
            return torch.from_numpy(np.add.reduceat(sums, firsts))
        found = np.zeros((len(self.members), sums.shape[1]))
        if filled.any():
            found[filled] = np.add.reduceat(sums, firsts[filled])
        return torch.from_numpy(found)

    def prepare(
        self, options: list[Options], factors: list[float], limit: float | None, totals: Totals
    ) -> None:
        """Work out the scalars of every row."""
        if not self.measures:
            size = self._pack.size
            for row in range(self.row_total):
                values = self.scalars(row, options, factors, limit)
                self._pack.pack_into(self._scalars, row * size, *values)
            return
        self._scalars = self._own_scalars(
            len(self.variant.row),
            totals,
            lambda row, measured: self.scalars(row, options, factors, limit, measured),
        )
        self._read_rows(self._own_rows, self._scalars)

    def launch(self) -> None:
        """Update parameters, state and step counts."""
        self._run(self._step)
        self._copies = []
        # Torch did not see the writing; autograd must, to refuse a backward() through old values.
        torch._C._increment_version(
            self._params
            if self.active == len(self._params)
            else [member.param for member in self.active_members()]
        )

    def squares(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, block by block, and whether all elements are finite."""
        sums = array("d", bytes(16 * self._blocks))
        self._call[CALL.sums] = address(sums)
        self._run(_norm_kernel(self.variant.dtypes[1]))
        squares, nothing = sums[0::2], sums[1::2]
        # A sum of squares may overflow though every element is finite; the other sum never does.
        return squares.tolist(), math.isfinite(sum(nothing))

    def _run(self, kernel: Callable[[int], None]) -> None:
        """Call a kernel on as many threads as are worth it."""
        at, self._call[CALL.next_chunk] = self._call_at, 0
        if self.elements <= SERIAL or (count := torch.get_num_threads()) == 1:
            kernel(at)
        else:
            kernel_threads.spread(kernel, at, min(count, self._chunk_total))


def _chunk(elements: int) -> int:
    """How many elements a thread claims at once, of so many: a power of two."""
    fewest, most = CHUNKS
    return min(most, max(fewest, (1 << (elements // SHARES).bit_length()) >> 1))


def _meaning() -> str:
    """The text of the files that turn a rule into machine code, which depends on them."""
    return native.text_of("cpu.py", "kernel_words.py", "memory_access.py")


@remember
def kernel(variant: Variant) -> Callable[[int], None]:
    """The compiled step of a variant."""
    text = _source(variant)
    key = "\n".join(("step", text, _meaning(), repr(variant.dtypes)))
    return native.releasing(native.address_of(key, lambda: _build(variant, text)))


@remember
def _norm_kernel(dtype: torch.dtype) -> Callable[[int], None]:
    return native.releasing(
        native.address_of(f"norm\n{_meaning()}\n{dtype}", lambda: _build_norm(dtype))
    )


def _opening(variant: Variant, numbers: tuple[str, ...], row: tuple[str, ...]) -> list[str]:
    """The lines of a kernel that take a chunk, and read its row of scalars.

    Args:
        variant: of the kernel.
        numbers: the rule's own among the scalars, which come first.
        row: all scalars of a row; the gradient's come last.
    """
    lines = [
        "def kernel(at):",
        "    pointers, rows = word(at, CALL.pointers), word(at, CALL.rows)",
        "    chunks, scalars = word(at, CALL.chunks), word(at, CALL.scalars)",
        "    while True:",
        "        chunk = claim(at)",  # the first word
        "        if chunk >= word(at, CALL.chunk_total):",
        "            break",
        "        chunk = chunks + 8 * words_of_chunk * chunk",
        "        member, start = word(chunk, CHUNK.member), word(chunk, CHUNK.start)",
        "        length = word(chunk, CHUNK.length)",
        f"        mine = pointers + 8 * {variant.columns} * member",
        "        if word(mine, 1) == 0:",  # it has no gradient in this step
        "            continue",
        f"        row = word(rows, member) * {len(row)}",
    ]
    lines += [f"        u_{one} = number(scalars, row + {i})" for i, one in enumerate(numbers)]
    lines += [
        f"        {one} = literal(number(scalars, row + {i}))"
        for i, one in enumerate(variant.prologue, len(row) - len(variant.prologue))
    ]
    return lines


def _addresses(variant: Variant, operands: tuple[str, ...]) -> list[str]:
    """The lines that find where the chunk's elements of these operands begin."""
    return [
        f"        at_{operand} = word(mine, {i}) + {dtype.itemsize} * start"
        for i, (operand, dtype) in enumerate(zip(variant.operands, variant.dtypes, strict=True))
        if operand in operands
    ]


def _source(variant: Variant) -> str:
    """The kernel around the update rule, as Python that Numba compiles."""
    scalars = len(variant.rule.scalar_names)
    lines = _opening(variant, variant.rule.scalar_names, variant.row)
    lines += _addresses(variant, variant.operands)
    lines += ["        for i in range(length):"]
    lines += [
        f"            u_{operand} = load_{operand}(at_{operand}, i)" for operand in variant.operands
    ]
    body, new = kernel_text.body(variant, "literal({})", "{}", "wide({})")
    lines += [f"            {line}" for line in body]
    narrow = "literal({})" if variant.widened else "{}"
    lines += [
        f"            store_{operand}(at_{operand}, i, {narrow.format(value)})"
        for operand, value in new.items()
        if value != f"u_{operand}"  # what stays as it was is only read
    ]
    if variant.rule.counts_steps:
        place = len(variant.operands)
        lines += [
            "        if start == 0:",
            f"            step = word(mine, {place})",
            "            put_step(step, 0, get_step(step, 0) + one)",
        ]
        for i in range(len(variant.rule.counters)):
            counter = f"number(scalars, row + {scalars + i})"
            lines.append(f"            put_counter(word(mine, {place + 1 + i}), 0, {counter})")
    return "\n".join(lines) + "\n"


def _measure_source(variant: Variant, measure: Measure) -> str:
    """The kernel around the terms of a measure of the rule's: for each block of a chunk, sums."""
    total = len(measure.names)
    operands = ("param", "grad", *variant.measured_states(measure))
    lines = _opening(variant, measure.arguments.scalars, variant.measure_row(measure))
    lines += _addresses(variant, operands)
    lines += [
        f"        block = word(at, CALL.sums) + {8 * total} * word(chunk, CHUNK.block)",
        f"        for first in range(0, length, {NORM_BLOCK}):",
    ]
    lines += [f"            sum_{i} = 0.0" for i in range(total)]
    lines += [f"            for i in range(first, min(first + {NORM_BLOCK}, length)):"]
    body, terms = kernel_text.body(variant, "literal({})", "{}", "wide({})", measure)
    lines += [f"                u_{one} = load_{one}(at_{one}, i)" for one in operands]
    lines += [f"                {line}" for line in body]
    lines += [
        f"                sum_{i} = added(sum_{i}, {term})" for i, term in enumerate(terms.values())
    ]
    lines += [f"            put_counter(block, {i}, sum_{i})" for i in range(total)]
    lines += [f"            block += {8 * total}"]
    return "\n".join(lines) + "\n"


@remember
def _measure_kernel(variant: Variant, measure: Measure) -> Callable[[int], None]:
    text = _measure_source(variant, measure)
    key = "\n".join(("measure", text, _meaning(), repr(variant.dtypes)))
    return native.releasing(native.address_of(key, lambda: _build(variant, text)))


def _build(variant: Variant, text: str) -> Any:
    from numba import cfunc, njit
    from numba.core.errors import NumbaError

    from descend.engine import memory_access

    options = {"error_model": "numpy", "fastmath": {"contract"}}
    literal = np.float64 if variant.compute is torch.float64 else np.float32
    scope: dict[str, Any] = {
        "literal": literal,
        "CALL": CALL,
        "CHUNK": CHUNK,
        "words_of_chunk": len(CHUNK),
        "claim": memory_access.claim,
        "word": memory_access.loader(torch.int64),
        "number": memory_access.loader(torch.float64),
        "get_step": memory_access.loader(torch.float32),
        "put_step": memory_access.storer(torch.float32),
        "put_counter": memory_access.storer(torch.float64),
        "one": np.float32(1),
        "wide": np.float64,
        # Sums may be taken in any order (the same one each time): that is what makes them vectors.
        "added": njit(forceinline=True, error_model="numpy", fastmath={"reassoc"})(
            lambda total, term: total + np.float64(term)
        ),
    }
    for word, meaning in _words(literal).items():
        scope[word] = njit(forceinline=True, **options)(meaning)
    for i, operand in enumerate(variant.operands):
        place = (variant.dtypes[i], variant.compute, i, len(variant.operands))
        scope[f"load_{operand}"] = memory_access.loader(*place)
        scope[f"store_{operand}"] = memory_access.storer(*place)
    exec(compile(text, "<descend kernel>", "exec"), scope)  # noqa: S102 - from `_source`
    with kernel_text.blamed(variant, NumbaError):
        return cfunc("void(int64)", **options)(scope["kernel"])


def _words(literal: Any) -> dict[str, Any]:
    """The vocabulary, one element at a time. Comparisons put NaN where torch puts it."""
    zero, one = literal(0), literal(1)
    return {
        "sqrt": lambda x: math.sqrt(x),  # noqa: PLW0108 - Numba compiles no built-in
        "absolute": lambda x: abs(x),  # noqa: PLW0108
        "sign": lambda x: one if x > zero else (-one if x < zero else zero),
        "maximum": lambda x, y: x if (x > y or x != x) else y,  # noqa: PLR0124
        "minimum": lambda x, y: x if (x < y or x != x) else y,  # noqa: PLR0124
        "where": lambda condition, x, y: x if condition else y,
    }


def _build_norm(dtype: torch.dtype) -> Any:
    from numba import cfunc

    from descend.engine import memory_access

    word, claim = memory_access.loader(torch.int64), memory_access.claim
    load, put = memory_access.loader(dtype, torch.float64), memory_access.storer(torch.float64)
    size, words_of_chunk = dtype.itemsize, len(CHUNK)
    may_overflow = dtype is torch.float64

    def norm(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pointers, columns = word(at, CALL.pointers), word(at, CALL.columns)
        while True:
            chunk = claim(at)
            if chunk >= word(at, CALL.chunk_total):
                break
            chunk = word(at, CALL.chunks) + 8 * words_of_chunk * chunk
            start, length = word(chunk, CHUNK.start), word(chunk, CHUNK.length)
            grad = word(pointers, word(chunk, CHUNK.member) * columns + 1)
            if grad == 0:
                continue
            block = word(at, CALL.sums) + 16 * word(chunk, CHUNK.block)
            for first in range(0, length, NORM_BLOCK):
                squares, nothing = 0.0, 0.0
                here = grad + size * (start + first)
                for i in range(min(NORM_BLOCK, length - first)):
                    value = load(here, i)
                    squares += value * value
                    if may_overflow:
                        nothing += value * 0.0  # NaN for an infinity or a NaN, else zero
                put(block, 0, squares)
                put(block, 1, nothing if may_overflow else squares)
                block += 16

    return cfunc("void(int64)", error_model="numpy", fastmath={"contract", "reassoc"})(norm)
