"""Pictures of matplotlib's as files, written whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from descend.errors import OutputError
from descend.files import replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")

# Okabe and Ito's, which the colour-blind tell apart, but their yellow: it is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def check_ending(path: Path) -> None:
    """Raise where a file's name does not say which kind of picture it is to be.

    Args:
        path: the file.

    Raises:
        OutputError: it ends neither in .png nor in .svg.

    Example:
        >>> check_ending(Path("lr.png"))
    """
    if path.suffix.lower() not in ENDINGS:
        raise OutputError(
            f"{path}: a picture is a PNG or an SVG file; end its name in {' or '.join(ENDINGS)}"
        )


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure to a file, under another name first: it is whole at every instant.

    Args:
        figure: which.
        path: where to; its ending says whether it is a PNG or an SVG file.

    Raises:
        OutputError: it has another ending, or cannot be written.

    Example:
        >>> save_figure(figure, Path("lr.svg"))
    """
    import matplotlib as mpl

    check_ending(path)
    kind = path.suffix.lower()[1:]
    # The same picture is the same bytes: without a date, and with names that do not change.
    fixed: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 150}
    with replaced(path) as file, mpl.rc_context({"svg.hashsalt": "descend"}):
        figure.savefig(file, format=kind, **fixed)
