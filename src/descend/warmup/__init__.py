"""Warmups: small steps at first, in front of any schedule; by the names of pytorch_warmup.

    from descend import warmup  # in place of `import pytorch_warmup as warmup`

    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    warming = warmup.UntunedLinearWarmup(optimizer)
    for batch in loader:
        ...
        optimizer.step()
        with warming.dampening():
            scheduler.step()

The lr is the product of the warmup's factor and of what the schedulers say. `schedules.warmup` and
`schedules.untuned_linear` do the same in an expression: `untuned_linear() * cosine(10_000)`.

descend's schedulers may be built before or after the warmup, and stepped in its block or outside.
One of torch's writes the lr itself, whatever stands there. So it must be built before the warmup:
the first block is refused if one that was built later has written. It must be stepped in the block:
what is written outside passes for dampened, as an lr that is set by hand does. And its own
`get_last_lr` tells what it wrote in the block; the warmup's tells the true value.

    base_warmup.py  BaseWarmup: the factor, and the block in which schedulers are stepped
    periods.py      the warmups of a given period
    untuned.py      those whose period follows from Adam's second beta
    rho.py          the functions of RAdam's warmup
"""

from descend.spelling import suggest as _suggest
from descend.warmup.base_warmup import BaseWarmup as BaseWarmup
from descend.warmup.periods import ConstantWarmup as ConstantWarmup
from descend.warmup.periods import ExponentialWarmup as ExponentialWarmup
from descend.warmup.periods import LinearWarmup as LinearWarmup
from descend.warmup.rho import get_offset as get_offset
from descend.warmup.rho import rho_fn as rho_fn
from descend.warmup.rho import rho_inf_fn as rho_inf_fn
from descend.warmup.untuned import RAdamWarmup as RAdamWarmup
from descend.warmup.untuned import UntunedExponentialWarmup as UntunedExponentialWarmup
from descend.warmup.untuned import UntunedLinearWarmup as UntunedLinearWarmup

_suggest(globals())
