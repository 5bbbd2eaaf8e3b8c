"""What `descend` holds: one line for each name.

Type checkers and editors read these lines; so does `__init__.py`, which imports a name when it is
first used.
"""

from descend import checkpoint as checkpoint
from descend import engine as engine
from descend import errors as errors
from descend import lr_scheduler as lr_scheduler
from descend import optimizers as optimizers
from descend import rules as rules
from descend import schedules as schedules
from descend import swa_utils as swa_utils
from descend import training as training
from descend import warmup as warmup
from descend.checkpoint.randomness import seed_everything as seed_everything
from descend.grouping import freeze as freeze
from descend.grouping import param_groups as param_groups
from descend.grouping import param_groups_layer_decay as param_groups_layer_decay
from descend.grouping import param_groups_matrices as param_groups_matrices
from descend.grouping import param_groups_weight_decay as param_groups_weight_decay
from descend.grouping import unfreeze as unfreeze
from descend.lr_scheduler import Scheduler as Scheduler
from descend.optimizers import ADOPT as ADOPT
from descend.optimizers import ASGD as ASGD
from descend.optimizers import LAMB as LAMB
from descend.optimizers import LBFGS as LBFGS
from descend.optimizers import MARS as MARS
from descend.optimizers import SGD as SGD
from descend.optimizers import SOAP as SOAP
from descend.optimizers import Adadelta as Adadelta
from descend.optimizers import Adafactor as Adafactor
from descend.optimizers import Adagrad as Adagrad
from descend.optimizers import Adam as Adam
from descend.optimizers import Adamax as Adamax
from descend.optimizers import AdamW as AdamW
from descend.optimizers import AdEMAMix as AdEMAMix
from descend.optimizers import Lion as Lion
from descend.optimizers import Muon as Muon
from descend.optimizers import NAdam as NAdam
from descend.optimizers import Optimizer as Optimizer
from descend.optimizers import Prodigy as Prodigy
from descend.optimizers import RAdam as RAdam
from descend.optimizers import RMSprop as RMSprop
from descend.optimizers import Rprop as Rprop
from descend.optimizers import ScheduleFreeAdamW as ScheduleFreeAdamW
from descend.optimizers import ScheduleFreeSGD as ScheduleFreeSGD
from descend.optimizers import SparseAdam as SparseAdam
from descend.optimizers import StableAdamW as StableAdamW
from descend.report import plot_schedules as plot_schedules
from descend.run import ResumableLoader as ResumableLoader
from descend.run import Run as Run
from descend.run import StreamLoader as StreamLoader
from descend.search.comparison import Comparison as Comparison
from descend.search.comparison import compare as compare
from descend.search.tuning import Tuning as Tuning
from descend.search.tuning import tune as tune
from descend.training import DataModule as DataModule
from descend.training import Module as Module
from descend.training import Task as Task
from descend.training import Trainer as Trainer
from descend.training import Tuner as Tuner
from descend.training import accuracy as accuracy
from descend.training import load_digits as load_digits
from descend.training import lr_find as lr_find
from descend.training.callbacks import EMA as EMA
from descend.training.callbacks import Callback as Callback
from descend.training.callbacks import EarlyStopping as EarlyStopping
from descend.training.callbacks import Timer as Timer
from descend.training.loggers import CSVLogger as CSVLogger
from descend.training.loggers import Logger as Logger
from descend.training.loggers import TensorBoardLogger as TensorBoardLogger

__version__: str
