"""The checkpoints of a run: the newest valid one is used, the last valid one never removed."""

import errno
import os
import resource
import shutil
import threading
import warnings
from pathlib import Path

import pytest
import torch

from checkpoint.bits import assert_same
from checkpoint.system_calls import kills
from descend.checkpoint import Best, load, locate, save, series, tensors_file, verify
from descend.checkpoint.folder import remove
from descend.checkpoint.hashing import hasher
from descend.checkpoint.manifest import manifest_text, read_manifest
from descend.checkpoint.saver import Saver
from descend.checkpoint.storage_key import bytes_of
from descend.errors import CheckpointError, CheckpointWarning, DamagedError


def state(step):
    return {"model": {"w": torch.full((4,), float(step))}, "step": step}


def add(within, *steps, **metrics):
    for step in steps:
        save(series.new_name(within, step), state(step), about={"metrics": metrics})


def damage(path, how="flip"):
    file = path / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if how == "flip":
        file.write_bytes(content)
    elif how == "truncate":
        file.write_bytes(content[:-1])
    elif how == "no manifest":
        (path / "manifest.json").unlink()
    elif how == "no tensors":
        file.unlink()
    elif how == "nothing":
        for one in path.iterdir():
            one.unlink()


DAMAGES = ["flip", "truncate", "no manifest", "no tensors", "nothing"]


def names(within):
    return sorted(os.listdir(within))


def steps(within):
    return [series.step_and_number(path)[0] for path in series.checkpoints(within)]


def test_names_and_their_order(tmp_path):
    add(tmp_path, 9, 10, 99999999, 9, 9, 100000000, 0)
    save(tmp_path / "step-00000009-10", state(9))
    found = [path.name for path in series.checkpoints(tmp_path)]
    assert found == ["step-00000000", "step-00000009", "step-00000009-2", "step-00000009-3",
                     "step-00000009-10", "step-00000010", "step-99999999",
                     "step-100000000"]  # fmt: skip
    assert [series.step_and_number(tmp_path / name) for name in found] == [
        (0, 1), (9, 1), (9, 2), (9, 3), (9, 10), (10, 1), (99999999, 1), (100000000, 1)
    ]  # fmt: skip
    assert series.new_name(tmp_path, 9).name == "step-00000009-11"
    remove(tmp_path / "step-00000009-2")
    assert series.new_name(tmp_path, 9).name == "step-00000009-11"  # after all others of that step


FOREIGN = ["notes", "step-", "step-x", "step-00000001.damaged", "my-step-00000001", "step-1-",
           "STEP-1", ".step-00000009.1-2.tmp", "step--1", "step-1-2-3"]  # fmt: skip


def test_foreign_names_are_no_checkpoints_and_stay(tmp_path):
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    (tmp_path / "step-00000077").touch()  # a file of such a name
    assert series.checkpoints(tmp_path) == []
    add(tmp_path, 1, 2, 3)
    assert steps(tmp_path) == [1, 2, 3]
    series.prune(tmp_path, 1, None)
    assert steps(tmp_path) == [3]
    assert {*FOREIGN, "step-00000077"} <= {*names(tmp_path)}
    assert series.load_newest(tmp_path)[1]["step"] == 3


def test_no_folder_no_checkpoints(tmp_path):
    assert series.checkpoints(tmp_path / "missing") == []
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=r"cannot load a checkpoint of .*: there is none"):
            series.load_newest(path)


def test_the_newest_is_used_without_a_word(tmp_path):
    add(tmp_path, 1, 10, 9)
    path, loaded = series.load_newest(tmp_path)
    assert path == tmp_path / "step-00000010"
    assert_same(loaded, state(10))
    assert_same(series.load_newest(tmp_path, parts=["step"])[1], {"step": 10})


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("set_aside", [False, True])
def test_p41_a_damaged_one_is_passed_over_with_a_warning(tmp_path, how, set_aside):
    add(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002", how)
    with pytest.warns(CheckpointWarning) as said:
        path, loaded = series.load_newest(tmp_path, set_aside=set_aside)
    assert path == tmp_path / "step-00000001"
    assert_same(loaded, state(1))
    (warning,) = said
    assert "step-00000002" in str(warning.message)
    assert f"{path} is used instead" in str(warning.message)
    aside = "step-00000002.damaged"
    assert names(tmp_path) == ["step-00000001", aside if set_aside else "step-00000002"]
    assert (aside in str(warning.message)) == set_aside


def test_p41_many_damaged_ones_are_each_named(tmp_path):
    add(tmp_path, 1, 2, 3, 4)
    for step, how in ((2, "flip"), (3, "truncate"), (4, "no manifest")):
        damage(tmp_path / f"step-0000000{step}", how)
    with pytest.warns(CheckpointWarning) as said:
        assert series.load_newest(tmp_path, set_aside=True)[1]["step"] == 1
    told = [str(warning.message) for warning in said]
    assert [f"step-0000000{step}:" in one for step, one in zip((4, 3, 2), told, strict=True)] == [
        True
    ] * 3
    assert steps(tmp_path) == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series.load_newest(tmp_path)  # told once


def test_damaged_ones_of_one_name_do_not_pile_up(tmp_path):
    add(tmp_path, 1)
    for _ in range(2):
        add(tmp_path, 2)
        damage(tmp_path / "step-00000002")
        with pytest.warns(CheckpointWarning):
            series.load_newest(tmp_path, set_aside=True)
    assert names(tmp_path) == ["step-00000001", "step-00000002.damaged"]


def test_p41_if_none_is_valid_each_is_named_and_none_is_touched(tmp_path):
    add(tmp_path, 1, 2)
    damage(tmp_path / "step-00000001", "truncate")
    damage(tmp_path / "step-00000002")
    with pytest.raises(CheckpointError, match="none of the 2 is valid") as refused:
        series.load_newest(tmp_path, set_aside=True)
    assert "the tensor model.w" in str(refused.value)
    assert "step-00000001: tensors.safetensors has" in str(refused.value)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_folder_that_cannot_be_written_is_still_loaded(tmp_path, monkeypatch):
    add(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002")

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.warns(CheckpointWarning, match="is used instead"):
        assert series.load_newest(tmp_path, set_aside=True)[1]["step"] == 1
    assert steps(tmp_path) == [1, 2]


def test_the_newest_ones_are_kept(tmp_path):
    add(tmp_path, 1, 2, 3, 3, 4)
    series.prune(tmp_path, 3, None)
    assert [path.name for path in series.checkpoints(tmp_path)] == [
        "step-00000003", "step-00000003-2", "step-00000004"
    ]  # fmt: skip
    series.prune(tmp_path, 10, None)
    assert len(names(tmp_path)) == 3


BEST = {
    "lowest": (Best("loss"), [3, 1, 2, 5, 4], 1),
    "highest": (Best("loss", highest=True), [3, 1, 9, 5, 4], 2),
    "the oldest of equals": (Best("loss"), [3, 1, 1, 1, 4], 1),
    "the oldest of equals, highest": (Best("loss", highest=True), [1, 3, 3, 2, 0], 1),
    "some without": (Best("loss"), [None, 5, None, 4, None], 3),
    "all without": (Best("loss"), [None] * 5, None),
    "another metric": (Best("accuracy"), [3, 1, 2, 5, 4], None),
    "the first": (Best("loss"), [0, 1, 2, 5, 4], 0),
    "booleans are no numbers": (Best("loss"), [True, 5, False, 7, 8], 1),
    "words are no numbers": (Best("loss"), ["0", 5, "-9", 7, 8], 1),
    "negative": (Best("loss"), [-1, -3.5, -2, -1e300, 0], 3),
    "zeros": (Best("loss"), [0.0, -0.0, 0, 0, 0], 0),
}


@pytest.mark.parametrize(("best", "values", "winner"), BEST.values(), ids=BEST)
def test_the_best_is_kept_beside_the_newest(tmp_path, best, values, winner):
    for step, value in enumerate(values):
        add(tmp_path, step, **({} if value is None else {"loss": value}))
    paths = series.checkpoints(tmp_path)
    assert best.of(paths) == (None if winner is None else paths[winner])
    series.prune(tmp_path, 1, best)
    assert steps(tmp_path) == sorted({4} if winner is None else {4, winner})


def test_the_best_of_none_is_none():
    assert Best("loss").of([]) is None


def test_a_best_one_whose_manifest_is_damaged_does_not_count(tmp_path):
    add(tmp_path, 1, loss=0.0)
    add(tmp_path, 2, loss=1.0)
    add(tmp_path, 3, loss=2.0)
    damage(tmp_path / "step-00000001", "no manifest")
    series.prune(tmp_path, 1, Best("loss"))
    assert steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("metrics", [3, None, [1], "loss"])
def test_metrics_that_are_none_do_not_count(tmp_path, metrics):
    add(tmp_path, 1, loss=1.0)
    add(tmp_path, 2)
    manifest = read_manifest(tmp_path / "step-00000002")
    manifest["about"]["metrics"] = metrics
    (tmp_path / "step-00000002" / "manifest.json").write_text(manifest_text(manifest))
    assert Best("loss").of(series.checkpoints(tmp_path)) == tmp_path / "step-00000001"


@pytest.mark.parametrize("about", [None, "x", "missing"])
def test_a_manifest_that_says_nothing_does_not_count(tmp_path, about):
    add(tmp_path, 1, loss=1.0)
    add(tmp_path, 2)
    manifest = read_manifest(tmp_path / "step-00000002") | {"about": about}
    if about == "missing":
        del manifest["about"]
    (tmp_path / "step-00000002" / "manifest.json").write_text(manifest_text(manifest))
    assert Best("loss").of(series.checkpoints(tmp_path)) == tmp_path / "step-00000001"


@pytest.mark.parametrize("damaged", [[2], [2, 3], [1, 2, 3]])
def test_p41_the_last_valid_one_is_never_removed(tmp_path, damaged):
    """Only after a save something is removed, and what was just saved is whole."""
    add(tmp_path, 1, 2, 3)
    for step in damaged:
        damage(tmp_path / f"step-0000000{step}")
    saver = Saver(tmp_path, keep=2)
    assert saver.save(state(4), step=4) is None
    assert saver.newest == tmp_path / "step-00000004"
    assert series.load_newest(tmp_path)[1]["step"] == 4


def test_p41_what_was_just_saved_is_kept_though_others_have_later_steps(tmp_path):
    add(tmp_path, 20, 30)
    for path in series.checkpoints(tmp_path):
        damage(path)
    for keep in (1, 2):
        assert Saver(tmp_path, keep=keep).save(state(10), step=10) is None
        with pytest.warns(CheckpointWarning):
            assert series.load_newest(tmp_path)[1]["step"] == 10


def test_a_reader_beside_a_training_that_keeps_one(tmp_path, monkeypatch):
    add(tmp_path, 1)
    real = series.load
    first = []

    def overtaken(path, **options):
        if not first:  # between the listing and the reading a newer one takes its place
            first.append(path)
            Saver(tmp_path, keep=1).save(state(2), step=2)
        return real(path, **options)

    monkeypatch.setattr(series, "load", overtaken)
    path, loaded = series.load_newest(tmp_path)
    assert path == tmp_path / "step-00000002"
    assert_same(loaded, state(2))


def test_readers_beside_a_training_that_prunes(tmp_path):
    add(tmp_path, 1)
    saver, stop, seen = Saver(tmp_path, keep=5), threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(series.load_newest(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(2, 60):
        assert saver.save(state(step), step=step) is None
    stop.set()
    reader.join()
    assert seen
    for path, loaded in seen:
        assert_same(loaded, state(series.step_and_number(path)[0]))
    assert len(names(tmp_path)) == 5


def test_what_a_dead_process_left_is_cleaned_away(tmp_path):
    add(tmp_path, 1)
    for name in (".step-00000002.77-0.tmp", ".step-00000001.77-1.tmp"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "notes.tmp").touch()
    series.clean(tmp_path)
    assert names(tmp_path) == ["notes.tmp", "step-00000001"]
    series.clean(tmp_path / "missing")


def test_a_removal_is_whole_or_not_at_all(tmp_path):
    folder, one = tmp_path / "checkpoints", tmp_path / "one"
    one.mkdir()
    add(one, 1)
    shutil.copytree(one, folder)
    for kill in kills(lambda: remove(folder / "step-00000001")):
        shutil.rmtree(folder)
        shutil.copytree(one, folder)
        kill()
        if series.checkpoints(folder):
            assert verify(folder / "step-00000001") == []
        series.clean(folder)
        assert names(folder) in ([], ["step-00000001"])


def test_what_cannot_be_removed_stays_whole(tmp_path, monkeypatch):
    add(tmp_path, 1, 2)

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="Read-only"):
        remove(tmp_path / "step-00000001")
    series.prune(tmp_path, 1, None)  # which is no reason to stop a training
    assert verify(tmp_path / "step-00000001") == []
    assert steps(tmp_path) == [1, 2]


def test_p40_f2_killed_at_any_step_of_a_save_and_prune(tmp_path):
    folder, three = tmp_path / "checkpoints", tmp_path / "three"
    three.mkdir()
    for step, loss in ((1, 0.0), (2, 2.0), (3, 1.0)):
        add(three, step, loss=loss)

    def work():
        assert Saver(folder, keep=1, best=Best("loss")).save(state(4), step=4) is None

    def before():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(three, folder)

    before()
    seen = set()
    for kill in kills(work):
        before()
        kill()
        newest = series.load_newest(folder)[1]  # a warning would be an error here
        assert_same(newest, state(newest["step"]))
        assert newest["step"] in (3, 4)
        for path in series.checkpoints(folder):
            assert verify(path) == []
        assert 1 in steps(folder)  # the best
        seen.add(tuple(steps(folder)))
        series.clean(folder)
        assert not [name for name in names(folder) if name.startswith(".")]
        work()
        assert len(steps(folder)) == 2
    assert {(1, 2, 3), (1, 2, 3, 4)} <= seen


def test_a_series_is_found_from_wherever(tmp_path, monkeypatch):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    add(folder, 1, 2)
    for path in (tmp_path / "run", folder, folder / "step-00000002",
                 folder / "step-00000002" / "manifest.json"):  # fmt: skip
        assert_same(load(path), state(2))
        assert_same(load(str(path), parts=["step"]), {"step": 2})
        assert locate(path) == folder / "step-00000002"
    monkeypatch.chdir(folder)
    assert_same(load("."), state(2))
    assert_same(load("step-00000001"), state(1))


def test_a_damaged_one_is_passed_over_in_a_run_and_refused_by_name(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    add(folder, 1, 2)
    damage(folder / "step-00000002")
    with pytest.warns(CheckpointWarning, match="is used instead"):
        assert_same(load(tmp_path), state(1))
    assert steps(folder) == [1, 2]  # who only reads changes nothing
    with pytest.raises(CheckpointError, match=r"the tensor model\.w"):
        load(folder / "step-00000002")
    assert locate(tmp_path) == folder / "step-00000002"  # valid or not


def test_nothing_to_load_is_said(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="it is no checkpoint"):
        load(tmp_path / "run")
    for read in (load, locate):
        with pytest.raises(CheckpointError, match="does not exist"):
            read(tmp_path / "missing")


def test_a_replacement_that_was_cut_short_is_located(tmp_path):
    save(tmp_path / "c", state(1))
    (tmp_path / "c").rename(tmp_path / ".c.old")
    assert_same(load(tmp_path / "c"), state(1))
    assert_same(load(locate(tmp_path / "c")), state(1))


def test_a_newer_format_is_no_damage(tmp_path):
    add(tmp_path, 1, 2)
    manifest = read_manifest(tmp_path / "step-00000002")
    manifest["format"] = "descend checkpoint 9"
    (tmp_path / "step-00000002" / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(
        CheckpointError, match="step-00000002: its format is 'descend checkpoint 9'"
    ):
        series.load_newest(tmp_path, set_aside=True)
    assert steps(tmp_path) == [1, 2]


FILES = ["manifest.json", "state.json", "tensors.safetensors"]


def unreadable(monkeypatch, number, path, file):
    """Let the system answer with an error where a file is opened."""
    opening = os.open

    def refuse(name, *args, **options):
        if Path(name) == path / file:
            raise OSError(number, os.strerror(number))
        return opening(name, *args, **options)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("file", FILES)
def test_what_cannot_be_read_just_now_is_no_damage(tmp_path, monkeypatch, file, number):
    """An older one in its place would lose work, for a right that one command gives back."""
    add(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002"
    unreadable(monkeypatch, number, newest, file)
    words = f"{file} cannot be read .{os.strerror(number)}., which is no damage: remove the cause"
    for read in (lambda: series.load_newest(tmp_path, set_aside=True), lambda: verify(newest)):
        with pytest.raises(CheckpointError, match=words) as refused:
            read()
        assert not isinstance(refused.value, DamagedError)
    monkeypatch.undo()
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert series.load_newest(tmp_path)[1]["step"] == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADMSG, errno.EUCLEAN])
@pytest.mark.parametrize("file", FILES)
def test_p41_a_disk_that_fails_is_damage(tmp_path, monkeypatch, file, number):
    add(tmp_path, 1, 2)
    unreadable(monkeypatch, number, tmp_path / "step-00000002", file)
    with pytest.warns(CheckpointWarning, match=os.strerror(number)):
        assert series.load_newest(tmp_path)[1]["step"] == 1
    with pytest.raises(DamagedError, match=f"{file} cannot be read"):
        load(tmp_path / "step-00000002")


def test_too_many_open_files_are_no_damage(tmp_path):
    add(tmp_path, 1, 2)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot look into .*: Too many open files"):
            series.load_newest(tmp_path, set_aside=True)
        with pytest.raises(CheckpointError, match=r"Too many open files.* is no damage"):
            load(tmp_path / "step-00000002")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert series.load_newest(tmp_path)[1]["step"] == 2


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    add(tmp_path, 1, 2)
    room = tensors_file._room
    monkeypatch.setattr(tensors_file, "_room", lambda count: room(1 << 60))
    words = "model.w in tensors.safetensors cannot be read .there is no memory for its \\d+ bytes"
    with pytest.raises(CheckpointError, match=words) as refused:
        series.load_newest(tmp_path, set_aside=True)
    assert not isinstance(refused.value, DamagedError)
    assert steps(tmp_path) == [1, 2]


def test_a_dtype_that_this_torch_has_not_is_no_damage(tmp_path, monkeypatch):
    add(tmp_path, 1)
    value = torch.ones(2, dtype=torch.complex64)  # which is stored as its bytes
    save(tmp_path / "step-00000002", {"model": {"w": value}, "step": 2})
    manifest = read_manifest(tmp_path / "step-00000002")
    (kind,) = manifest["tensors"].values()
    kind["dtype"] = "float3"
    hashing = hasher("torch.float3", (2,))
    hashing.update(bytes_of(value).data)
    kind["hash"] = hashing.hexdigest()
    (tmp_path / "step-00000002" / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(CheckpointError, match="a tensor of dtype float3: this torch has none"):
        series.load_newest(tmp_path, set_aside=True)
    assert steps(tmp_path) == [1, 2]
