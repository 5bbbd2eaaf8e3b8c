"""Training on a run: the trainer with its modules, callbacks and loggers, tasks, and the lr finder.

`fit_loop` is the loop of every training, on `trainer`, which prepares it: `trainer_arguments`,
`loaders`, `trainer_hooks` (who defines which hook), `optimization` (a step, and the schedulers
after it), `evaluation` (validate, test, predict), `metrics` (the values that are logged),
`training_state` (all of it that survives), `doubts` (warnings). Users write a `module`, perhaps a
`data_module`, with `hparams`; `callbacks/` and `loggers/` have a file for each.

A task: `task`, `module_task`, `task_file`; those that descend brings: `images`, `idx`, `digits`.
`task_module` makes a module of a task, or of a model with a loss. `descend train` is `prepared`,
`task_run`, `epoch_records`, `saved_command`, `scheduling` and `thread_count`. Which learning rate:
`lr_finder`, with `copies`, `group_rates` and `range_test`; `tuner`.
"""

from descend.run.loader import ResumableLoader as ResumableLoader
from descend.run.run import Run as Run
from descend.spelling import suggest as _suggest
from descend.training.data_module import DataModule as DataModule
from descend.training.digits import load_digits as load_digits
from descend.training.epoch_records import Epoch as Epoch
from descend.training.idx import read_images as read_images
from descend.training.idx import read_labels as read_labels
from descend.training.images import digits_task as digits_task
from descend.training.images import idx_task as idx_task
from descend.training.lr_finder import lr_find as lr_find
from descend.training.module import Module as Module
from descend.training.range_test import RangeTest as RangeTest
from descend.training.task import Task as Task
from descend.training.task import accuracy as accuracy
from descend.training.task_file import load_task_file as load_task_file
from descend.training.task_file import seeded_task as seeded_task
from descend.training.trainer import Trainer as Trainer
from descend.training.tuner import Tuner as Tuner

_suggest(globals())
