"""Schedules: pure functions of the step, for any hyperparameter.

    schedule.py     the schedule; `a >> b`, `a * b`
    ramps.py        constant, linear, cosine, polynomial, piecewise
    decays.py       exponential, step, multistep, inverse_sqrt, function (your own)
    cycles.py       one_cycle, cyclic, warm_restarts, wsd
    warmups.py      warmup, untuned_linear, untuned_exponential, rectified
    combinators.py  value, until, repeat, delay, clip
    formulas.py     the mathematics, shared with `descend.lr_scheduler`
    arguments.py    the words for the annotations of a shape, and their checks
    expressions.py  parse: an expression as a string
    schedule_file.py  load_schedule: one of a user's file
    lint.py         mistakes: warnings of likely ones

    from descend.schedules import cosine, warmup
    scheduler = descend.Scheduler(optimizer, lr=warmup(500) >> cosine(9500))

A schedule gives factors of what the optimizer was given; `value(...)` makes them values. Times are
steps; `.over(steps)` and `.in_epochs(steps_per_epoch)` turn a schedule whose times are fractions of
the run, or epochs, into one in steps.
"""

from descend.schedules.combinators import clip as clip
from descend.schedules.combinators import delay as delay
from descend.schedules.combinators import repeat as repeat
from descend.schedules.combinators import until as until
from descend.schedules.combinators import value as value
from descend.schedules.cycles import cyclic as cyclic
from descend.schedules.cycles import one_cycle as one_cycle
from descend.schedules.cycles import warm_restarts as warm_restarts
from descend.schedules.cycles import wsd as wsd
from descend.schedules.decays import exponential as exponential
from descend.schedules.decays import function as function
from descend.schedules.decays import inverse_sqrt as inverse_sqrt
from descend.schedules.decays import multistep as multistep
from descend.schedules.decays import step as step
from descend.schedules.expressions import parse as parse
from descend.schedules.lint import mistakes as mistakes
from descend.schedules.ramps import constant as constant
from descend.schedules.ramps import cosine as cosine
from descend.schedules.ramps import linear as linear
from descend.schedules.ramps import piecewise as piecewise
from descend.schedules.ramps import polynomial as polynomial
from descend.schedules.schedule import Schedule as Schedule
from descend.schedules.warmups import rectified as rectified
from descend.schedules.warmups import untuned_exponential as untuned_exponential
from descend.schedules.warmups import untuned_linear as untuned_linear
from descend.schedules.warmups import warmup as warmup
from descend.spelling import suggest as _suggest

_suggest(globals())
