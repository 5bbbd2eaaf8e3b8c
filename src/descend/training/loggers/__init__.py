"""Loggers: where a trainer's metrics go beside `metrics.jsonl`.

logger.py           Logger, the protocol of three methods
log_folder.py       FileLogger: the folder of one that writes files, and its resume
tensorboard.py      TensorBoardLogger: event files
csv_logger.py       CSVLogger: a table
"""

from descend.spelling import suggest as _suggest
from descend.training.loggers.csv_logger import CSVLogger as CSVLogger
from descend.training.loggers.logger import Logger as Logger
from descend.training.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger

_suggest(globals())
