"""From a function that Numba can compile to machine code that stays.

Numba compiles a C function to LLVM's intermediate form; llvmlite turns that into an object file
for this processor, loads it, and keeps it in the cache folder. A later process loads the object
and imports no Numba: a few milliseconds instead of half a second. Nothing is
pickled. What was just compiled and what was cached are the same bytes, so they give the same
results.
"""

import ctypes
import hashlib
import importlib.resources
import importlib.util
import os
import threading
from collections.abc import Callable
from functools import cache as remember
from importlib.metadata import version
from typing import Any

from descend.engine import cache

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A child forked while another thread compiles would wait for that thread for ever.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
_addresses: dict[str, int] = {}
_engines: list[Any] = []
"""The owners of the loaded machine code; they must live as long as the process."""

cold = 0
"""How many kernels this process had to compile, for `descend bench` and the tests."""


@remember
def available() -> bool:
    """Whether Numba and llvmlite are installed (they are not imported to find out)."""
    return all(importlib.util.find_spec(name) for name in ("numba", "llvmlite"))


def address_of(key: str, build: Callable[[], Any]) -> int:
    """The address of a compiled C function.

    Args:
        key: everything that the machine code depends on; this module adds the processor and the
            compiler's versions.
        build: makes the Numba `cfunc`; called only if no process has compiled it yet.

    Returns:
        The address, to be called through ctypes.
    """
    with _lock:
        if key not in _addresses:
            _addresses[key] = _load(_object(key, build))
        return _addresses[key]


def _object(key: str, build: Callable[[], Any]) -> bytes:
    global cold  # noqa: PLW0603 - a counter
    name = hashlib.sha256(f"{_environment()}\n{key}".encode()).hexdigest()
    stored = cache.read(name)
    if stored is None:
        compiled = build()
        import llvmlite.binding as llvm

        module = llvm.parse_assembly(compiled.inspect_llvm())
        symbol = compiled.native_name.encode()
        machine_code = _machine().emit_object(module)
        stored = len(symbol).to_bytes(4, "little") + symbol + machine_code
        cold += 1
        cache.write(name, stored)
    return stored


def _load(stored: bytes) -> int:
    import llvmlite.binding as llvm

    end = 4 + int.from_bytes(stored[:4], "little")
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(stored[end:]))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(stored[4:end].decode()))


@remember
def _host() -> tuple[str, str]:
    import llvmlite.binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@remember
def _environment() -> str:
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("NUMBA_"))
    return "\n".join((version("numba"), version("llvmlite"), *_host(), *settings))


@remember
def text_of(*files: str) -> str:
    """The text of files of the engine: what machine code made by them depends on."""
    package = importlib.resources.files("descend.engine")
    return "".join((package / file).read_text(encoding="utf-8") for file in files)


def _machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = _host()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="jitdefault", jit=True
    )


def has_feature(name: str) -> bool:
    """Whether the processor has an instruction-set extension, as LLVM names it."""
    return f"+{name}" in _host()[1].split(",")


def releasing(address: int) -> Callable[[int], None]:
    """The compiled function, called without the interpreter lock."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)


def holding(address: int) -> Callable[[int], int]:
    """The compiled function, called with the interpreter lock held."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)
