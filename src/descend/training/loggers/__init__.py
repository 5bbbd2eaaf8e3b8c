"""Loggers: where a trainer's metrics go beside `metrics.jsonl`.

logger.py           Logger, the protocol of three methods
"""

from descend.spelling import suggest as _suggest
from descend.training.loggers.logger import Logger as Logger

_suggest(globals())
