"""Training: a loop that survives anything, tasks for it, and the data that `descend train` brings.

A run: `run`, with `loader` (`order`, `generators`), `gradients`, `modes`, `metrics_log`, `lock` and
`stop_signals`. Whether a script's run is exact: `resume_check`, with `kill_instants`, `run_watch`,
`script_process` and `run_comparison`. What `descend train` trains: `task`, `task_file`, `images`,
`idx`, `digits`; and how: `fit`, `task_run`, `scheduling`, `command`, `run_folder`, `threads`,
`exit_signals`.
"""

from descend.spelling import suggest as _suggest
from descend.training.digits import load_digits as load_digits
from descend.training.fit import Epoch as Epoch
from descend.training.fit import evaluate as evaluate
from descend.training.fit import fit as fit
from descend.training.idx import read_images as read_images
from descend.training.idx import read_labels as read_labels
from descend.training.images import digits_task as digits_task
from descend.training.images import idx_task as idx_task
from descend.training.loader import ResumableLoader as ResumableLoader
from descend.training.run import Run as Run
from descend.training.task import Task as Task
from descend.training.task import accuracy as accuracy
from descend.training.task_file import load_task as load_task

_suggest(globals())
