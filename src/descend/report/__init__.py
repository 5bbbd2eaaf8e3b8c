"""Pictures and tables: of runs, and of schedules before any run.

curves.py       the learning curves of a run
checkpoints.py  checkpoints in words and tables
sources.py      what schedules and schedulers say at any step
sampled.py      their lines over the same steps
schedules.py    these as a picture
terminal.py     these as a chart of characters
"""

from descend.report.curves import draw_curves as draw_curves
from descend.report.schedules import plot_schedules as plot_schedules
