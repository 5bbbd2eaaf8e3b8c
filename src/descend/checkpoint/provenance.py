"""The origin of a checkpoint: all that can change the bits of a run that goes on from it."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from descend import __version__
from descend.format import dtype_name


def provenance() -> dict[str, Any]:
    """Versions, machine, devices, threads and determinism flags of this process, by name.

    Returns:
        Names and plain values, for a checkpoint's manifest.

    Example:
        >>> provenance()["torch"] == torch.__version__
        True
    """
    cuda = torch.cuda.is_available()
    return {
        "descend": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn deterministic": torch.backends.cudnn.deterministic,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "default dtype": dtype_name(torch.get_default_dtype()),
        "cublas workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List what differs between two provenances, each in words: "threads 2 there, 8 here".

    Versions of descend do not count: its results are the same from one to the next.

    Example:
        >>> differences({"threads": 2, "torch": "2.13"}, {"threads": 8, "torch": "2.13"})
        ['threads 2 there, 8 here']
    """
    return [
        f"{name} {saved.get(name)} there, {here.get(name)} here"
        for name in sorted({*saved, *here} - {"descend"})
        if saved.get(name) != here.get(name)
    ]


@cache
def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere as Python does."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
