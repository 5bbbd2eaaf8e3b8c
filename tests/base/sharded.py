"""Train sharded parameters (FSDP's DTensors) beside torch: `python sharded.py NAME...`.

A process of its own, for its process group; one rank, so that it needs no other.
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict as checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer

from descend import Optimizer
from descend.optimizers import CATALOGUE

SUMMING = ("lamb", "mars", "prodigy", "stableadamw")
"""Optimizers whose rules measure before they update."""


def whole():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def sharded(mesh):
    return fully_shard(whole(), mesh=mesh)


def train(model, optimizer, steps):
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((3, 4), step + 1.0)).square().mean().backward()
        optimizer.step()


def through_a_checkpoint(make, mesh):
    """Three steps, the state through torch.distributed.checkpoint, three more."""
    model = sharded(mesh)
    optimizer = make(model.parameters(), lr=0.05)
    if isinstance(optimizer, Optimizer):  # in torch's the look counts as a step
        checkpoint.get_optimizer_state_dict(model, optimizer)
    train(model, optimizer, 3)
    other_model = sharded(mesh)
    other_model.load_state_dict(model.state_dict())
    other = make(other_model.parameters(), lr=0.05)
    saved = checkpoint.get_optimizer_state_dict(model, optimizer)
    checkpoint.set_optimizer_state_dict(other_model, other, saved)
    train(other_model, other, 3)
    return [param.full_tensor().detach() for param in other_model.parameters()]


def in_shares(make):
    """Each rank keeps the state of its share of the parameters."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=make, lr=0.05)
    train(model, optimizer, 3)
    optimizer.consolidate_state_dict(0)
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 1)
    return [param.detach() for param in model.parameters()]


def as_whole(name, mesh, **options):
    """Sharded and whole: torch has none, or one without DTensors (Adafactor) or biases (Muon)."""
    models = sharded(mesh), whole()
    for model in models:
        train(model, CATALOGUE[name](model.parameters(), lr=0.05, **options), 3)
    mine, expected = (list(model.parameters()) for model in models)
    full = [param.full_tensor() for param in mine]
    # Muon's products are in bfloat16, in any order.
    close = {"rtol": 1e-2, "atol": 1e-3} if name == "muon" else {}
    torch.testing.assert_close(full, expected, **close)


def main(names):
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder, "store")), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        mesh = init_device_mesh("cpu", (1,))
        for name in names:
            mine, theirs = CATALOGUE[name], getattr(torch.optim, CATALOGUE[name].__name__)
            torch.testing.assert_close(
                through_a_checkpoint(mine, mesh), through_a_checkpoint(theirs, mesh)
            )
            torch.testing.assert_close(in_shares(mine), in_shares(theirs))
            print(name)
        as_whole("muon", mesh)
        as_whole("adafactor", mesh)
        # A gradient of rank 1 is roundings in most of its basis, which a tiny root would blow up.
        as_whole("soap", mesh, eps=1e-3)
        as_whole("adamw", mesh, clip_norm=0.1)
        for name in SUMMING:
            as_whole(name, mesh)
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
