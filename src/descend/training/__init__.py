"""Training: tasks, the loop that trains them, the data that `descend train` reads and ships."""

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
