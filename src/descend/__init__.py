"""descend: the optimization half of PyTorch training.

`import descend as optim` takes the place of `import torch.optim as optim`.
"""

from descend.optimizers import SGD as SGD
from descend.optimizers import Adagrad as Adagrad
from descend.optimizers import Adam as Adam
from descend.optimizers import AdamW as AdamW
from descend.optimizers import Optimizer as Optimizer
from descend.optimizers import RMSprop as RMSprop
from descend.optimizers import param_groups as param_groups
from descend.training import Task as Task
from descend.training import accuracy as accuracy
