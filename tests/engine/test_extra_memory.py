"""A step needs no memory that grows with the parameters."""

import json
import sys

import pytest

from descend.bench.peak_memory import KEEPING_NOTHING
from descend.bench.startup import python_child

MIB = 2**20

# A tensor of 53 MiB, which no allocator keeps at hand (smaller ones it may, and then the peak tells
# nothing).
CHILD = """
import sys
from descend.bench import peak_memory, workloads
large = workloads.Workload("large", "one tensor", ((4096, 3418),))
workloads.WORKLOADS["large"] = large
for case in ("adamw", "adamw-clip"):
    sys.argv[1:] = [case, "large", "1"]
    peak_memory.print_extra_bytes()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_a_step_takes_no_temporaries():
    for printed in python_child(CHILD, **KEEPING_NOTHING).splitlines():
        extra = json.loads(printed)
        if extra["descend"] is None:
            pytest.skip("this system does not let a process forget its peak")
        assert extra["descend"] < MIB
        # torch's default shows that the measurement sees temporaries.
        assert extra["torch default"] > 50 * MIB
