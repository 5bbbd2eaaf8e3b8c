"""Pictures and tables: of runs, and of schedules before any run.

curves.py       the learning curves of a run
fonts.py        characters of every script in them
found.py        which checkpoints a path stands for
described.py    what is in them, as plain data
detail.py       what is in one of them
runs.py         what a run is of, and a table of runs
held_values.py  the plain values of a state
checkpoints.py  all of that in text
differences.py  two states beside each other
tables.py       tables and lists, as wide as the terminal
sources.py      what schedules and schedulers say at any step
sampled.py      their lines over the same steps
schedules.py    these as a picture
terminal.py     these as a chart of characters
"""

from descend.report.curves import draw_curves as draw_curves
from descend.report.schedules import plot_schedules as plot_schedules
