"""Pictures and tables: of runs, and of schedules before any run.

learning_curves.py  the learning curves of a run
fonts.py            characters of every script in them
html_page.py        the frame of a page of HTML
comparison_page.py  the page of a comparison of optimizers
comparison_charts.py its charts as plain data, comparison_cells.py its figures as texts
svg_chart.py        these charts on the page, with the scales of chart_scale.py
comparison_picture.py these charts as a picture
locate.py           the checkpoints that a path stands for
described.py        these as plain data
detail.py           one of them in detail
runs.py             the settings of a run, and a table of runs
scalars.py          the plain values of a state
checkpoints.py      all of that in text
differences.py      two states beside each other
tables.py           tables and lists, as wide as the terminal
schedule_values.py  the values of schedules and schedulers at any step
schedule_lines.py   their lines over the same steps
schedule_figure.py  these as a picture
schedule_chart.py   these as a chart of characters
range_test_chart.py the losses of a learning-rate range test, so too
"""

from descend.report.learning_curves import draw_curves as draw_curves
from descend.report.schedule_figure import plot_schedules as plot_schedules
