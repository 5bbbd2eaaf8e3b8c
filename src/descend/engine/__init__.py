"""The engine: one update rule, three backends, one pass over memory.

The way of a step: `plan.Stepper` takes all parameters and gradients; its plan compares the groups'
hyperparameters with what it knows, and validates what has changed. A parameter that has its first
gradient is admitted (`step_inputs.admit`: checked, its state made) and joins the batch of its
kernel. Each batch's `pointers.Table` asks every tensor for its address, dtype and layout, skips
what has no gradient, and sorts the step counts into rows; where an address has moved, all ranges
that are written must still be apart. A batch then works out one set of scalars a row
(`rule.numbers`, on the host, in float64), missing state is put into the optimizer, and each batch
is one kernel call.

vocabulary            the words of an update rule
rule_arguments        the arguments of an update rule: states, scalars, flags
grammar, refusals     what an update rule may say; what to write instead of the rest
rule                  an update rule and its host-side scalars
hyperparameters       names, defaults and ranges, declared in a constructor's signature
step_inputs           one parameter's part in a step, checked
plan                  which parameters go into which kernel; it stands while training changes
pointers              every address read afresh and checked, each step
compiled_check        the functions that do it
kernel_text           the text of kernels, shared by the compiled backends
cpu, gpu, eager       the backends: Numba, Triton, torch operations
sparse_rows           the CPU kernel on the rows that a sparse gradient holds
native, memory_access from Numba to machine code that stays; typed memory access in kernels
cache                 compiled kernels on disk
kernel_threads        the threads that share one kernel call
interrupts            signals between two operations that belong together
"""

from descend.engine.plan import forced_backend as forced_backend
from descend.spelling import suggest as _suggest

_suggest(globals())
