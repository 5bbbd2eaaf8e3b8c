"""Comparisons of optimizers and searches for hyperparameters: trials, on one process or several.

A `trial` is one training in a folder of its own; `ends` trains several lengths of it, `workers` are
the processes. A `comparison` answers a `question`: `contender`, `budget`, `step_times`, `halving`,
`comparison_results` with `statistics` and a `sentence`; its tasks are in `suite`.

A search is `tuning`. `space` reads names and values; `sought` is everything that decides what comes
out; `asked_trials` shows Optuna the trials and has it sample and prune; `shared_search` is what
several processes know of a search and who does what, in a `study_storage`; `tuning_results`.
"""
