"""Files: what is no regular one is neither read nor written to, and none is ever half there."""

import os
import stat
import threading

import pytest
from click.testing import CliRunner

from descend import checkpoint, files
from descend.cli import main
from descend.errors import CheckpointError, DataError, OutputError
from descend.files import IrregularError, open_own, opened, read_whole, replaced
from descend.training.idx import read_images

KINDS = ["a named pipe", "a folder", "a device", "a socket", "a symbolic link"]


def put(path, kind):
    """Something else in a file's place; what must not change by it."""
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
        except PermissionError:
            pytest.skip("may not make a device")
    elif kind == "a socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        victim = path.with_name("victim")
        victim.write_text("mine")
        (os.link if kind == "a hard link" else os.symlink)(victim, path)


def untouched(path, kind):
    assert stat.S_ISLNK(os.lstat(path).st_mode) == (kind == "a symbolic link")
    if kind in ("a symbolic link", "a hard link"):
        assert path.with_name("victim").read_text() == "mine"
        assert path.samefile(path.with_name("victim"))
    else:
        assert not path.is_file()
    assert not [one for one in os.listdir(path.parent) if one.endswith(".tmp")]


@pytest.mark.parametrize("kind", [one for one in KINDS if one != "a symbolic link"])
@pytest.mark.parametrize("linked", [False, True])
def test_only_a_regular_file_is_read(tmp_path, kind, linked):
    path = tmp_path / "x"
    put(path, kind)
    if linked:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    for read in (opened, read_whole):
        with pytest.raises(IrregularError, match=f"{path.name} is {kind}, and no regular file"):
            read(path)
    with pytest.raises(CheckpointError):
        checkpoint.load_torch(path)
    with pytest.raises(DataError):
        read_images(path)


def test_whoever_writes_a_pipe_is_left_waiting(tmp_path):
    """To open it for reading, and to close it again, would kill the writer."""
    os.mkfifo(tmp_path / "x")
    wait = threading.Thread(target=os.open, args=(tmp_path / "x", os.O_WRONLY), daemon=True)
    wait.start()
    with pytest.raises(IrregularError):
        opened(tmp_path / "x")
    wait.join(0.1)
    assert wait.is_alive()
    os.close(os.open(tmp_path / "x", os.O_RDONLY))
    wait.join()


def test_no_more_is_read_than_was_there_and_is_allowed(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_whole(tmp_path / "x", 5) == b"12345"
    with pytest.raises(IrregularError, match="x has 5 bytes, and at most 4 are read"):
        read_whole(tmp_path / "x", 4)
    os.truncate(tmp_path / "x", 1 << 42)
    with pytest.raises(IrregularError, match="at most 1073741824 are read"):
        read_whole(tmp_path / "x")


@pytest.mark.parametrize("kind", [*KINDS, "a hard link"])
def test_only_a_regular_file_is_written_to(tmp_path, kind):
    path = tmp_path / "x"
    put(path, kind)
    for append in (False, True):
        with pytest.raises(IrregularError, match=r"x (is|has) a"):
            open_own(path, append=append)
    with pytest.raises(OutputError, match=r"x: cannot be written: x (is|has) a"), replaced(path):
        pytest.fail("it is refused before anything is written")
    with pytest.raises(CheckpointError, match=r"cannot write .*x: x (is|has) a"):
        checkpoint.save_torch(path, {"epoch": 3})
    untouched(path, kind)


@pytest.mark.parametrize("kind", [*KINDS, "a hard link"])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["plot", "linear(10)", "--lr", "1", "--picture", "{}"], "x.png"),
        (["plot", "linear(10)", "--lr", "1", "--picture", "{}"], "x.svg"),
        (["plot", "linear(10)", "--lr", "1", "--csv", "{}"], "x.csv"),
        (["convert", "c", "{}", "--force"], "x.pth"),
    ],
)
def test_a_command_writes_to_nothing_else(tmp_path, monkeypatch, kind, command, name):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("c", {"epoch": 3})
    path = tmp_path / "there" / name
    path.parent.mkdir()
    put(path, kind)
    result = CliRunner().invoke(main, [one.format(path) for one in command])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("descend: error: ")
    untouched(path, kind)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_that_is_put_there_at_the_last_moment_is_not_followed(tmp_path, monkeypatch, there):
    monkeypatch.setattr(files, "refuse_foreign", lambda path: None)  # it looked a moment ago
    victim = tmp_path / "victim"
    if there:
        victim.write_text("mine")
    (tmp_path / "x").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        open_own(tmp_path / "x")
    assert victim.exists() == there
    monkeypatch.setattr(files, "hidden", lambda path: tmp_path / "x")
    with pytest.raises(OutputError, match="File exists"), replaced(tmp_path / "y"):
        pytest.fail("it is written to a new file alone")
    assert victim.exists() == there


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"
    with replaced(path) as file:
        file.write(b"old")
    with pytest.raises(ZeroDivisionError), replaced(path) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    with replaced(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]
    with pytest.raises(OutputError, match="Not a directory"), replaced(path / "y"):
        pytest.fail("there is no such folder")


def test_a_folder_may_be_a_link(tmp_path):
    """To a larger disk."""
    (tmp_path / "large").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "large")
    checkpoint.save(tmp_path / "runs" / "c", {"epoch": 3})
    assert checkpoint.load(tmp_path / "large" / "c") == {"epoch": 3}
