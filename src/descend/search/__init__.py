"""Comparisons of optimizers and searches for hyperparameters: trials, on one process or several."""
