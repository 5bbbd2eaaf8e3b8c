"""Compiled kernels on disk: found again, and never trusted blindly."""

import os
import stat

import pytest

from children import python
from descend.engine import cache
from descend.errors import CacheWarning

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
    done = python("-W", "error", "-c", STEP, environment=environment)
    assert not done.stderr
    compiled, backend, numba, value = done.stdout.split()
    return int(compiled), backend, numba == "True", value


def test_second_process_compiles_nothing_and_damaged_entries_are_compiled_anew(tmp_path):
    first = step(DESCEND_CACHE=str(tmp_path))
    second = step(DESCEND_CACHE=str(tmp_path))
    assert first[:3] == (3, "cpu", True)  # the step, the checks of tensors and of their memory
    assert second == (0, "cpu", False, first[3])  # and it needs no Numba
    for entry in tmp_path.iterdir():
        data = bytearray(entry.read_bytes())
        data[len(data) // 2] ^= 1
        entry.write_bytes(data)
    assert step(DESCEND_CACHE=str(tmp_path)) == first
    assert step(DESCEND_CACHE=str(tmp_path))[0] == 0


def cannot_be_kept(place):
    return (
        f"compiled kernels cannot be kept ({place}: Not a directory), so that every process "
        "compiles them again; let DESCEND_CACHE name a folder of yours that can be written"
    )


def test_missing_home_only_costs_the_cache_and_is_told_of_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    home = tmp_path / "file" / "home"
    environment = {"HOME": str(home), "XDG_CACHE_HOME": "", "DESCEND_CACHE": ""}
    done = python("-c", STEP.replace("AdamW", "SGD") + STEP, environment=environment)
    first, second = (line.split() for line in done.stdout.splitlines())
    assert (first[:2], second[:2]) == (["3", "cpu"], ["4", "cpu"])
    (told,) = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert told.endswith("CacheWarning: " + cannot_be_kept(home / ".cache" / "descend"))


def test_a_named_folder_that_cannot_be_made_is_told_of(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    place = tmp_path / "file" / "cache"
    monkeypatch.setenv("DESCEND_CACHE", str(place))
    monkeypatch.setattr(cache, "_told", [])
    with pytest.warns(CacheWarning) as told:
        cache.write("key", b"machine code")
    assert [str(one.message) for one in told] == [cannot_be_kept(place)]


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
    with pytest.raises(PermissionError, match="belongs to somebody else, or others may write"):
        cache.folder()
    assert cache.read("key") is None
    monkeypatch.setattr(cache, "_told", [])
    with pytest.warns(CacheWarning, match="belongs to somebody else, or others may write to it"):
        cache.write("other", b"machine code")
    cache.write("other", b"machine code")  # and says nothing more
    assert not (tmp_path / "other.kernel").exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_entry_that_others_may_write_is_not_used(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))
    cache.write("key", b"machine code")
    (tmp_path / "key.kernel").chmod(mode)
    assert cache.read("key") is None
    cache.write("key", b"machine code")
    assert cache.read("key") == b"machine code"
    (tmp_path / "key.kernel").chmod(0o644)
    assert cache.read("key") == b"machine code"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_an_entry_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))
    cache.write("key", b"machine code")
    facts = os.fstat

    def of_another(handle):
        return os.stat_result([*facts(handle)[:4], os.getuid() + 1, *facts(handle)[5:10]])

    monkeypatch.setattr(os, "fstat", of_another)
    assert cache.read("key") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_an_entry_that_is_no_file_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path / "cache"))
    cache.write("key", b"machine code")
    (tmp_path / "cache" / "key.kernel").rename(tmp_path / "elsewhere")
    (tmp_path / "cache" / "key.kernel").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "cache" / "pipe.kernel")
    (tmp_path / "cache" / "folder.kernel").mkdir()
    for key in ("key", "pipe", "folder"):
        assert cache.read(key) is None


def test_new_folder_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path / "new"))
    folder = cache.folder()
    if hasattr(os, "getuid"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(cache, "_told", [])
    with pytest.warns(CacheWarning, match=r"cannot be kept \(disk full\), so that every process"):
        cache.write("key", b"machine code")
    assert list(tmp_path.iterdir()) == []
