"""Numbers, sizes, times, names and plain values as text: one way to write each in the house."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

LONGEST = 60  # characters of a value


def counted(number: int, one: str, several: str = "") -> str:
    """Write a number and what it is of.

    Example:
        >>> counted(1, "tensor"), counted(1200, "tensor"), counted(2, "batch", "batches")
        ('1 tensor', '1,200 tensors', '2 batches')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def rounded_count(number: int) -> str:
    """Write a number of parameters in three digits.

    Example:
        >>> rounded_count(999), rounded_count(5_670), rounded_count(42_000_384)
        ('999', '5.67 k', '42.0 M')
    """
    return _scaled(number, ("", "k", "M", "G"))


def byte_size(number: float) -> str:
    """Write a number of bytes in three digits.

    Example:
        >>> byte_size(999), byte_size(1_234_567), byte_size(999_999)
        ('999 B', '1.23 MB', '1.00 MB')
    """
    return _scaled(number, ("B", "kB", "MB", "GB", "TB"))


def duration(seconds: float) -> str:
    """Write a time in three digits, one of more than a minute in whole seconds.

    Example:
        >>> duration(6.9e-6), duration(0.1956), duration(0.99999), duration(75)
        ('6.90 us', '196 ms', '1.00 s', '1 min 15 s')
    """
    if seconds >= 60:  # noqa: PLR2004 - a minute
        return "{} min {} s".format(*divmod(round(seconds), 60))
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if _rounded(seconds * factor) >= 1:
            return f"{three_digits(seconds * factor)} {unit}"
    return f"{three_digits(seconds * 1e9)} ns"


def dtype_name(dtype: object) -> str:
    """Write a dtype of torch's as files and messages have it, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def three_digits(value: float) -> str:
    """Write three significant digits, with no exponent, and at most three after the point.

    Example:
        >>> three_digits(0.905), three_digits(9.996), three_digits(1234.5)
        ('0.905', '10.0', '1234')
    """
    value = _rounded(value) if abs(value) < 1000 else value  # noqa: PLR2004 - whole from there on
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:.{min(3, max(0, 3 - before))}f}"


def ago(then: datetime, now: datetime) -> str:
    """Write how long ago something was, roughly; nothing for what is yet to come.

    Example:
        >>> ago(datetime(2026, 1, 1), datetime(2026, 1, 3))
        '2 days ago'
    """
    seconds = (now - then).total_seconds()
    if seconds < 0:
        return ""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"


def printable(text: str) -> str:
    r"""Spell out every character of a name that does not print: it could be anything.

    Example:
        >>> printable("a\x1b[31m")
        'a\\x1b[31m'
    """
    if text.isprintable():
        return text
    with suppress(UnicodeError):  # a name in UTF-8 that was read as if it were in ASCII, or GBK
        text = os.fsencode(text).decode("utf-8")
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def first_names(names: Sequence[str], most: int = 3) -> str:
    """Write the first of some names, and how many more there are.

    Example:
        >>> first_names(["a", "b"]), first_names(["a", "b", "c"], most=2)
        ('a, b', 'a, b and 1 more')
    """
    return ", ".join(map(printable, names[:most])) + (
        f" and {len(names) - most:,} more" if names[most:] else ""
    )


def plain_text(value: object) -> str:
    """Write a plain value in a few characters.

    Example:
        >>> plain_text([0.9, 0.999]), plain_text(None), plain_text(1 / 3)
        ('0.9 0.999', 'null', '0.333333')
    """
    if isinstance(value, bool) or value is None:
        text = json.dumps(value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list | tuple):
        text = " ".join(map(plain_text, value))
    elif isinstance(value, Mapping):
        text = " ".join(f"{key}={plain_text(item)}" for key, item in value.items())
    else:
        text = str(value)
    text = printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def json_text(document: Mapping[str, Any]) -> str:
    r"""Write a document as `--json` prints it: null for a NaN or an infinity.

    Example:
        >>> json_text({"loss": float("inf")})
        '{\n  "loss": null\n}'
    """
    wide = (getattr(sys.stdout, "encoding", None) or "").lower() in ("utf-8", "utf8")
    text = json.dumps(_finite(document), indent=2, allow_nan=False, ensure_ascii=not wide)
    return text.encode("utf-8", "backslashreplace").decode()  # bytes that are no characters


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scaled(number: float, units: Sequence[str]) -> str:
    """A number of the largest unit, each a thousand of the one before, of which there is one."""
    power = 0
    while _rounded(number / 1000**power) >= 1000 and power + 1 < len(units):  # noqa: PLR2004
        power += 1
    text = three_digits(number / 1000**power) if power else f"{number:.0f}"
    return f"{text} {units[power]}".rstrip()


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
