"""The GPU backend: Triton, fused, one launch for all tensors of a dtype combination.

Each program of the grid takes one chunk of one tensor: it reads the tensor's addresses from a
table on the device, its row of scalars from another, and runs the update rule on a block. With
`TRITON_INTERPRET=1` the same kernel runs on CPU tensors in Triton's interpreter, for tests.
"""

import importlib.util
import linecache
import os
import warnings
from array import array
from functools import cache as remember
from typing import Any

import torch

from descend.engine import gather, source
from descend.engine.hyperparameters import Options
from descend.engine.members import Member, Written
from descend.engine.rule import Variant

name = "gpu"

BLOCK = 1024
"""Elements that one program updates."""

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def accepts(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether this backend has a kernel for such tensors."""
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return False
    return all(dtype in _NAMES for dtype in dtypes) and _installed()


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@remember
def _installed() -> bool:
    if importlib.util.find_spec("triton"):
        return True
    warnings.warn(
        "descend: Triton is not installed, so steps on the GPU take the slower eager path; "
        "pip install triton",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


class Batch:
    """All members of one dtype combination on one device: one launch a step."""

    backend = name
    whole = False

    def __init__(self, variant: Variant, members: list[Member], written: Written) -> None:
        self.variant = variant
        self.members = members
        self._params = [member.param for member in members]
        self.table = table = gather.Table(variant, members, written)
        self._device = members[0].param.device
        chunks: list[int] = []
        for index, size in enumerate(table.sizes):
            for start in range(0, size, BLOCK):
                chunks.extend((index, start, min(BLOCK, size - start)))
        self._count = len(chunks) // 3
        self._chunks = torch.tensor(chunks, dtype=torch.int64, device=self._device)
        self._rows = torch.tensor(table.rows, dtype=torch.int64, device=self._device)
        self._counters = {
            counter: torch.empty(len(table.row_groups), dtype=torch.float64)
            for counter in variant.rule.counters
        }
        self._pointers = self._scalars = torch.empty(0)
        self._sent = b""
        self._kernel = _kernel(variant)

    def check(self, params: list[Any], grads: list[Any]) -> bool:
        """Whether the tensors are still what the kernel was prepared for; notes their addresses."""
        return self.table.check(params, grads)

    def prepare(self, options: list[Options], factors: list[float], limit: float) -> None:
        """Work out the scalars of every row and send them, and changed addresses, to the device."""
        variant, table = self.variant, self.table
        rows: list[float] = []
        for row, group in enumerate(table.row_groups):
            numbers = variant.rule.numbers(options[group], table.counts(row))
            rows += numbers.values()
            for name in variant.rule.counters:
                self._counters[name][row] = numbers[name]
            rows += [factors[group]] if variant.scaled else []
            rows += [limit] if variant.limited else []
        self._scalars = self._send(array("d", rows), torch.float64)
        addresses = table.pointers.tobytes()
        if addresses != self._sent:
            self._pointers = self._send(table.pointers, torch.int64)
            self._sent = addresses

    def _send(self, values: "array[Any]", dtype: torch.dtype) -> torch.Tensor:
        host = torch.tensor(values, dtype=dtype)
        if self._device.type == "cuda":
            return host.pin_memory().to(self._device, non_blocking=True)
        return host

    def launch(self) -> None:
        """Update parameters and state on the device, and the step counts."""
        if self._count:
            with _on(self._device), source.blamed(self.variant, _compilation_error()):
                self._kernel[(self._count,)](
                    self._chunks,
                    self._pointers,
                    self._rows,
                    self._scalars,
                    BLOCK=BLOCK,
                    enable_fp_fusion=True,
                )
        # Torch did not see the writing; autograd must, to refuse a backward() through old values.
        torch._C._increment_version(self._params)
        rule = self.variant.rule
        if rule.counts_steps:
            torch._foreach_add_([member.state["step"] for member in self.members], 1)
        for counter, new in self._counters.items():
            torch._foreach_copy_(
                [member.state[counter] for member in self.members],
                [new[row] for row in self.table.rows],
            )

    def measure(self) -> tuple[float, bool]:
        """The sum of the squares of all gradient elements, and whether all are finite."""
        grads = [member.param.grad for member in self.members if member.param.grad is not None]
        norms = torch.stack(
            [torch.linalg.vector_norm(grad.detach(), dtype=torch.float64) for grad in grads]
        )
        total = float((norms * norms).sum())
        finite = total < float("inf") or all(bool(grad.isfinite().all()) for grad in grads)
        return total, finite


@remember
def _compilation_error() -> type[Exception]:
    """What Triton raises where it refuses a kernel."""
    from triton.compiler.errors import CompilationError

    found: type[Exception] = CompilationError
    return found


def _on(device: torch.device) -> Any:
    from contextlib import nullcontext

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _source(variant: Variant) -> str:
    """The kernel around the update rule, as Python that Triton compiles."""
    compute = f"tl.{_NAMES[variant.compute]}"
    lines = [
        "def kernel(chunks, pointers, rows, scalars, BLOCK: tl.constexpr):",
        "    chunk = chunks + 3 * tl.program_id(0)",
        "    member, start, length = tl.load(chunk), tl.load(chunk + 1), tl.load(chunk + 2)",
        f"    row = scalars + tl.load(rows + member) * {len(variant.row)}",
        f"    mine = pointers + member * {variant.columns}",
        "    offset = tl.arange(0, BLOCK)",
        "    mask = offset < length",
    ]
    scalars = variant.rule.scalar_names
    lines += [f"    u_{scalar} = tl.load(row + {i})" for i, scalar in enumerate(scalars)]
    lines += [
        f"    {scalar} = tl.load(row + {i}).to({compute})"
        for i, scalar in enumerate(variant.prologue, len(scalars) + len(variant.rule.counters))
    ]
    for i, (operand, dtype) in enumerate(zip(variant.operands, variant.dtypes, strict=True)):
        lines += [
            f"    at_{operand} = tl.load(mine + {i}).to(tl.pointer_type(tl.{_NAMES[dtype]}))",
            f"    at_{operand} = at_{operand} + start + offset",
            f"    u_{operand} = tl.load(at_{operand}, mask=mask, other=0.0).to({compute})",
        ]
    # A literal by itself would be a float32 to Triton.
    body, new = source.body(
        variant, literal=f"tl.full((), {{}}, {compute})", number="tl.full((), {}, tl.float64)"
    )
    lines += [f"    {line}" for line in body]
    lines += [
        f"    tl.store(at_{operand}, ({value}).to(at_{operand}.dtype.element_ty), mask=mask)"
        for operand, value in new.items()
    ]
    return "\n".join(lines) + "\n"


@remember
def _kernel(variant: Variant) -> Any:
    import triton
    import triton.language

    scope: dict[str, Any] = {"__name__": __name__, "tl": triton.language, **_words()}
    text = _source(variant)
    # Triton reads the source of what it compiles, and this text is in no file.
    place = f"<descend {variant.rule.update.__module__} {id(variant)}>"
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    exec(compile(text, place, "exec"), scope)  # noqa: S102 - from `_source`
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
