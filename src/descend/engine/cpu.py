"""The CPU backend: Numba, fused, vectorized, threaded, over raw addresses.

One kernel call serves every tensor of a dtype combination. It claims chunks of tensors with one
atomic counter, so that any number of threads share it, and reads each tensor's row of scalars. The
update rule is compiled into its loop.
"""

import math
import warnings
from array import array
from collections.abc import Callable
from functools import cache as remember
from struct import Struct
from typing import Any

import torch

from descend.engine import kernel_text, kernel_threads, native, pointers
from descend.engine.hyperparameters import Options
from descend.engine.rule import Variant
from descend.engine.step_inputs import Member

name = "cpu"

CHUNKS = (32_768, 262_144)
"""The fewest and the most elements that a thread claims at once."""

SHARES = 64
"""How many chunks there are at least, between those limits. Long runs stream faster (SGD on 42 M
elements: 7 %); short ones share the work evenly."""

NORM_BLOCK = 32_768
"""How many elements of a tensor are summed up by themselves. Neither the number of threads nor the
other tensors have a say, so that a norm has the same bits in any process."""

CHUNK_WORDS = 4
"""The words of a chunk: which member, its first element, how many, and its first block."""

SERIAL = 65_536
"""Below this many elements one thread is faster than waking another."""

_FUSED = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))


def accepts(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether this backend has a kernel for such tensors."""
    if device.type != "cpu" or not _installed():
        return False
    if torch.float16 in dtypes and not native.has_feature("f16c"):
        return False
    return _FUSED.issuperset(dtypes)


@remember
def _installed() -> bool:
    if pointers.available():
        return True
    warnings.warn(
        "descend: Numba is not installed, so steps on the CPU take the slower eager path; "
        "pip install numba",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


class Batch(pointers.Tabled):
    """All members of one dtype combination: one kernel call a step."""

    backend = name
    whole = True  # a launch is one call, which no signal splits; it also counts the step

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__(variant, device)
        self._pack = Struct(f"{len(variant.row)}d")
        self._step = kernel(variant)

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        table = self.table
        table.extend(members)
        for member in members:
            member.grad = None  # it is read afresh
        self._params = [member.param for member in table.members]
        length = _chunk(sum(table.sizes))
        chunks: list[int] = []
        self._blocks = 0
        for index, size in enumerate(table.sizes):
            for start in range(0, max(size, 1), length):
                chunks += (index, start, min(length, size - start), self._blocks)
                self._blocks += -(-min(length, size - start) // NORM_BLOCK)
        self._chunks = array("q", chunks)
        self._count = len(chunks) // CHUNK_WORDS
        self._scalars = array("d", bytes(self._pack.size * len(table.members)))
        addresses = map(pointers.address, (self._chunks, table.pointers, table.rows, self._scalars))
        self._words = array("q", [0, self._count, *addresses])
        self._at = pointers.address(self._words)

    def prepare(self, options: list[Options], factors: list[float], limit: float) -> None:
        """Work out the scalars of every row.

        Args:
            options: each group's.
            factors: what each group's gradients are multiplied by, where the variant is scaled.
            limit: the largest magnitude of a gradient element, where it is limited.
        """
        variant, table = self.variant, self.table
        rule, size, groups = variant.rule, self._pack.size, table.row_groups
        for row in range(table.row_total):
            group = groups[row]
            values = [*rule.numbers(options[group], table.counts(row)).values()]
            if variant.scaled:
                values.append(factors[group])
            if variant.limited:
                values.append(limit)
            self._pack.pack_into(self._scalars, row * size, *values)

    def launch(self) -> None:
        """Update parameters, state and step counts."""
        self._words[0] = 0
        self._run(self._step, self._at)
        table = self.table
        table.count_first_steps()
        table.release()
        # Torch did not see the writing; autograd must, to refuse a backward() through old values.
        torch._C._increment_version(
            self._params
            if table.active == len(self._params)
            else [member.param for member in table.active_members()]
        )

    def measure(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, block by block, and whether all elements are finite."""
        partial = array("d", bytes(16 * self._blocks))
        words = array(
            "q",
            [
                0,
                self._count,
                pointers.address(self._chunks),
                pointers.address(self.table.pointers),
                self.variant.columns,
                pointers.address(partial),
            ],
        )
        self._run(_norm_kernel(self.variant.dtypes[1]), pointers.address(words))
        squares, nothing = partial[0::2], partial[1::2]
        # A sum of squares may overflow though every element is finite; the other sum never does.
        return squares.tolist(), math.isfinite(sum(nothing))

    def _run(self, kernel: Callable[[int], None], at: int) -> None:
        run(kernel, at, self.table.elements, self._count)


def run(kernel: Callable[[int], None], at: int, elements: int, chunks: int) -> None:
    """Call a kernel on as many threads as are worth it.

    Args:
        kernel: the compiled function.
        at: the address of its words.
        elements: how many elements it has to do with.
        chunks: into how many pieces they are cut.
    """
    if elements <= SERIAL or (count := torch.get_num_threads()) == 1:
        kernel(at)
    else:
        kernel_threads.spread(kernel, at, min(count, chunks))


def _chunk(elements: int) -> int:
    """How many elements a thread claims at once, of so many: a power of two."""
    fewest, most = CHUNKS
    return min(most, max(fewest, (1 << (elements // SHARES).bit_length()) >> 1))


def _meaning() -> str:
    """What the machine code depends on beside the rule: the files that turn it into code."""
    return native.text_of("cpu.py", "memory_access.py")


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


def _source(variant: Variant) -> str:
    """The kernel around the update rule, as Python that Numba compiles."""
    lines = [
        "def kernel(at):",
        "    count, chunks, pointers = word(at, 1), word(at, 2), word(at, 3)",
        "    rows, scalars = word(at, 4), word(at, 5)",
        "    while True:",
        "        chunk = claim(at)",
        "        if chunk >= count:",
        "            break",
        f"        chunk = chunks + 8 * {CHUNK_WORDS} * chunk",
        "        member, start, length = word(chunk, 0), word(chunk, 1), word(chunk, 2)",
        f"        mine = pointers + 8 * {variant.columns} * member",
        "        if word(mine, 1) == 0:",  # it has no gradient in this step
        "            continue",
        f"        row = word(rows, member) * {len(variant.row)}",
    ]
    scalars = len(variant.rule.scalar_names)
    lines += [
        f"        u_{scalar} = number(scalars, row + {i})"
        for i, scalar in enumerate(variant.rule.scalar_names)
    ]
    lines += [
        f"        {scalar} = literal(number(scalars, row + {i}))"
        for i, scalar in enumerate(variant.prologue, scalars + len(variant.rule.counters))
    ]
    lines += [
        f"        at_{operand} = word(mine, {i}) + {dtype.itemsize} * start"
        for i, (operand, dtype) in enumerate(zip(variant.operands, variant.dtypes, strict=True))
    ]
    lines += ["        for i in range(length):"]
    lines += [
        f"            u_{operand} = load_{operand}(at_{operand}, i)" for operand in variant.operands
    ]
    body, new = kernel_text.body(variant, literal="literal({})", number="{}")
    lines += [f"            {line}" for line in body]
    lines += [
        f"            store_{operand}(at_{operand}, i, {value})" for operand, value in new.items()
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


def _build(variant: Variant, text: str) -> Any:
    import numpy as np
    from numba import cfunc, njit
    from numba.core.errors import NumbaError

    from descend.engine import memory_access

    options = {"error_model": "numpy", "fastmath": {"contract"}}
    literal = np.float64 if variant.compute is torch.float64 else np.float32
    scope: dict[str, Any] = {
        "literal": literal,
        "claim": memory_access.claim,
        "word": memory_access.loader(torch.int64),
        "number": memory_access.loader(torch.float64),
        "get_step": memory_access.loader(torch.float32),
        "put_step": memory_access.storer(torch.float32),
        "put_counter": memory_access.storer(torch.float64),
        "one": np.float32(1),
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
    size = dtype.itemsize
    may_overflow = dtype is torch.float64

    def norm(at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        count, chunks, pointers = word(at, 1), word(at, 2), word(at, 3)
        width, partial = word(at, 4), word(at, 5)
        while True:
            chunk = claim(at)
            if chunk >= count:
                break
            chunk = chunks + 8 * CHUNK_WORDS * chunk
            member, start, length = word(chunk, 0), word(chunk, 1), word(chunk, 2)
            grad = word(pointers, member * width + 1)
            if grad == 0:
                continue
            block = partial + 16 * word(chunk, 3)
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

    # Sums may be taken in any order (the same one each time): that is what makes them vectors.
    return cfunc("void(int64)", error_model="numpy", fastmath={"contract", "reassoc"})(norm)
