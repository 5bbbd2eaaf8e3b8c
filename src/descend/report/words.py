"""Names, numbers, times and plain values in a few words."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from descend.words import counted

LONGEST = 60  # characters of a value


def visible(text: str) -> str:
    r"""A name with every character that does not print spelt out: it could be anything.

    Example:
        >>> visible("a\x1b[31m")
        'a\\x1b[31m'
    """
    if text.isprintable():
        return text
    with suppress(UnicodeError):  # a name in UTF-8 that was read as if it were in ASCII, or GBK
        text = os.fsencode(text).decode("utf-8")
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def size(count: float) -> str:
    """A number of bytes in words.

    Example:
        >>> size(999), size(1_234_567), size(999_999)
        ('999 B', '1.23 MB', '1.00 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":  # noqa: PLR2004 - what is shown as 1000 is of the next
            break
        count /= 1000
    if unit == "B":
        return f"{count:.0f} B"
    return f"{count:.{max(0, 2 - math.floor(math.log10(max(count, 1))))}f} {unit}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and whether there are more; each as `visible` has it.

    Example:
        >>> some(["a", "b"]), some(["a", "b", "c"], most=2)
        ('a, b', 'a, b, ...')
    """
    return ", ".join(map(visible, names[:most])) + ", ..." * (len(names) > most)


def taken(seconds: float) -> str:
    """A time in words.

    Example:
        >>> taken(0.012), taken(3.21), taken(75)
        ('12 ms', '3.2 s', '1 min 15 s')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def ago(then: datetime, now: datetime) -> str:
    """How long ago something was, roughly; empty for what is yet to come.

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


def finite(value: Any) -> Any:
    """Plain values as JSON can hold them: null for a NaN or an infinity.

    Example:
        >>> finite({"loss": float("nan"), "lr": [0.1]})
        {'loss': None, 'lr': [0.1]}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def as_json(document: Mapping[str, Any]) -> str:
    r"""A document as it is printed for `--json`.

    Example:
        >>> as_json({"loss": float("inf")})
        '{\n  "loss": null\n}'
    """
    wide = (getattr(sys.stdout, "encoding", None) or "").lower() in ("utf-8", "utf8")
    text = json.dumps(finite(document), indent=2, allow_nan=False, ensure_ascii=not wide)
    return text.encode("utf-8", "backslashreplace").decode()  # bytes that are no characters


def shown(value: object) -> str:
    """A plain value in a few characters.

    Example:
        >>> shown([0.9, 0.999]), shown(None), shown(1 / 3)
        ('0.9 0.999', 'null', '0.333333')
    """
    if isinstance(value, bool) or value is None:
        text = json.dumps(value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list | tuple):
        text = " ".join(shown(item) for item in value)
    elif isinstance(value, Mapping):
        text = " ".join(f"{key}={shown(item)}" for key, item in value.items())
    else:
        text = str(value)
    text = visible(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
