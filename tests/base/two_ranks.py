"""Clip sharded gradients on one of two ranks: `python two_ranks.py RANK FOLDER`.

The norm is that of all ranks, and so is the decision to leave a step out. One rank cannot show it.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.optim import ZeroRedundancyOptimizer

import descend
from base.sharded import SUMMING, as_whole, sharded, train, whole
from descend.errors import ConflictError, ParameterError


def refused():
    """Shares that nothing marks as such, where each rank would decide by its own."""
    linear = whole()
    for options in ({"clip_norm": 0.5}, {"skip_nonfinite": True}):
        asked = "{}={!r}".format(*next(iter(options.items())))
        with pytest.raises(ConflictError, match=f"{asked} asks .*ZeroRedundancyOptimizer .*leave"):
            ZeroRedundancyOptimizer(linear.parameters(), descend.AdamW, lr=0.1, **options)
    for cls in (descend.LBFGS, descend.Prodigy):
        with pytest.raises(ParameterError, match="ZeroRedundancyOptimizer each rank has a share"):
            ZeroRedundancyOptimizer(linear.parameters(), cls)
    ZeroRedundancyOptimizer(linear.parameters(), descend.LAMB)
    ZeroRedundancyOptimizer(linear.parameters(), descend.Adafactor, clip_value=0.5)
    descend.AdamW(linear.parameters(), clip_norm=0.5)
    for original in (True, False):
        pieces = FullyShardedDataParallel(
            whole(), device_id=torch.device("cpu"), use_orig_params=original
        )
        with pytest.raises(ConflictError, match=r"FullyShardedDataParallel.*model.clip_grad_norm_"):
            descend.SGD(pieces.parameters(), clip_norm=0.5)
        for name in ("Adafactor", "LAMB", "LBFGS", "Muon", "Prodigy", "SOAP"):
            with pytest.raises(ParameterError, match=f"{name}: it needs whole parameters"):
                getattr(descend, name)(pieces.parameters())
        optimizer = descend.AdamW(pieces.parameters(), lr=0.05, clip_value=0.5)
        train(pieces, optimizer, 2)


def main(rank, folder):
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    mesh = init_device_mesh("cpu", (2,))
    models = sharded(mesh), whole()
    for model in models:
        train(model, descend.AdamW(model.parameters(), lr=0.05, clip_norm=0.01), 3)
    mine, expected = (list(model.parameters()) for model in models)
    torch.testing.assert_close([param.full_tensor() for param in mine], expected)

    for name in SUMMING:  # the sums are those of both ranks
        as_whole(name, mesh)

    model = sharded(mesh)
    optimizer = descend.AdamW(model.parameters(), lr=0.05, skip_nonfinite=True)
    model(torch.ones(3, 4)).sum().backward()
    if rank == 0:
        next(model.parameters()).grad.to_local().fill_(float("nan"))
    optimizer.step()
    assert optimizer.skipped_steps == 1
    refused()
    dist.barrier()
    (folder / f"done {rank}").touch()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # gloo may abort while it takes its threads down, after all is done
