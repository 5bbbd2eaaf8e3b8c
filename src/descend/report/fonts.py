"""Characters of every script in pictures, as far as the system has fonts."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from descend.errors import FontWarning

# What systems have for Chinese, Japanese and Korean; matplotlib's own font has none of it
WIDE = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti TC"),
    *("Noto Sans CJK JP", "Arial Unicode MS", "Unifont"),
)


@contextmanager
def all_scripts(path: Path) -> Iterator[None]:
    """Draw with every font that may be needed; what none of them has is told of once.

    Args:
        path: of the picture, for the warning.
    """
    import matplotlib as mpl

    families = [*mpl.rcParams["font.family"], *_wide()]
    with warnings.catch_warnings(record=True) as caught, mpl.rc_context({"font.family": families}):
        warnings.simplefilter("always")
        yield
    missing = ""
    for one in caught:
        if found := re.match(r"Glyph (\d+) ", str(one.message)):
            missing += chr(int(found[1]))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing:
        warnings.warn(
            f"{path}: no font of this system has {missing}, and boxes stand there; install one, "
            f"such as Noto Sans CJK",
            FontWarning,
            stacklevel=4,
        )


@cache
def _wide() -> list[str]:
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return [name for name in WIDE if name in there]
