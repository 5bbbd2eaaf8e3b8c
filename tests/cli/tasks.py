"""Task files for `descend train`."""

TASK = """
import torch
from descend.training import Task
x = torch.randn(40, 4)
y = (x.sum(1) > 0).long()
task = Task(
    model=torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)),
    train=(x[:30], y[:30]),
    validation=(x[30:], y[30:]),
    loss=torch.nn.functional.cross_entropy,
)
"""

_INTERRUPT = """
import os, signal, dataclasses
calls = [0]
def loss(outputs, targets):
    calls[0] += 1
    if calls[0] == 6:  # 3 batches and 1 of validation, then the second batch of the second epoch
        for _ in range(TIMES):
            os.kill(os.getpid(), signal.SIGINT)
    return torch.nn.functional.cross_entropy(outputs, targets)
task = dataclasses.replace(task, loss=loss)
"""


def interrupted(task, times):
    """A task that presses Ctrl-C so many times within the second epoch."""
    return task + _INTERRUPT.replace("TIMES", str(times))
