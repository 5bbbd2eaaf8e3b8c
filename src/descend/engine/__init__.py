"""The engine: one update rule, three backends, one pass over memory.

vocabulary       the words of an update rule
arguments        what the arguments of an update rule are
grammar, advice  what an update rule may say; what to write instead of the rest
rule             an update rule and its host-side scalars
hyperparameters  names, defaults and ranges, declared in a constructor's signature
members          one parameter's part in a step, checked
gather           every address read afresh and checked, each step
plan             which parameters go into which kernel
source           the text of kernels, shared by the compiled backends
cpu, gpu, eager  the backends: Numba, Triton, torch operations
rows             the CPU kernel on the rows that a sparse gradient holds
native, memory   from Numba to machine code that stays; typed memory access in kernels
cache            compiled kernels on disk
threads          the threads that share one kernel call
interrupts       Ctrl-C between two operations that belong together
"""

from descend.engine.plan import forced_backend as forced_backend
from descend.spelling import suggest as _suggest

_suggest(globals())
