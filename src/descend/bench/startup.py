"""The time that a process pays once: for importing, and for the first step, cache empty or filled.

Each figure comes from a process of its own, the way a user meets it.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from descend.bench.timing import Spread, spread
from descend.errors import DescendError

CACHE_VARIABLE = "DESCEND_CACHE"
"""The environment variable that says where descend keeps its compiled kernels."""

COLD_RUNS = 3
"""How many processes start with an empty cache."""

CACHED_RUNS = 5
"""How many processes start with a filled cache."""

_CHILD = """
import json, time
start = time.perf_counter()
import torch
torch_imported = time.perf_counter()
import descend, descend.optimizers  # descend alone imports nothing
descend_imported = time.perf_counter()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
model(torch.ones(8, 64)).square().mean().backward()
before = time.perf_counter()
from descend.optimizers import CATALOGUE
CATALOGUE["adamw"](model.parameters()).step()
after = time.perf_counter()
print(json.dumps({
    "import_torch": torch_imported - start,
    "import_descend": descend_imported - torch_imported,
    "first_step": after - before,
}))
"""


@dataclass(frozen=True)
class StartUp:
    """The cost of starting, in seconds.

    Args:
        import_torch: `import torch` in a new process.
        import_descend: `import descend` and its optimizers after it: what descend adds.
        first_step_cold: Finding, building and stepping AdamW for the first time, with an empty
            cache: importing Numba and compiling included.
        first_step_cached: The same in a later process, with the cache filled.
    """

    import_torch: Spread
    import_descend: Spread
    first_step_cold: Spread
    first_step_cached: Spread


def start_up(cold_runs: int = COLD_RUNS, cached_runs: int = CACHED_RUNS) -> StartUp:
    """Measure imports and first steps in new processes, each cold one with a new empty cache.

    Args:
        cold_runs: Processes with an empty cache, at least 1.
        cached_runs: Processes with the cache that the last cold one filled, at least 1.

    Returns:
        The spreads over the processes; the imports over all of them.

    Raises:
        DescendError: A process failed; the message holds its last words.
    """
    cold, cached = [], []
    for index in range(cold_runs):
        with tempfile.TemporaryDirectory(prefix="descend-bench-") as folder:
            cold.append(_start(folder))
            if index == cold_runs - 1:
                cached = [_start(folder) for _ in range(cached_runs)]
    return StartUp(
        import_torch=spread([times["import_torch"] for times in cold + cached]),
        import_descend=spread([times["import_descend"] for times in cold + cached]),
        first_step_cold=spread([times["first_step"] for times in cold]),
        first_step_cached=spread([times["first_step"] for times in cached]),
    )


def python_child(source: str, *arguments: str, **environment: str) -> str:
    """Run Python source in a new process and return what it printed.

    Args:
        source: The program.
        arguments: What it finds in `sys.argv[1:]`.
        environment: Variables added to this process's environment.

    Raises:
        DescendError: The process failed; the message holds its last words.
    """
    done = subprocess.run(  # noqa: S603 - this interpreter, our own source
        [sys.executable, "-c", source, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it wrote nothing"]
        raise DescendError(
            f"bench: a measuring process ended with status {done.returncode}: {words[-1]}"
        )
    return done.stdout


def _start(folder: str) -> dict[str, float]:
    # Last line only: a library may print something of its own first.
    printed = python_child(_CHILD, **{CACHE_VARIABLE: folder}).splitlines()[-1]
    times: dict[str, float] = json.loads(printed)
    return times
