"""Averaged models by the names of torch.optim.swa_utils.

averaged_model.py   AveragedModel, EMA
averages.py         how the average moves: equal weights, exponential weights
precision.py        averages of 16-bit tensors in float32
fitting.py          whether a model is one that can be averaged into another
batch_norm.py       update_bn: the statistics of batch norm layers for averaged weights
swalr.py            SWALR, the lr of the averaging phase

from descend.swa_utils import EMA
ema = EMA(model, decay=0.999)
for batch in loader:
    ...
    optimizer.step()
    ema.update_parameters(model)
"""

from descend.spelling import suggest as _suggest
from descend.swa_utils.averaged_model import EMA as EMA
from descend.swa_utils.averaged_model import AveragedModel as AveragedModel
from descend.swa_utils.averages import get_ema_avg_fn as get_ema_avg_fn
from descend.swa_utils.averages import get_ema_multi_avg_fn as get_ema_multi_avg_fn
from descend.swa_utils.averages import get_swa_avg_fn as get_swa_avg_fn
from descend.swa_utils.averages import get_swa_multi_avg_fn as get_swa_multi_avg_fn
from descend.swa_utils.batch_norm import update_bn as update_bn
from descend.swa_utils.swalr import SWALR as SWALR

_suggest(globals())
