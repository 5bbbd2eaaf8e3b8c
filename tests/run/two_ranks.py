"""A distributed training on one of two ranks: `python two_ranks.py RANK FOLDER STORE DEATH`.

Rank 0 saves and all die at the step DEATH; with 0 they go on to the end, and train once more
without an interruption, which has to give the same bits.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import descend
from descend import checkpoint

EPOCHS, EVERY = 3, 3


def train(rank, path, death):
    """What docs/checkpoints.md says of ranks, as a user writes it."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(21, 3), torch.randn(21, 1))
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()))
    optimizer = descend.AdamW(model.parameters(), lr=0.1)
    schedule = descend.Scheduler(optimizer, lr=descend.schedules.cosine(20))
    batches = DataLoader(data, batch_size=2, sampler=DistributedSampler(data))
    loader = descend.ResumableLoader(batches, seed=7)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    if path.exists():
        checkpoint.restore(path, **parts)
    seen = []
    while loader.epoch < EPOCHS:
        for x, y in loader:
            torch.nn.functional.mse_loss(model(x).sum(1, keepdim=True), y).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            seen.append(x)
            step = loader.epoch * len(loader) + loader.position
            if rank == 0 and step % EVERY == 0:
                checkpoint.save(path, {name: part.state_dict() for name, part in parts.items()})
            if step == death:
                dist.barrier()
                os._exit(0)
    return {"parameters": list(model.parameters()), "state": optimizer.state_dict(), "seen": seen}


def main(rank, folder, store, death):
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(folder / store), 2),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    resumed = train(rank, folder / "checkpoint", death)
    whole = train(rank, folder / "none", 0)
    whole["seen"] = whole["seen"][-len(resumed["seen"]) :]
    assert len(resumed["seen"]) == EPOCHS * 6 - 6  # died at 8, saved at 6
    assert checkpoint.digest(resumed) == checkpoint.digest(whole)
    dist.barrier()
    (folder / f"done {rank}").touch()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    os._exit(0)  # gloo may abort while it takes its threads down, after all is done
