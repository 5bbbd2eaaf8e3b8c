"""Compiled kernels on disk: found again, and never trusted blindly."""

import os
import stat
import subprocess
import sys

import pytest

from descend.engine import cache

STEP = """
import torch, descend
from descend.engine import native
weight = torch.nn.Parameter(torch.ones(40))
weight.grad = torch.ones(40)
optimizer = descend.AdamW([weight], lr=0.1)
optimizer.step()
import sys
print(native.cold, optimizer.explain()[0]["backend"], "numba" in sys.modules, weight[0].item())
"""


def step(**environment):
    """One step in a process of its own: kernels compiled, backend, Numba imported?, result."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STEP],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled, backend, numba, value = done.stdout.split()
    return int(compiled), backend, numba == "True", value


def test_second_process_compiles_nothing_and_needs_no_numba(tmp_path):
    first = step(DESCEND_CACHE=str(tmp_path))
    second = step(DESCEND_CACHE=str(tmp_path))
    assert first[:3] == (2, "cpu", True)  # the step and the check of the tensors
    assert second == (0, "cpu", False, first[3])


def test_damaged_entries_are_compiled_anew(tmp_path):
    first = step(DESCEND_CACHE=str(tmp_path))
    for entry in tmp_path.iterdir():
        data = bytearray(entry.read_bytes())
        data[len(data) // 2] ^= 1
        entry.write_bytes(data)
    assert step(DESCEND_CACHE=str(tmp_path)) == first
    assert step(DESCEND_CACHE=str(tmp_path))[0] == 0


def test_missing_home_only_costs_the_cache(tmp_path):
    nowhere = str(tmp_path / "file" / "home")
    (tmp_path / "file").write_text("not a folder")
    environment = {"HOME": nowhere, "XDG_CACHE_HOME": "", "DESCEND_CACHE": ""}
    assert step(**environment)[:2] == (2, "cpu")


def test_entries_round_trip(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path / "made" / "here"))
    assert cache.read("key") is None
    cache.write("key", b"machine code")
    assert cache.read("key") == b"machine code"
    assert [path.name for path in (tmp_path / "made" / "here").iterdir()] == ["key.kernel"]


@pytest.mark.parametrize("length", [0, 1, len(cache.MAGIC), len(cache.MAGIC) + 31, -1])
def test_truncated_entries_are_refused(tmp_path, monkeypatch, length):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))
    cache.write("key", b"machine code")
    path = tmp_path / "key.kernel"
    path.write_bytes(path.read_bytes()[:length])
    assert cache.read("key") is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))
    cache.write("key", b"machine code")
    tmp_path.chmod(0o777)
    assert cache.folder() is None
    assert cache.read("key") is None
    cache.write("other", b"machine code")
    assert not (tmp_path / "other.kernel").exists()


def test_new_folder_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path / "new"))
    folder = cache.folder()
    assert folder is not None
    if hasattr(os, "getuid"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    cache.write("key", b"machine code")
    assert list(tmp_path.iterdir()) == []
