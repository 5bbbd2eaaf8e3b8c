"""All that optimizers have in common.

base_class      the base class: parameter groups, state, gradients, the step, saving and loading
declaration     the declaration in a constructor: the groups' defaults, and the documentation
parameters      parameters as they are given, in lists or groups
hooks           hooks around a step, and what becomes of them in a copy
saved_state     a saved state, checked whole before anything changes
matching        which saved parameter is which of ours
origin          which optimizer saved a state
load_report     the report of a load
shares          refusals of an optimizer that sees a share and takes it for the whole
all_or_nothing  changes that are taken back if something fails on the way
untraced        functions that torch.compile leaves alone
"""
