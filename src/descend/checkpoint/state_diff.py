"""Two states beside each other: which tensors and values differ, and by how much."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from descend.checkpoint.storage_key import as_bytes
from descend.format import dtype_name
from descend.states import ABSENT, beside, joined


@dataclass(frozen=True)
class Difference:
    """One place where two states differ.

    Args:
        name: the path to it, joined by dots.
        what: how, in words.
        count: of tensors of one shape and dtype: how many elements have other bits.
        elements: how many there are.
        largest: the largest absolute difference of two elements; NaN where one is NaN.
        relative: the largest difference over the larger magnitude of the two.

    Example:
        >>> Difference("lr", "0.1 and 0.2").name
        'lr'

    Source: as `diff`.
    """

    name: str
    what: str
    count: int | None = None
    elements: int | None = None
    largest: float | None = None
    relative: float | None = None


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Everything in which two states differ in any bit.

    Args:
        a: a state, as `load` returns it or as `save` takes it.
        b: another.

    Returns:
        The differences, in the order of `a`; empty if and only if both are equal bit for bit.

    Example:
        >>> [one.name for one in diff({"w": torch.zeros(2), "n": 1}, {"w": torch.ones(2), "n": 1})]
        ['w']

    Source: bitwise comparison; `torch.testing.assert_close` is the one with tolerances.
    """
    return [
        difference
        for place, one, other in beside(a, b)
        for difference in differences_of(one, other, joined(place))
    ]


def differences_of(a: object, b: object, path: str) -> Iterator[Difference]:
    """Compare two leaves of states, which `descend.states.beside` gives."""
    if isinstance(a, np.ndarray | np.generic) and type(a) is type(b):
        a, b = _as_tensor(a), _as_tensor(b)
    if a is ABSENT or b is ABSENT:
        yield Difference(path, f"only in the {'first' if b is ABSENT else 'second'}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        yield from _of_tensors(a, b, path)
    elif type(a) is not type(b):
        yield Difference(path, f"a {type(a).__name__} and a {type(b).__name__}")
    elif _as_shown(a) != _as_shown(b):
        yield Difference(path, f"{_short(a)} and {_short(b)}")


def _of_tensors(a: torch.Tensor, b: torch.Tensor, path: str) -> Iterator[Difference]:
    kinds = [kind_of(tensor) for tensor in (a, b)]
    if kinds[0] != kinds[1]:
        yield Difference(path, " and ".join(kinds))
    elif a.is_meta:
        return  # there are no values
    elif a.is_nested:
        for (number,), one, other in beside([*a.unbind()], [*b.unbind()]):
            yield from differences_of(one, other, f"{path}.{number}")
    elif a.layout is torch.sparse_coo:
        a, b = a.coalesce(), b.coalesce()
        same = torch.equal(a.indices(), b.indices())
        same = same and torch.equal(as_bytes(a.values()), as_bytes(b.values()))
        if not same:
            yield from _apart(a.to_dense(), b.to_dense(), path)
    elif a.layout is not torch.strided:
        yield from _of_tensors(a.to_dense(), b.to_dense(), path)
    elif a.is_quantized:
        if not torch.equal(a, b):
            yield from _apart(a.dequantize(), b.dequantize(), path)
    elif not torch.equal(as_bytes(a), as_bytes(b)):
        yield from _apart(a, b, path)


def _apart(a: torch.Tensor, b: torch.Tensor, path: str) -> Iterator[Difference]:
    """How far two tensors of one shape and dtype, whose bits differ, are apart."""
    if not a.numel():
        yield Difference(path, "of other bits")
        return
    other = (as_bytes(a).view(a.numel(), -1) != as_bytes(b).view(b.numel(), -1)).any(1)
    count = int(other.sum())
    try:
        largest, relative = _farthest(a, b, other)
    except NotImplementedError:  # what torch cannot compute with, such as pairs of 4-bit numbers
        yield Difference(path, f"{count} of {a.numel()} elements", count, a.numel())
        return
    yield Difference(
        path,
        f"{count} of {a.numel()} elements, by up to {largest:.3g} ({relative:.3g} relative)",
        count,
        a.numel(),
        largest,
        relative,
    )


def _farthest(a: torch.Tensor, b: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    """The largest absolute and relative difference of the elements that differ."""
    if not bool(other.any()):
        return 0.0, 0.0
    x, y = (tensor.detach().cpu().reshape(-1)[other] for tensor in (a, b))
    wide = torch.complex128 if a.dtype.is_complex else torch.float64
    size = torch.maximum(x.to(wide).abs(), y.to(wide).abs())
    if a.dtype in (torch.int64, torch.uint64):  # of which float64 has no word for each
        high, low = (one - two for one, two in zip(_halves(x), _halves(y), strict=True))
        apart = (high * 2.0**32 + low).abs()
    else:
        apart = (x.to(wide) - y.to(wide)).abs()
    return float(apart.max()), float(torch.where(apart == 0, 0.0, apart / size).max())


def _halves(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The high and the low half of whole numbers of 64 bits, each exact in float64."""
    bits = values.view(torch.int64)
    high = bits >> 32 if values.dtype == torch.int64 else (bits >> 32) & 0xFFFFFFFF
    return high.double(), (bits & 0xFFFFFFFF).double()


def kind_of(tensor: torch.Tensor) -> str:
    """The dtype and the shape of a tensor in words, and how it is stored where that is odd."""
    stored = "" if tensor.layout is torch.strided else f" stored as {tensor.layout}"
    return f"{dtype_name(tensor.dtype)}{stored} of shape {tuple(tensor.shape)}"


def _as_tensor(value: Any) -> object:
    """An array as a tensor, where torch has its dtype."""
    try:
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    except TypeError:
        return value


def _as_shown(value: object) -> str:
    """A plain value so that -0.0 and 0.0 differ and two NaNs are equal."""
    if isinstance(value, set | frozenset):
        return repr(sorted(value, key=repr))
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."  # noqa: PLR2004
