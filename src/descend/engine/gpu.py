"""The GPU backend: Triton, fused, one launch for all tensors of a dtype combination.

Each program of the grid takes one chunk of one tensor: it reads the tensor's addresses from a
table on the device, its row of scalars from another, and runs the update rule on a block. With
`TRITON_INTERPRET=1` the same kernel runs on CPU tensors in Triton's interpreter, for tests.
"""

import importlib.util
import linecache
import math
import os
from array import array
from collections.abc import Callable
from functools import cache as remember
from itertools import chain, compress
from typing import Any

import torch

from descend.engine import kernel_text
from descend.engine.hyperparameters import Options
from descend.engine.measure import Measure
from descend.engine.measured import Totals
from descend.engine.pointers import DTYPES, KernelBatch, available, warn_missing
from descend.engine.rule import Variant
from descend.engine.step_inputs import Member

BLOCK = 1024
"""Elements that one program updates."""


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class GpuBatch(KernelBatch):
    """All members of one dtype combination on one device: one launch a step."""

    backend = "gpu"
    atomic = False  # the step counts are the host's

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__(variant, device)
        self._device = device
        self._sent: dict[str, tuple[bytes, torch.Tensor]] = {}
        self._kernel = _kernel(variant)
        self._add_up = [_measure_kernel(variant, measure) for measure in self.measures]

    @staticmethod
    def accepts(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> bool:
        """Whether there is a kernel for such tensors."""
        here = device.type == "cuda" or (device.type == "cpu" and interpreted())
        if not (here and DTYPES.issuperset(dtypes) and available()):
            return False
        if not importlib.util.find_spec("triton"):
            warn_missing("Triton", "GPU")
            return False
        return True

    def extend(self, members: list[Member]) -> None:
        """Take in more members."""
        super().extend(members)
        chunks, self._firsts = array("q"), array("q", [0])
        for index, size in enumerate(self.sizes):
            for start in range(0, size, BLOCK):
                chunks.extend((index, start, min(BLOCK, size - start)))
            self._firsts.append(len(chunks) // 3)
        self._chunks = chunks
        self._count = len(chunks) // 3

    def add_up(
        self,
        turn: int,
        options: list[Options],
        factors: list[float],
        limit: float | None,
        totals: Totals,
    ) -> None:
        """Measure every member, as the rule asks for before it updates; on the device."""
        measure, given = self.measures[turn], (options, factors, limit)
        self._send_places()
        if turn == 0:
            rows = [self.term_scalars(measure, row, *given) for row in range(self.row_total)]
            flat = array("d", chain.from_iterable(rows))
            scalars = self._send("term scalars", flat, torch.float64)
        else:
            scalars = self._own_scalars(
                len(self.variant.measure_row(measure)),
                totals,
                lambda row, measured: self.term_scalars(measure, row, *given, measured),
            )
        firsts = self._send("firsts", self._firsts, torch.int64)
        total = len(measure.names)
        sums = torch.zeros((len(self.members), total), dtype=torch.float64, device=self._device)
        parts = sums.new_empty((self._count, total))
        if self._count:
            with _on(self._device), kernel_text.blamed(self.variant, _compilation_error()):
                self._add_up[turn][(self._count,)](
                    self._places, self._pointers, self._rows, scalars, parts,
                    BLOCK=BLOCK, enable_fp_fusion=True,
                )  # fmt: skip
                _sum_kernel()[(len(self.members), total)](parts, firsts, sums, total, BLOCK=BLOCK)
        self.note_sums(turn, sums, totals)

    def prepare(
        self, options: list[Options], factors: list[float], limit: float | None, totals: Totals
    ) -> None:
        """Work out the scalars of every row and send them, and changed addresses, to the device."""
        self._send_places()
        if self.measures:
            self._scalar_rows: list[list[Any]] = [[]] * self.row_total
            self._scalars = self._own_scalars(
                len(self.variant.row),
                totals,
                lambda row, measured: self.scalars(row, options, factors, limit, measured),
            )
            return
        rows = [self.scalars(row, options, factors, limit) for row in range(self.row_total)]
        self._scalar_rows = rows
        self._scalars = self._send("scalars", array("d", chain.from_iterable(rows)), torch.float64)

    def _send_places(self) -> None:
        """Send what has changed of addresses, rows and chunks to the device."""
        self._pointers = self._send("pointers", self.pointers, torch.int64)
        self._rows = self._send("rows", self.rows, torch.int64)
        self._places = self._send("chunks", self._chunks, torch.int64)

    def _own_scalars(
        self, width: int, totals: Totals, scalars: Callable[[int, Any], list[Any]]
    ) -> torch.Tensor:
        """A row of scalars for each member, on the device, where its sums are.

        Args:
            width: how many there are.
            totals: the sums over all batches.
            scalars: those of a row, by what was measured of the row's members.
        """
        shape = (len(self.members), width)
        table = torch.zeros(shape, dtype=torch.float64, device=self._device)
        for row in range(self.row_total):
            mine = self.members_of(row)
            for column, value in enumerate(scalars(row, self.measured(mine, totals))):
                table[mine, column] = value
        self._rows = self._send("own rows", array("q", range(len(self.members))), torch.int64)
        return table

    def _send(self, what: str, values: "array[Any]", dtype: torch.dtype) -> torch.Tensor:
        """These values on the device; nothing is sent where they are there already."""
        content = values.tobytes()
        if what not in self._sent or self._sent[what][0] != content:
            host = torch.tensor(values, dtype=dtype)
            if self._device.type == "cuda":
                host = host.pin_memory().to(self._device, non_blocking=True)
            self._sent[what] = content, host
        return self._sent[what][1]

    def launch(self) -> None:
        """Update parameters and state on the device, and the step counts."""
        if self._count:
            with _on(self._device), kernel_text.blamed(self.variant, _compilation_error()):
                self._kernel[(self._count,)](
                    self._places,
                    self._pointers,
                    self._rows,
                    self._scalars,
                    BLOCK=BLOCK,
                    enable_fp_fusion=True,
                )
        members = self.active_members()
        # Torch did not see the writing; autograd must, to refuse a backward() through old values.
        torch._C._increment_version([member.param for member in members])
        self._copies = []
        rule = self.variant.rule
        if rule.counts_steps:
            torch._foreach_add_([member.state["step"] for member in members], 1)
        if rule.counters and self.measures:
            active = [bool(grad) for grad in self.pointers[1 :: self.variant.columns]]
            rows = [*compress(self._scalars.tolist(), active)]
        else:
            rows = [self._scalar_rows[row] for row in self.active_rows()]
        for place, counter in enumerate(rule.counters, len(rule.scalar_names)):
            for member, scalars in zip(members, rows, strict=True):
                member.state[counter].fill_(scalars[place])

    def squares(self) -> tuple[list[float], bool]:
        """The gradients' sums of squares, and whether all elements are finite."""
        grads = [member.param.grad for member in self.active_members()]
        norms = torch.stack(
            [
                torch.linalg.vector_norm(grad.detach(), dtype=torch.float64)
                for grad in grads
                if grad is not None
            ]
        )
        squares: list[float] = (norms * norms).tolist()
        finite = all(map(math.isfinite, squares)) or all(
            bool(grad.isfinite().all()) for grad in grads if grad is not None
        )
        return squares, finite


@remember
def _compilation_error() -> type[Exception]:
    """The exception that Triton raises where it refuses a kernel."""
    from triton.compiler.errors import CompilationError

    found: type[Exception] = CompilationError
    return found


def _on(device: torch.device) -> Any:
    from contextlib import nullcontext

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _name(dtype: torch.dtype) -> str:
    """A dtype as Triton calls it."""
    return str(dtype).replace("torch", "tl")


def _opening(
    variant: Variant,
    numbers: tuple[str, ...],
    row: tuple[str, ...],
    operands: tuple[str, ...],
    given: str = "",
) -> list[str]:
    """The lines of a kernel that read a chunk and its row of scalars.

    Args:
        variant: of the kernel.
        numbers: the rule's own among the scalars, which come first.
        row: all scalars of a row; the gradient's come last.
        operands: the tensors that are read.
        given: more arguments of the kernel.
    """
    compute = _name(variant.compute)
    lines = [
        f"def kernel(chunks, pointers, rows, scalars, {given}BLOCK: tl.constexpr):",
        "    chunk = chunks + 3 * tl.program_id(0)",
        "    member, start, length = tl.load(chunk), tl.load(chunk + 1), tl.load(chunk + 2)",
        f"    row = scalars + tl.load(rows + member) * {len(row)}",
        f"    mine = pointers + member * {variant.columns}",
        "    offset = tl.arange(0, BLOCK)",
        # 0: it has no gradient in this step.
        "    mask = (offset < length) & (tl.load(mine + 1) != 0)",
    ]
    lines += [f"    u_{one} = tl.load(row + {i})" for i, one in enumerate(numbers)]
    lines += [
        f"    {one} = tl.load(row + {i}).to({compute})"
        for i, one in enumerate(variant.prologue, len(row) - len(variant.prologue))
    ]
    for i, (operand, dtype) in enumerate(zip(variant.operands, variant.dtypes, strict=True)):
        if operand in operands:
            lines += [
                f"    at_{operand} = tl.load(mine + {i}).to(tl.pointer_type({_name(dtype)}))",
                f"    at_{operand} = at_{operand} + start + offset",
                f"    u_{operand} = tl.load(at_{operand}, mask=mask, other=0.0).to({compute})",
            ]
    return lines


def _body(variant: Variant, measure: Measure | None = None) -> tuple[list[str], dict[str, str]]:
    """The lines of the rule, or of one of its measures, and what they return; see `kernel_text`."""
    # A literal by itself would be a float32 to Triton.
    compute = _name(variant.compute)
    literal, number = f"tl.full((), {{}}, {compute})", "tl.full((), {}, tl.float64)"
    wide = "({}).to(tl.float64)"
    body, new = kernel_text.body(variant, literal, number, wide, measure)
    return [f"    {line}" for line in body], new


def _source(variant: Variant) -> str:
    """The kernel around the update rule, as Python that Triton compiles."""
    lines = _opening(variant, variant.rule.scalar_names, variant.row, variant.operands)
    body, new = _body(variant)
    # From float64 to 16 bits there is no way that every device has.
    narrow = f"({{}}).to({_name(variant.compute)})" if variant.widened else "({})"
    lines += body
    lines += [
        f"    tl.store(at_{operand}, {narrow.format(value)}"
        f".to(at_{operand}.dtype.element_ty), mask=mask)"
        for operand, value in new.items()
        if value != f"u_{operand}"  # what stays as it was is only read
    ]
    return "\n".join(lines) + "\n"


def _measure_source(variant: Variant, measure: Measure) -> str:
    """The kernel around the terms of a measure of the rule's: for each chunk their sums."""
    total = len(measure.names)
    operands = ("param", "grad", *variant.measured_states(measure))
    row = variant.measure_row(measure)
    lines = _opening(variant, measure.arguments.scalars, row, operands, given="parts, ")
    body, terms = _body(variant, measure)
    lines += body
    for i, term in enumerate(terms.values()):
        # What is beyond the end of a tensor was read as zero; its terms need not be.
        wide = f"tl.where(mask, {term}, 0.0).to(tl.float64)"
        lines.append(f"    tl.store(parts + tl.program_id(0) * {total} + {i}, tl.sum({wide}))")
    return "\n".join(lines) + "\n"


_SUM_SOURCE = """\
def kernel(parts, firsts, sums, total, BLOCK: tl.constexpr):
    member, term = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(firsts + member), tl.load(firsts + member + 1)
    found = tl.zeros((BLOCK,), tl.float64)
    for start in range(first, end, BLOCK):
        place = start + tl.arange(0, BLOCK)
        found += tl.load(parts + place * total + term, mask=place < end, other=0.0)
    tl.store(sums + member * total + term, tl.sum(found))
"""
"""Adds up a member's sums of one term: one program does, in the order of its chunks."""


@remember
def _kernel(variant: Variant) -> Any:
    return _compiled(_source(variant))


@remember
def _measure_kernel(variant: Variant, measure: Measure) -> Any:
    return _compiled(_measure_source(variant, measure))


@remember
def _sum_kernel() -> Any:
    return _compiled(_SUM_SOURCE)


def _compiled(text: str) -> Any:
    """A kernel of Triton's, from the text of a function `kernel`."""
    import triton
    import triton.language

    scope: dict[str, Any] = {"__name__": __name__, "tl": triton.language, **_words()}
    # Triton reads the source of what it compiles, and this text is in no file.
    place = f"<descend kernel {len(linecache.cache)}>"
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    exec(compile(text, place, "exec"), scope)  # noqa: S102 - from the functions above
    return triton.jit(scope["kernel"])


tl: Any = None
"""triton.language, once it is needed; the words below read it as a global, as Triton wants."""


@remember
def _words() -> dict[str, Any]:
    """The vocabulary on blocks. Triton wants each word to be a jitted function itself."""
    global tl  # noqa: PLW0603 - an import at the time of need
    import triton
    import triton.language

    tl = triton.language
    words = (_absolute, _maximum, _minimum, _sign, _sqrt, _where)
    return {word.__name__[1:]: triton.jit(word) for word in words}


def _sqrt(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if x.dtype == tl.float32:  # noqa: SIM108 - Triton takes statements
        root = tl.sqrt_rn(x)
    else:  # there is no other one for float64, and it rounds to nearest too
        root = tl.sqrt(x)
    return root


def _absolute(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return tl.abs(x)


def _sign(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


def _maximum(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


def _minimum(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


def _where(condition, x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return tl.where(condition, x, y)
