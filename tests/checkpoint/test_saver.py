"""Saving in the background: the state as it was at the call, one save at a time, errors told."""

import math
import os
import threading

import pytest
import torch

from checkpoint.bits import assert_same
from checkpoint.system_calls import kills
from descend.checkpoint import Best, load, series, verify
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.saver import Saver
from descend.errors import CheckpointError

SAVER = "descend.checkpoint.saver"


def state(value):
    return {"w": torch.full((4,), float(value)), "n": value, "list": [value]}


def names(folder):
    return sorted(os.listdir(folder))


@pytest.fixture
def held(monkeypatch):
    """Writes wait until `go` is set; `begun` says that one has begun."""

    class Held:
        go, begun = threading.Event(), threading.Event()
        at_once, most = 0, 0

    write = Saver._write.__globals__["write"]

    def waiting(*args):
        Held.at_once += 1
        Held.most = max(Held.most, Held.at_once)
        Held.begun.set()
        assert Held.go.wait(20)
        write(*args)
        Held.at_once -= 1

    monkeypatch.setattr(f"{SAVER}.write", waiting)
    return Held


def failing(monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(f"{SAVER}.write", fail)


@pytest.mark.parametrize("background", [False, True])
def test_it_saves_the_state_as_it_was_at_the_call(tmp_path, background):
    saver = Saver(tmp_path, keep=3)
    assert saver.save(state(1), step=1, about={"x": 2}, background=background) is None
    assert saver.wait() is None
    assert saver.newest == tmp_path / "step-00000001"
    assert_same(load(saver.newest), state(1))
    assert read_manifest(saver.newest)["about"] == {"x": 2}


def test_p40_what_changes_after_the_call_is_not_saved(tmp_path, held):
    saver = Saver(tmp_path, keep=3)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    own = state(1) | {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    before = torch.utils._pytree.tree_map(
        lambda x: x.detach().clone() if isinstance(x, torch.Tensor) else x, own
    )
    before["list"] = [1]
    assert saver.save(own, step=1, background=True) is None
    assert held.begun.wait(20)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()  # while it is written
    own["w"].fill_(9)
    own["list"].append(9)
    held.go.set()
    assert saver.wait() is None
    loaded = load(saver.newest)
    assert_same(
        {**loaded, "model": dict(loaded["model"])}, before | {"model": dict(before["model"])}
    )


def test_the_call_returns_before_anything_is_written(tmp_path, held):
    saver = Saver(tmp_path, keep=3)
    assert saver.save(state(1), step=1, background=True) is None
    assert names(tmp_path) == []
    assert saver.newest is None
    held.go.set()
    assert saver.wait() is None
    assert names(tmp_path) == ["step-00000001"]


def test_at_most_one_save_is_under_way(tmp_path, held):
    saver = Saver(tmp_path, keep=9)
    assert saver.save(state(1), step=1, background=True) is None
    assert held.begun.wait(20)
    second = threading.Thread(
        target=saver.save, args=(state(2),), kwargs={"step": 2, "background": True}
    )
    second.start()
    second.join(0.2)
    assert second.is_alive()  # it waits for the first
    held.go.set()
    second.join(20)
    for step in range(3, 8):
        assert saver.save(state(step), step=step, background=step % 2 == 0) is None
    assert saver.wait() is None
    assert held.most == 1
    assert [load(path)["n"] for path in series.checkpoints(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_errors_surface_once_at_the_next_call(tmp_path, monkeypatch):
    saver = Saver(tmp_path, keep=3)
    failing(monkeypatch, CheckpointError("no room"))
    assert saver.save(state(1), step=1, background=True) is None
    assert str(saver.save(state(2), step=2, background=True)) == "no room"
    assert str(saver.wait()) == "no room"
    assert saver.wait() is None
    monkeypatch.undo()
    assert saver.save(state(3), step=3, background=True) is None
    assert saver.wait() is None
    assert names(tmp_path) == ["step-00000003"]


def test_an_error_of_the_save_before_is_told_by_one_that_goes_well(tmp_path, monkeypatch):
    saver = Saver(tmp_path, keep=3)
    failing(monkeypatch, CheckpointError("no room"))
    assert saver.save(state(1), step=1, background=True) is None
    saver._thread.join()
    monkeypatch.undo()
    assert str(saver.save(state(2), step=2)) == "no room"
    assert names(tmp_path) == ["step-00000002"]
    assert saver.wait() is None


def test_of_two_errors_both_are_told(tmp_path, monkeypatch):
    saver = Saver(tmp_path, keep=3)
    failing(monkeypatch, CheckpointError("no room"))
    assert saver.save(state(1), step=1, background=True) is None
    error = saver.save({"f": print}, step=2, background=True)
    assert "no room" in str(error)
    assert "cannot save f" in str(error)


def test_a_foreground_save_tells_its_own_error(tmp_path, monkeypatch):
    saver = Saver(tmp_path, keep=3)
    failing(monkeypatch, CheckpointError("no room"))
    assert str(saver.save(state(1), step=1)) == "no room"
    assert saver.newest is None
    assert saver.wait() is None


@pytest.mark.parametrize("background", [False, True])
def test_unforeseen_errors_surface_too(tmp_path, monkeypatch, background):
    saver = Saver(tmp_path, keep=3)
    failing(monkeypatch, MemoryError("none left"))
    error = saver.save(state(1), step=1, background=background) or saver.wait()
    assert isinstance(error, CheckpointError)
    assert "MemoryError: none left" in str(error)
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize("background", [False, True])
def test_a_state_that_cannot_be_saved_is_told_at_once(tmp_path, background):
    saver = Saver(tmp_path, keep=3)
    error = saver.save({"f": print}, step=1, background=background)
    assert isinstance(error, CheckpointError)
    assert "cannot save f" in str(error)
    assert saver.save(state(2), step=2, background=background) is None
    assert saver.wait() is None
    assert names(tmp_path) == ["step-00000002"]


def test_no_memory_for_the_copies_is_told_and_stops_nothing(tmp_path, monkeypatch):
    def refuse(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    saver = Saver(tmp_path, keep=3)
    with monkeypatch.context() as patch:
        patch.setattr("descend.checkpoint.snapshot.Staging.copies", refuse)
        error = saver.save(state(1), step=1, background=True)
    assert isinstance(error, CheckpointError)
    assert "can't allocate memory" in str(error)
    assert saver.save(state(2), step=2, background=True) is None
    assert saver.wait() is None


def test_p40_a_failed_save_leaves_the_older_ones(tmp_path, monkeypatch):
    saver = Saver(tmp_path, keep=1)
    assert saver.save(state(1), step=1) is None

    def no_room(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("descend.checkpoint.folder.write_tensors", no_room)
        for background in (False, True):
            error = saver.save(state(2), step=2, background=background) or saver.wait()
            assert "No space left on device" in str(error)
    assert saver.newest == tmp_path / "step-00000001"
    assert names(tmp_path) == ["step-00000001"]
    assert_same(load(saver.newest), state(1))


def test_an_error_in_what_comes_before_writes_nothing(tmp_path):
    def before():
        raise OSError(5, "Input/output error")

    saver = Saver(tmp_path, keep=1)
    error = saver.save(state(1), step=1, before=before)
    assert "Input/output error" in str(error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("background", [False, True])
def test_what_comes_before_comes_before(tmp_path, background):
    seen = []
    saver = Saver(tmp_path, keep=1)
    saver.save(state(1), step=1, background=background, before=lambda: seen.extend(names(tmp_path)))
    saver.save(state(2), step=2, background=background, before=lambda: seen.extend(names(tmp_path)))
    assert saver.wait() is None
    assert seen == ["step-00000001"]


def test_several_saves_at_one_step_are_several_checkpoints(tmp_path):
    saver = Saver(tmp_path, keep=3)
    for value in range(5):
        assert saver.save(state(value), step=7, background=True) is None
    assert saver.wait() is None
    assert names(tmp_path) == ["step-00000007-3", "step-00000007-4", "step-00000007-5"]
    assert series.load_newest(tmp_path)[1]["n"] == 4
    assert saver.newest == tmp_path / "step-00000007-5"


def test_it_keeps_the_newest_and_the_best(tmp_path):
    saver = Saver(tmp_path, keep=2, best=Best("accuracy", highest=True))
    for step, accuracy in enumerate([0.1, 0.9, 0.5, 0.9, 0.2, 0.3]):
        saver.save(
            state(step), step=step, about={"metrics": {"accuracy": accuracy}}, background=True
        )
    assert saver.wait() is None
    assert [series.step_and_number(path)[0] for path in series.checkpoints(tmp_path)] == [1, 4, 5]


def test_a_metric_that_is_no_number_is_refused_and_counts_for_nothing(tmp_path):
    saver = Saver(tmp_path, keep=1, best=Best("loss"))
    assert saver.save(state(1), step=1, about={"metrics": {"loss": 1.0}}) is None
    error = saver.save(state(2), step=2, about={"metrics": {"loss": math.nan}})
    assert "cannot save about=" in str(error)
    assert saver.save(state(3), step=3, about={"metrics": {"loss": None}}) is None
    assert saver.save(state(4), step=4) is None
    assert names(tmp_path) == ["step-00000001", "step-00000004"]


def test_shapes_may_change_from_save_to_save(tmp_path):
    saver = Saver(tmp_path, keep=9)
    states = [
        {"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"a": torch.ones(4), "b": torch.zeros(2, 2)},
        {"a": torch.ones(4).double()}, {"b": torch.zeros(2), "c": torch.ones(1).bool()},
        {"a": torch.empty(0)}, {}, {"a": torch.ones(3), "tied": torch.ones(3)},
    ]  # fmt: skip
    states[-1]["tied"] = states[-1]["a"]
    for step, one in enumerate(states):
        assert saver.save(one, step=step, background=True) is None
    assert saver.wait() is None
    for path, one in zip(series.checkpoints(tmp_path), states, strict=True):
        assert_same(load(path), one)


def test_memory_got_beforehand_is_used(tmp_path):
    saver = Saver(tmp_path, keep=1)
    saver.prepare(state(0))
    assert saver.wait() is None
    room = saver._staging._room.data_ptr()
    assert saver.save(state(1), step=1, background=True) is None
    assert saver.wait() is None
    assert saver._staging._room.data_ptr() == room
    assert_same(load(saver.newest), state(1))


def test_a_program_that_ends_waits_for_its_save(tmp_path, held):
    saver = Saver(tmp_path, keep=1)
    assert saver.save(state(1), step=1, background=True) is None
    assert not saver._thread.daemon  # which is what Python waits for
    held.go.set()
    assert saver.wait() is None


def test_waiting_for_nothing_is_nothing(tmp_path):
    assert Saver(tmp_path, keep=1).wait() is None


def test_a_folder_that_is_gone_is_told(tmp_path):
    saver = Saver(tmp_path / "gone", keep=1)
    error = saver.save(state(1), step=1)
    assert "cannot write the checkpoint" in str(error)
    assert "No such file" in str(error)


def test_p40_f2_killed_at_any_step_of_a_background_save(tmp_path):
    saver = Saver(tmp_path, keep=3)
    for step in (1, 2):
        assert saver.save(state(step), step=step) is None

    def work():
        assert saver.save(state(3), step=3, background=True) is None
        assert saver.wait() is None

    seen = set()
    for kill in kills(work):
        for path in series.checkpoints(tmp_path)[2:]:
            series.remove(path)
        kill()
        for path in series.checkpoints(tmp_path):
            assert verify(path) == []
        newest = series.load_newest(tmp_path)[1]
        assert_same(newest, state(newest["n"]))
        seen.add(newest["n"])
        series.clean(tmp_path)
    assert seen == {2, 3}
