"""Callbacks: code at the instants of a training, with a state that resumes with the run.

callback.py         Callback, the base class: its hooks
"""

from descend.spelling import suggest as _suggest
from descend.training.callbacks.callback import Callback as Callback

_suggest(globals())
