"""Pictures of runs."""

from descend.report.curves import draw_curves as draw_curves
