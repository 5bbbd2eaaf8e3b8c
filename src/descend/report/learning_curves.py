"""The learning curves of a run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from descend.files import replaced
from descend.report.fonts import all_scripts

if TYPE_CHECKING:
    from descend.training import Epoch

STYLES = {"training": ("C0", "."), "validation": ("C1", "."), "scheduled": ("C2", "")}
"""The colour and the marker of each kind of line."""

Line: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""Times in epochs, and the value at each."""


def draw_curves(
    epochs: "Sequence[Epoch]", path: Path, scheduled: Mapping[str, Line] | None = None
) -> None:
    """Draw the losses and the metrics of a run over its epochs, as a PNG file.

    One panel holds the training and the validation loss, one more each metric on the validation
    data, and one each hyperparameter that a schedule drove. The file is written under another name
    and renamed: it is whole at every instant.

    Args:
        epochs: the run's records, at least one.
        path: where to; an existing file is replaced.
        scheduled: for each hyperparameter that a schedule drove, the times of its steps, in epochs
            from 0, and its values.

    Raises:
        OutputError: if the file cannot be written.

    Example:
        >>> draw_curves(fit(task, optimizer, ...), Path("curves.png"))

    Source: matplotlib, https://matplotlib.org.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: it takes half a second
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    numbers = [record.epoch for record in epochs]
    losses: dict[str, Line] = {
        "training": (numbers, [record.train_loss for record in epochs]),
        "validation": (numbers, [record.validation_loss for record in epochs]),
    }
    panels = [("loss", losses)]
    for name in epochs[0].metrics:
        panels.append((name, {"validation": (numbers, [r.metrics[name] for r in epochs])}))
    panels += [(name, {"scheduled": line}) for name, line in (scheduled or {}).items()]
    with all_scripts(path), replaced(path) as file:
        figure = Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        columns = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, lines) in zip(columns, panels, strict=True):
            for label, (times, values) in lines.items():
                colour, marker = STYLES[label]
                axes.plot(times, values, label=label, color=colour, marker=marker)
            axes.set(title=title, xlabel="epoch", xmargin=0.02)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(alpha=0.3)
            axes.legend()
        canvas.print_png(file)  # type: ignore[no-untyped-call]
