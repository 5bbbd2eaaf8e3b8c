"""The ranks of a distributed training: no Run, but a loader each, and checkpoints of rank 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.utils.data import DataLoader

import descend
from descend.errors import RunError

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


def start(folder, store, death):
    script = Path(__file__).with_name("two_ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder), store, str(death)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return "\n".join(rank.communicate(timeout=200)[1][-3000:] for rank in ranks)


def test_p43_two_ranks_that_died_go_on_with_the_same_bits(tmp_path):
    errors = start(tmp_path, "first", death=8)
    assert (tmp_path / "checkpoint").exists(), errors
    errors = start(tmp_path, "second", death=0)
    assert all((tmp_path / f"done {rank}").exists() for rank in range(2)), errors


@pytest.fixture
def group():
    """A process group of which this is one."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def join(rank, ranks):
        distributed.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())

    yield join
    distributed.destroy_process_group()


def test_a_run_in_one_of_several_ranks_is_refused(group, tmp_path):
    group(1, 4)
    with pytest.raises(RunError, match=r"this is rank 1 of 4: .* use descend.checkpoint.save on r"):
        descend.Run(tmp_path / "run", loader=DataLoader(torch.arange(4)))
    assert not (tmp_path / "run").exists()


def test_a_run_in_the_only_rank_is_none(group, tmp_path):
    group(0, 1)
    run = descend.Run(tmp_path / "run", loader=DataLoader(torch.arange(4)))
    assert len(list(run)) == 4
