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
from collections.abc import Callable
from functools import cache as remember
from typing import Any

import torch

from descend.engine import gather
from descend.engine.hyperparameters import Options
from descend.engine.members import Member, Written
from descend.engine.rule import Variant
from descend.engine.vocabulary import rebind

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
        self.table = table = gather.Table(variant, members, written)
        self._device = members[0].param.device
        chunks: list[int] = []
        for index, size in enumerate(table.sizes):
            for start in range(0, size, BLOCK):
                chunks.extend((index, start, min(BLOCK, size - start)))
        self._count = len(chunks) // 3
        self._chunks = torch.tensor(chunks, dtype=torch.int64, device=self._device)
        self._rows = torch.tensor(table.rows, dtype=torch.int64, device=self._device)
        self._pointers = self._sent = None
        self._scalars = torch.empty(0)
        self._kernel = _kernel(variant)

    def check(self, params: list[Any], grads: list[Any]) -> bool:
        """Whether the tensors are still what the kernel was prepared for; notes their addresses."""
        return self.table.check(params, grads)

    def prepare(self, options: list[Options], factors: list[float], limit: float) -> None:
        """Work out the scalars of every row and send them, and changed addresses, to the device."""
        variant, table = self.variant, self.table
        rows: list[float] = []
        for row, group in enumerate(table.row_groups):
            rows += variant.rule.scalars(
                options[group], int(table.row_steps[row]) + 1
            ).values()
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
            with _on(self._device):
                self._kernel[(self._count,)](
                    self._chunks, self._pointers, self._rows, self._scalars, BLOCK=BLOCK
                )
        if self.variant.rule.counts_steps:
            torch._foreach_add_([member.state["step"] for member in self.members], 1)

    def measure(self) -> tuple[float, bool]:
        """The sum of the squares of all gradient elements, and whether all are finite."""
        grads = [member.param.grad for member in self.members if member.param.grad is not None]
        norms = torch.stack(
            [torch.linalg.vector_norm(grad.detach(), dtype=torch.float64) for grad in grads]
        )
        total = float((norms * norms).sum())
        finite = total < float("inf") or all(bool(grad.isfinite().all()) for grad in grads)
        return total, finite


def _on(device: torch.device) -> Any:
    from contextlib import nullcontext

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def source(variant: Variant) -> str:
    """The kernel around the update rule, as Python that Triton compiles."""
    operands = ("param", "grad", *variant.states)
    absent = [state for state in variant.rule.states if state not in variant.states]
    columns = len(operands) + int(variant.rule.counts_steps)
    width = len(variant.row)
    compute = _NAMES[variant.compute]
    passed = ", ".join(["param", "grad", *variant.rule.states])
    keywords = ", ".join(
        [f"{scalar}={scalar}" for scalar in variant.rule.scalar_names]
        + [f"{flag}={value}" for flag, value in variant.flags]
    )
    results = ", ".join(f"new_{state}" for state in ("param", *variant.rule.states))
    lines = [
        "def kernel(chunks, pointers, rows, scalars, BLOCK: tl.constexpr):",
        "    chunk = tl.program_id(0)",
        "    member = tl.load(chunks + 3 * chunk)",
        "    start = tl.load(chunks + 3 * chunk + 1)",
        "    length = tl.load(chunks + 3 * chunk + 2)",
        f"    row = scalars + tl.load(rows + member) * {width}",
        *(
            f"    {scalar} = tl.load(row + {i}).to(tl.{compute})"
            for i, scalar in enumerate(variant.row)
        ),
        "    offset = tl.arange(0, BLOCK)",
        "    mask = offset < length",
    ]
    for i, operand in enumerate(operands):
        kind = _NAMES[variant.dtypes[i]]
        lines += [
            f"    at_{operand} = tl.load(pointers + member * {columns} + {i})"
            f".to(tl.pointer_type(tl.{kind})) + start + offset",
            f"    {operand} = tl.load(at_{operand}, mask=mask, other=0.0).to(tl.{compute})",
        ]
    lines += [
        *(f"    {state} = 0.0" for state in absent),
        *(["    grad = grad * grad_factor"] if variant.scaled else []),
        *(
            ["    grad = minimum(maximum(grad, -grad_limit), grad_limit)"]
            if variant.limited
            else []
        ),
        f"    {results} = update({passed}, {keywords})" if variant.rule.states else
        f"    {results}, = update({passed}, {keywords})",
        *(
            f"    tl.store(at_{operand}, new_{operand}.to(tl.{_NAMES[variant.dtypes[i]]}), mask=mask)"
            for i, operand in enumerate(operands)
            if operand != "grad"
        ),
    ]
    return "\n".join(lines) + "\n"


@remember
def _kernel(variant: Variant) -> Any:
    import triton
    import triton.language as tl

    words = _words()
    scope: dict[str, Any] = {"tl": tl, **words}
    scope["update"] = triton.jit(rebind(variant.rule.update, {"tl": tl, **words}))
    text = source(variant)
    # Triton reads the source of what it compiles; this text is in no file.
    place = f"<descend {variant.rule.update.__module__} {id(variant)}>"
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    exec(compile(text, place, "exec"), scope)  # noqa: S102 - text of our own making, from `source`
    return triton.jit(scope["kernel"])


@remember
def _words() -> dict[str, Callable[..., Any]]:
    """The vocabulary on blocks. Triton wants each word to be a jitted function itself."""
    import triton
    import triton.language as tl

    def sqrt(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return tl.sqrt_rn(x) if x.dtype == tl.float32 else tl.sqrt(x)

    def absolute(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return tl.abs(x)

    def sign(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)

    def maximum(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)

    def minimum(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)

    def where(condition, x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return tl.where(condition, x, y)

    plain = {f.__name__: f for f in (sqrt, absolute, sign, maximum, minimum, where)}
    return {word: triton.jit(rebind(f, {"tl": tl})) for word, f in plain.items()}


