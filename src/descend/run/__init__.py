"""A training loop that survives: it goes on where the last process died, bit for bit.

`run` is the loop, over `loader`: batches as a function of seed, epoch and position (`batch_order`),
each sample with random numbers of its own (`seeding`, `generators`); what cannot be that is a
`stream_loader`. Beside the objects that it is given, a checkpoint holds what no `state_dict` says:
the gradients that wait for a step (`gradients`), the modes of models (`frozen_and_eval`), the
classes of all (`classes`); a scheduler with other arguments goes on at the run's step
(`changed_schedule`). Its folder is held by one process (`lock`) and has a log that is cut
back to the checkpoint (`metrics_log`). `stop_signals` end it where it is whole. `run_folder` names
and holds the folder. Nothing here knows tasks.
"""

from descend.run.loader import ResumableLoader as ResumableLoader
from descend.run.run import Run as Run
from descend.run.stream_loader import StreamLoader as StreamLoader
