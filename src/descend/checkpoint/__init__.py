"""Checkpoints: folders without pickle, every tensor hashed, written whole or not at all.

    save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    state = load(path)                       # or a run's folder, or a .pth of torch's
    restore(path, model=model)               # weights alone, on whatever device
    digest(state)

What was saved and what is loaded have the same digest, bit for bit. The files, lowest first:
`storage_key`, `tree`, a state as JSON and tensors, and `hashing`; `snapshot`, `manifest`,
`tensors_file` and `provenance`; `folder`, one checkpoint; `series`, those of a run, and `saver`,
which writes them in the background; torch's files: `harmless_classes` and `safe_unpickle`, which
reads them without code, `plain_pickle`, `part_names`, `torch_archive` and `torch_file`;
`state_source` and `restore`; `damages` and `contents`; `compare`; `randomness`.
"""

from descend.checkpoint.folder import save as save
from descend.checkpoint.folder import verify as verify
from descend.checkpoint.hashing import digest as digest
from descend.checkpoint.restore import Restored as Restored
from descend.checkpoint.restore import restore as restore
from descend.checkpoint.series import Best as Best
from descend.checkpoint.state_diff import Difference as Difference
from descend.checkpoint.state_diff import diff as diff
from descend.checkpoint.state_source import load as load
from descend.checkpoint.state_source import locate as locate
from descend.checkpoint.torch_file import load_torch as load_torch
from descend.checkpoint.torch_file import save_torch as save_torch
from descend.spelling import suggest as _suggest

_suggest(globals())
