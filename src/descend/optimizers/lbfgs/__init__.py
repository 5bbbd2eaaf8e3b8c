"""L-BFGS, in parts.

lbfgs        the optimizer: iterations, and when to stop
curvature    what is remembered of the last steps, and the direction that follows from it
line_search  a step length that gains enough and goes far enough
flat         all parameters as one vector
torch_state  the state, as torch keeps it
"""

from descend.optimizers.lbfgs.lbfgs import LBFGS as LBFGS
