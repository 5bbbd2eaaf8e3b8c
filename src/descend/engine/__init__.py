"""The engine: one update rule, three backends, one pass over memory.

The way of a step, by the files in which it is found:

plan             `Stepper.step` takes all parameters and gradients; the plan of the last step holds
group_options    unless a group, the state or a hyperparameter has changed too much for it
step_inputs      a parameter that has its first gradient is admitted: checked, its state made
plan             and joins the batch of its kernel: `cpu`, `sparse_rows`, `gpu`, or `eager`
pointers         each batch reads the address of every tensor afresh, and checks the tensor
written_memory   where an address has moved, what is written must still be apart
rule             each batch works out its scalars, one row for all that have counted as far
plan             state that was missing is put into the optimizer: from here on nothing fails
cpu, gpu, eager  and each batch is one kernel call

What these stand on:

hyperparameters  names, defaults and ranges, declared in a constructor's signature
vocabulary       the words of an update rule; rule_arguments: what its arguments are
grammar          what an update rule may say; refusals: what to write instead of the rest
tensor_layout    how tensors lie in memory
kernel_text      the text of kernels, shared by the compiled backends
kernel_words     the words that compiled functions are given, by name
compiled_*       those functions, imported only where they must be compiled
memory_access    loads and stores in them; native: from Numba to machine code that stays
cache            compiled kernels on disk
kernel_threads   the threads that share one kernel call
interrupts       signals between two operations that belong together
"""

from descend.engine.plan import forced_backend as forced_backend
from descend.spelling import suggest as _suggest

_suggest(globals())
