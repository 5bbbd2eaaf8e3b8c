"""Checkpoints: one safetensors file, no pickle, every tensor hashed, written atomically.

    save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    state = load(path)
    digest(state)

What was saved and what is loaded have the same digest, bit for bit.
"""

from descend.checkpoint.file import load as load
from descend.checkpoint.file import save as save
from descend.checkpoint.hashing import digest as digest
