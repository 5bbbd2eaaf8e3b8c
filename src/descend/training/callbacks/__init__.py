"""Callbacks: code at the instants of a training, with a state that resumes with the run.

callback.py         Callback, the base class: its hooks
early_stopping.py   EarlyStopping, also for loops of one's own
ema.py              EMA: validation with averaged weights
timer.py            Timer, and how a duration is written
progress.py         ProgressBars: the bars and lines of a trainer
"""

from descend.spelling import suggest as _suggest
from descend.training.callbacks.callback import Callback as Callback
from descend.training.callbacks.early_stopping import EarlyStopping as EarlyStopping
from descend.training.callbacks.ema import EMA as EMA
from descend.training.callbacks.progress import ProgressBars as ProgressBars
from descend.training.callbacks.timer import Timer as Timer

_suggest(globals())
