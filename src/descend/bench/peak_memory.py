"""The extra memory of a step: how far the process grows above its size between steps.

A step that computes with whole tensors needs room for intermediate ones; a step in one pass does
not. Linux tells: `VmHWM`, the largest resident size so far, can be set back to the current size. It
counts in batches of pages, so less than about half a mebibyte may show as nothing.
"""

import gc
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from descend.bench.startup import python_child

_PROCESS = Path("/proc/self")

KEEPING_NOTHING = {
    "MALLOC_MMAP_THRESHOLD_": "4096",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
}
"""Let glibc get whatever fills a page from the system and give it back once it is freed. Otherwise
it may have room for temporaries that it kept from the steps before, and the process does not grow.
"""


@dataclass(frozen=True)
class StepMemory:
    """The extra memory of one step of one contender.

    Args:
        case: The optimizer, by its case's name.
        workload: The model, by name.
        contender: Which implementation.
        extra_bytes: How far the process grew during the step at most; None where the system does
            not tell.
    """

    case: str
    workload: str
    contender: str
    extra_bytes: int | None


def step_memory(case: str, workload: str, threads: int) -> list[StepMemory]:
    """Measure the extra memory of a step for every contender of a case, in a new process.

    Args:
        case: What `find_case` takes.
        workload: A name from `descend.bench.WORKLOADS`.
        threads: How many threads the steps use.

    Raises:
        DescendError: The process failed; the message holds its last words.
    """
    source = "from descend.bench.peak_memory import print_extra_bytes; print_extra_bytes()"
    printed = python_child(source, case, workload, str(threads), **KEEPING_NOTHING)
    extra: dict[str, int | None] = json.loads(printed.splitlines()[-1])
    return [StepMemory(case, workload, name, amount) for name, amount in extra.items()]


def print_extra_bytes() -> None:
    """Measure the case, workload and threads in `sys.argv` here and print one JSON object.

    The child's half of `step_memory`: to be called in a process of its own.
    """
    import torch

    from descend.bench.contenders import contenders, find_case
    from descend.bench.workloads import WORKLOADS, parameters

    name, workload, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    case = find_case(name)
    extra: dict[str, int | None] = {}
    for contender in contenders(case):
        model = parameters(case.of(WORKLOADS[workload]))
        optimizer = contender.make(model)
        step = contender.step_of(optimizer, model)
        for _ in range(2):
            step()
        if _forget_peak():
            before = _status_bytes("VmRSS")
            step()
            extra[contender.name] = max(0, _status_bytes("VmHWM") - before)
        else:
            extra[contender.name] = None
        del model, optimizer, step
        gc.collect()
    print(json.dumps(extra))


def _forget_peak() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text("5")
        return _status_bytes("VmHWM") > 0
    except (OSError, ValueError):
        return False


def _status_bytes(key: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {key} in {_PROCESS / 'status'}")
