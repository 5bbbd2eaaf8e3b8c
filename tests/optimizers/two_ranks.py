"""Clip sharded gradients on one of two ranks: `python two_ranks.py RANK FOLDER`.

The norm is that of all ranks, and so is the decision to leave a step out. One rank cannot show it.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import descend
from optimizers.sharded import sharded, train, whole


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

    model = sharded(mesh)
    optimizer = descend.AdamW(model.parameters(), lr=0.05, skip_nonfinite=True)
    model(torch.ones(3, 4)).sum().backward()
    if rank == 0:
        next(model.parameters()).grad.to_local().fill_(float("nan"))
    optimizer.step()
    assert optimizer.skipped_steps == 1
    dist.barrier()
    (folder / f"done {rank}").touch()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # gloo may abort while it takes its threads down, after all is done
