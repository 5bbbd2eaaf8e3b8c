"""Two states held beside each other: which tensors and values differ, and by how much."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from descend.checkpoint.hashing import as_bytes


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
        a: a state, as `load` returns it.
        b: another.

    Returns:
        The differences, in the order of `a`; empty if and only if both are equal bit for bit.

    Example:
        >>> [one.name for one in diff({"w": torch.zeros(2), "n": 1}, {"w": torch.ones(2), "n": 1})]
        ['w']

    Source: bitwise comparison; `torch.testing.assert_close` is the one with tolerances.
    """
    return list(_differences(a, b, ""))


def _differences(a: object, b: object, path: str) -> Iterator[Difference]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            name = f"{path}.{key}" if path else str(key)
            if key not in b:
                yield Difference(name, "only in the first")
            elif key not in a:
                yield Difference(name, "only in the second")
            else:
                yield from _differences(a[key], b[key], name)
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        yield from _of_tensors(a, b, path)
    elif isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, other, f"{path}.{index}" if path else str(index))
    elif type(a) is not type(b):
        yield Difference(path, f"a {type(a).__name__} and a {type(b).__name__}")
    elif _as_shown(a) != _as_shown(b):
        yield Difference(path, f"{_short(a)} and {_short(b)}")


def _of_tensors(a: torch.Tensor, b: torch.Tensor, path: str) -> Iterator[Difference]:
    if a.dtype != b.dtype or a.shape != b.shape:
        yield Difference(
            path,
            f"{str(a.dtype).removeprefix('torch.')} of shape {tuple(a.shape)} and "
            f"{str(b.dtype).removeprefix('torch.')} of shape {tuple(b.shape)}",
        )
        return
    if torch.equal(as_bytes(a), as_bytes(b)):
        return
    rows = as_bytes(a).view(a.numel(), -1) != as_bytes(b).view(b.numel(), -1)
    count = int(rows.any(1).sum())
    wide = torch.complex128 if a.dtype.is_complex else torch.float64
    x, y = a.detach().cpu().to(wide), b.detach().cpu().to(wide)
    apart = (x - y).abs().nan_to_num(nan=float("nan"), posinf=float("inf"))
    apart[(x == y).expand_as(apart)] = 0  # two infinities of one sign
    size = torch.maximum(x.abs(), y.abs())
    largest, relative = float(apart.max()), float((apart / size.clamp_min(1e-300)).max())
    yield Difference(
        path,
        f"{count} of {a.numel()} elements, by up to {largest:.3g} ({relative:.3g} relative)",
        count,
        a.numel(),
        largest,
        relative,
    )


def _as_shown(value: object) -> str:
    """A plain value so that -0.0 and 0.0 differ and two NaNs are equal."""
    if isinstance(value, set | frozenset):
        return repr(sorted(value, key=repr))
    return value.tobytes().hex() if hasattr(value, "tobytes") else repr(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."  # noqa: PLR2004
