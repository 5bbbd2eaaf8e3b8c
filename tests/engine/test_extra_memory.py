"""A step needs no memory that grows with the parameters."""

import sys

import pytest

from descend.bench import step_memory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
@pytest.mark.parametrize("case", ["adamw", "adamw-clip"])
def test_a_step_takes_no_temporaries(case):
    extra = {memory.contender: memory.extra_bytes for memory in step_memory(case, "transformer", 1)}
    if extra["descend"] is None:
        pytest.skip("this system does not let a process forget its peak")
    assert extra["descend"] < MIB
    # 12.6 M float32 parameters are 48 MiB; torch's default needs a tensor's worth, which shows
    # that the measurement sees temporaries.
    assert extra["torch default"] > extra["descend"]
