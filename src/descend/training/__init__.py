"""Tasks, data for them, and the loop that trains them: what `descend train` is made of.

A task: `task`, `task_file`; those that descend brings: `images`, `idx`, `digits`. How it is
trained: `fit`; in a run that survives: `task_run`; with `scheduling` and `thread_count`.
Which learning rate it is given: `lr_finder`, with `copies`, `group_rates` and
`range_test`; `tuner`.
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
from descend.training.task_file import load_task as load_task
from descend.training.trainer import Trainer as Trainer
from descend.training.tuner import Tuner as Tuner

_suggest(globals())
