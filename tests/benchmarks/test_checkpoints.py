"""The measurement of checkpoints: that every way saves all of it, what is timed, what is told."""

import dataclasses
import json
import os
import threading
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import checkpoint_round
import checkpoint_ways
import checkpoints
import room
from checkpoint_round import BLOCKING, FIRST, LATER, Round
from checkpoint_state import named_tensors, state_of
from checkpoint_ways import Way, ways
from checkpoints import (
    Setting,
    checkpoint_entries,
    checkpoint_targets,
    checkpoint_times,
    run_checkpoints,
    run_save_times,
)
from children import python
from descend import checkpoint
from descend.bench import Measurement, machine
from descend.errors import DescendError, OutputError

NAMES = [way.name for way in ways()]


@pytest.fixture(autouse=True)
def without_what_takes_long(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)
    monkeypatch.setattr(os, "sync", lambda: None)


def flat(state):
    return dict(named_tensors(state))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_way_loads_is_what_was_saved(name, tmp_path):
    (way,) = [way for way in ways() if way.name == name]
    writer = next(one for one in ways() if one.file == way.file)
    state = state_of(1000)
    writer.save(state, tmp_path / way.file)
    into = deepcopy(state)
    for tensor in flat(into).values():
        tensor.zero_()
    came = way.load(tmp_path / way.file, into if way.fills else None)
    if name == "safetensors":  # tensors alone, by their names
        came = came.items()
    else:
        assert came["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
        came = flat(came).items()
    assert checkpoint.diff(dict(came), flat(state)) == []


def test_all_that_was_asked_for_takes_part():
    assert NAMES == ["descend", "torch", "torch, mmap", "safetensors", "torch distributed"]


@pytest.mark.parametrize(
    ("parameters", "tensors"), [(1, 1), (999_999, 1), (9_999_999, 2), (14_000_000, 4)]
)
def test_the_state_has_that_many_parameters_and_adamws_state(parameters, tensors, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, *_: tensor)  # which takes long
    state = state_of(parameters)
    sizes = [tensor.numel() for tensor in state["model"].values()]
    assert (sum(sizes), len(sizes)) == (parameters, tensors)
    assert {tensor.dtype for tensor in flat(state).values()} == {torch.float32}
    found = flat(state).values()
    assert len(found) == 4 * tensors
    assert sum(tensor.nbytes for tensor in found) == 12 * parameters + 4 * tensors
    model = [torch.nn.Parameter(torch.zeros(size)) for size in sizes[:1]]
    if tensors == 1:
        torch.optim.AdamW(model).load_state_dict(state["optimizer"])


class Clockwork:
    """A clock that goes on by what a way costs, and who was called."""

    def __init__(self):
        self.now = 0
        self.calls = []

    def __call__(self):
        return self.now

    def way(self, name, save, load, *, file=None, fills=False):
        def saving(state, path):
            path.write_bytes(b"x" * save)
            self.calls.append(("save", name))
            self.now += save

        def loading(path, into):
            assert path.read_bytes()
            assert (into is not None) is fills
            self.calls.append(("load", name))
            self.now += load

        return Way(name, saving if save else None, loading, file or name, fills)


@pytest.fixture
def clockwork(monkeypatch):
    clock = Clockwork()
    found = [
        clock.way("descend", 300, 30, fills=True),
        clock.way("torch", 200, 60),
        clock.way("torch, mmap", 0, 6, file="torch"),
    ]
    monkeypatch.setattr(checkpoints, "ways", lambda: found)
    held = {BLOCKING: 8.0, FIRST: 2.0, LATER: 1.0}
    monkeypatch.setattr(checkpoint_round, "run_saves", lambda *_: (held, held))
    return clock


def test_times_are_paired_by_round_and_over_torchs(clockwork, tmp_path):
    found = run_checkpoints(1000, rounds=3, folder=tmp_path, clock=clockwork)
    ours, torchs, mapped = checkpoint_times(found)
    assert (ours.way, torchs.way, mapped.way) == ("descend", "torch", "torch, mmap")
    assert ours.save.median == pytest.approx(300e-9)
    assert ours.save_ratio.median == pytest.approx(1.5)
    assert ours.load_ratio.median == pytest.approx(0.5)
    assert (torchs.save_ratio.median, torchs.load_ratio.median) == (1, 1)
    assert (mapped.save, mapped.save_ratio, mapped.bytes) == (None, None, None)
    assert mapped.load_ratio.median == pytest.approx(0.1)
    assert (ours.bytes, torchs.bytes) == (300, 200)
    (setting,) = found.of(Setting)
    assert (found.rounds, setting.parameters, setting.tensors, setting.state_bytes) == (
        3, 1000, 4, 12_004,
    )  # fmt: skip
    assert setting.folder == str(tmp_path)
    assert [one.ratio.median for one in run_save_times(found)] == [1, 0.25, 0.125]


def test_the_ways_take_turns_in_every_round(clockwork, tmp_path):
    said = []
    run_checkpoints(9, rounds=2, folder=tmp_path, clock=clockwork, progress=said.append)
    assert said == ["a small state", "round 1", "round 2"]
    calls = clockwork.calls[5:]  # after those with a small state
    assert [name for kind, name in calls if kind == "save"] == [
        "descend", "torch", "torch", "descend",
    ]  # fmt: skip
    assert [kind for kind, _ in calls] == (["save"] * 2 + ["load"] * 3) * 2
    orders = [[name for kind, name in calls[start : start + 5]][2:] for start in (0, 5)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_each_turn_gets_new_memory(clockwork, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(checkpoint_round, "_give_memory_back", lambda: given.append(clockwork.now))
    run_checkpoints(9, rounds=1, folder=tmp_path, clock=clockwork)
    assert len(given) == len(clockwork.calls) == 10  # with those of a small state
    monkeypatch.undo()
    checkpoint_round._give_memory_back()


def test_the_garbage_collector_is_as_it_was(clockwork, tmp_path):
    import gc

    run_checkpoints(9, rounds=1, folder=tmp_path, clock=clockwork)
    assert gc.isenabled()


def slow_writes(monkeypatch, *, until=None, seconds=0.2):
    """Writes of a run that last, so that calls that return before their end can be told."""
    from descend.checkpoint import saver

    write = saver.write

    def slow(path, snapshot, about):
        time.sleep(seconds)
        if until is not None:
            until()
        write(path, snapshot, about)

    monkeypatch.setattr(saver, "write", slow)


def test_a_background_save_is_timed_until_it_returns_and_until_it_is_done(monkeypatch, tmp_path):
    slow_writes(monkeypatch)
    blocked, done = checkpoint_round.run_saves(state_of(9), tmp_path / "run", time.perf_counter_ns)
    assert list(blocked) == list(done) == [BLOCKING, FIRST, LATER]
    assert blocked[BLOCKING] >= 0.2
    assert min(done.values()) >= 0.2
    assert max(blocked[FIRST], blocked[LATER]) < 0.2
    assert not (tmp_path / "run").exists()


def test_memory_is_reserved_before_the_first_background_save_and_untimed(monkeypatch, tmp_path):
    from descend.checkpoint.saver import Saver

    calls = []
    for name in ("prepare", "wait", "save"):
        method = getattr(Saver, name)

        def noting(self, *args, _method=method, _name=name, **options):
            calls.append((_name, options.get("background")))
            return _method(self, *args, **options)

        monkeypatch.setattr(Saver, name, noting)
    monkeypatch.setattr(os, "sync", lambda: calls.append(("sync", None)))
    checkpoint_round.run_saves(state_of(9), tmp_path / "run", time.perf_counter_ns)
    shown = [name if way is None else f"{name} {way}" for name, way in calls if name != "wait"]
    assert shown == ["sync", "save False", "prepare", "sync", "save True", "sync", "save True"]


def test_what_a_run_cannot_save_ends_the_measurement(monkeypatch, tmp_path):
    def full():
        raise OSError("no space left on device")

    slow_writes(monkeypatch, until=full, seconds=0)
    with pytest.raises(DescendError, match=r"a blocking save failed.*no space left"):
        checkpoint_round.run_saves(state_of(9), tmp_path / "run", time.perf_counter_ns)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind(tmp_path):
    run_checkpoints(9, rounds=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["descend", "torch", "torch distributed"])
def test_nothing_is_left_behind_by_a_failure_which_is_named(name, tmp_path, monkeypatch):
    def full(state, path):
        path.mkdir()
        (path / "half").touch()
        raise RuntimeError("no room\nat all")

    found = [dataclasses.replace(way, save=full) if way.name == name else way for way in ways()]
    monkeypatch.setattr(checkpoints, "ways", lambda: found)
    with pytest.raises(DescendError, match=f"{name} failed: no room at all"):
        run_checkpoints(9, rounds=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_without_words_is_named_too(tmp_path, monkeypatch):
    def full(state, path):
        raise MemoryError

    monkeypatch.setattr(checkpoints, "ways", lambda: [Way("mine", full, lambda *_: None, "mine")])
    with pytest.raises(DescendError, match="mine failed: MemoryError"):
        run_checkpoints(9, rounds=1, folder=tmp_path)


def test_ctrl_c_waits_for_the_save_under_way_and_leaves_nothing_behind(tmp_path, monkeypatch):
    ended = threading.Event()
    slow_writes(monkeypatch, until=ended.set)
    prepare = checkpoint_round.Saver.save

    def interrupted(self, *args, **options):
        prepare(self, *args, **options)
        if options["background"]:
            ended.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_round.Saver, "save", interrupted)
    found = run_checkpoints(9, rounds=1, folder=tmp_path)
    assert (found.interrupted, found.rounds, found.found) == (True, 0, ())
    assert ended.is_set()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_reaches_through_torchs_distributed_checkpoints(tmp_path, monkeypatch):
    from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

    def interrupted(*_):
        raise KeyboardInterrupt

    checkpoint_ways._save_distributed(state_of(9), tmp_path / "whole")
    for kind, method in ((FileSystemWriter, "write_data"), (FileSystemReader, "read_data")):
        monkeypatch.setattr(kind, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_ways._save_distributed(state_of(9), tmp_path / "half")
    with pytest.raises(KeyboardInterrupt):
        checkpoint_ways._load_distributed(tmp_path / "whole", state_of(9))


@pytest.mark.parametrize("name", ["torch", "torch distributed"])
def test_ctrl_c_reaches_through_an_error_that_follows_it(name, tmp_path, monkeypatch):
    def interrupted(*_):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem._write_item", interrupted)
    if name == "torch":
        monkeypatch.setattr(torch, "save", interrupted)
    found = run_checkpoints(9, rounds=1, folder=tmp_path)
    assert (found.interrupted, found.rounds) == (True, 0)
    assert list(tmp_path.iterdir()) == []


def measured(*rounds, **given):
    setting = Setting(1, 4, 16, "/runs", "ext4")
    return Measurement(**{
        "machine": machine(), "rounds": 1, "seconds": 1.0, "found": (*rounds, setting), **given,
    })  # fmt: skip


def one_round_of(save, load, first, later):
    """Of descend's way over torch's, and of a run's saves over a blocking one."""
    saves, loads = ({"torch": 1.0, "safetensors": 9.0, "descend": one} for one in (save, load))
    blocked = {BLOCKING: 1.0, FIRST: first, LATER: later}
    everything = dict.fromkeys(("torch, mmap", "torch distributed"), 9.0)
    return Round(saves | everything, {}, loads | everything, blocked, blocked)


@pytest.mark.parametrize(
    ("ours", "first", "later", "statuses"),
    [
        ((1.2, 1.5), 0.25, 0.1, ["met", "met", "met", "met"]),
        ((1.21, 1.4), 0.3, 0.1, ["missed", "met", "missed", "met"]),
        ((0.9, 1.51), 0.1, 0.26, ["met", "missed", "met", "missed"]),
    ],
)
def test_a_target_is_met_up_to_it(ours, first, later, statuses):
    found = measured(one_round_of(*ours, first, later))
    assert [target.status for target in checkpoint_targets(found)] == statuses
    assert [target.target for target in checkpoint_targets(found)] == [1.2, 1.5, 0.25, 0.25]


def test_what_was_not_measured_is_listed_too():
    told = checkpoint_targets(measured())
    assert [target.status for target in told] == ["not measured"] * 4


def test_too_little_memory_or_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "one_round", None)
    monkeypatch.setattr(checkpoints, "filesystem", lambda folder: "ext4")
    monkeypatch.setattr(room, "_free_memory", lambda: 3_100_000_000)
    with pytest.raises(
        DescendError,
        match=r"100,000,000 parameters need 5\.3 GB of memory, and 3\.1 GB are free; .*--param",
    ):
        run_checkpoints(100_000_000, rounds=1, folder=tmp_path)
    monkeypatch.setattr(room, "_free_memory", lambda: None)
    usage = type("usage", (), {"free": 2_000_000_000})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        OutputError,
        match=rf"100,000,000 parameters need 7\.2 GB on the disk of {tmp_path}, and 2\.0 GB",
    ):
        run_checkpoints(100_000_000, rounds=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_in_memory_need_memory_too(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "one_round", None)
    monkeypatch.setattr(checkpoints, "filesystem", lambda folder: "tmpfs")
    monkeypatch.setattr(room, "_free_memory", lambda: 12_000_000_000)
    words = (
        rf"need 12\.5 GB of memory, 7\.2 GB of it for the files in {tmp_path}, and 12\.0 GB are "
        rf"free; .*or a disk with --folder"
    )
    with pytest.raises(DescendError, match=words):
        run_checkpoints(100_000_000, rounds=1, folder=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"--folder .*/none: it cannot be written"):
        run_checkpoints(9, rounds=1, folder=tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match=r"^the system's place for temporary files: it cannot be"):
        run_checkpoints(9, rounds=1)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="not on Linux")
def test_the_system_tells_its_memory_and_its_file_systems(tmp_path, monkeypatch):
    assert room._free_memory() > 0
    assert room.filesystem(Path("/proc")) == "proc"
    (tmp_path / "mounts").write_text(
        "none / rootfs rw 0 0\ndisk / ext4 rw 0 0\nx /runs tmpfs rw 0 0\ny /runs/kept xfs rw 0 0\n"
        "z /my\\040runs btrfs rw 0 0\n"
    )
    monkeypatch.setattr(room, "PROC", tmp_path)
    monkeypatch.setattr(Path, "resolve", lambda path: path)
    places = ("/runs/kept/a", "/runs", "/runs/keptnot", "/home", "/my runs/a")
    assert [room.filesystem(Path(place)) for place in places] == [
        "xfs", "tmpfs", "tmpfs", "ext4", "btrfs",
    ]  # fmt: skip
    assert room._free_memory() is None
    (tmp_path / "mounts").unlink()
    assert room.filesystem(Path("/home")) is None


@pytest.mark.parametrize("given", [(0, 1), (1, 0)])
def test_nothing_to_measure_is_refused(given):
    with pytest.raises(ValueError, match="at least 1"):
        run_checkpoints(given[0], rounds=given[1])


def invoke(*arguments):
    return CliRunner().invoke(checkpoints.main, arguments, catch_exceptions=False)


SMALL = ("--parameters", "1k", "--rounds", "1")


def test_tables_show_every_way_and_what_is_promised(tmp_path):
    result = invoke(*SMALL, "--folder", str(tmp_path))
    assert (result.exit_code, result.stderr) == (0, "")
    for words in (
        *NAMES, BLOCKING, FIRST, LATER, "1.00 k parameters with AdamW's state", "float32, 1 round",
        "over torch", "±", "page cache", "held up", "what descend promises", "<= 1.2x", "<= 1.5x",
        "<= 0.25x", "in 4 tensors",
    ):  # fmt: skip
        assert words in result.stdout, words
    # A path is not broken, however long it is
    assert max(map(len, result.stdout.replace(str(tmp_path), "disk").splitlines())) <= 100
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_called_as_tables_are_written(clockwork, tmp_path):
    folder = tmp_path / "[red]runs[/b]"
    folder.mkdir(parents=True)
    result = invoke(*SMALL, "--folder", str(folder))
    assert result.exit_code == 0
    assert str(folder) in result.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(("kind", "said"), [("tmpfs", True), ("ext4", False)])
def test_a_folder_in_memory_is_named(kind, said, clockwork, monkeypatch):
    monkeypatch.setattr(checkpoints, "filesystem", lambda folder: kind)
    result = invoke(*SMALL)
    assert f"({kind})" in result.stdout
    assert ("no disk" in result.stdout) is said


def test_json_is_one_document_and_nothing_else(clockwork, tmp_path):
    result = invoke(*SMALL, "--json", "--folder", str(tmp_path))
    assert (result.exit_code, result.stderr) == (0, "")
    read = json.loads(result.stdout)
    assert {*checkpoint_entries(measured())} < {*read}
    assert read["folder"] == str(tmp_path)
    assert [one["way"] for one in read["checkpoints"]] == ["descend", "torch", "torch, mmap"]
    assert {target["unit"] for target in read["targets"]} == {"x at most"}
    assert all(target["measured"] for target in read["targets"])


def test_rounds_and_threads_are_passed_on(clockwork, monkeypatch):
    asked, before = [], torch.get_num_threads()
    one = checkpoints.one_round

    def noting(*given):
        asked.append(torch.get_num_threads())
        return one(*given)

    monkeypatch.setattr(checkpoints, "one_round", noting)
    result = invoke("--parameters", "9", "--threads", "3", "--json")
    assert json.loads(result.stdout)["rounds"] == 7
    assert asked == [3] * 8
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("done", [0, 1])
def test_ctrl_c_prints_the_rounds_before_and_leaves_nothing_behind(
    as_json, done, clockwork, monkeypatch, tmp_path
):
    def run_saves(state, folder, clock, original=checkpoint_round.run_saves):
        if len(clockwork.calls) > 5 * (1 + done):
            raise KeyboardInterrupt
        return original(state, folder, clock)

    monkeypatch.setattr(checkpoint_round, "run_saves", run_saves)
    result = invoke(
        "--parameters", "1k", "--rounds", "3", "--folder", str(tmp_path),
        *(["--json"] if as_json else []),
    )  # fmt: skip
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []
    if not done:
        assert result.stdout == ""
        assert result.stderr == "descend: interrupted before anything was measured\n"
        return
    assert result.stderr == (
        "descend: interrupted; printed is what was measured before: 1 of 3 rounds\n"
    )
    if as_json:
        read = json.loads(result.stdout)
        assert (read["interrupted"], read["rounds"]) == (True, 1)
    else:
        assert "float32, 1 round" in result.stdout


@pytest.mark.parametrize(
    ("text", "parameters"),
    [("100M", 100_000_000), ("2.5M", 2_500_000), ("500k", 500_000), ("1", 1), ("1G", 10**9)],
)
def test_parameters_are_read_with_their_suffix(text, parameters, monkeypatch):
    asked = []

    def run(count, **_):
        asked.append(count)
        return measured(interrupted=True, rounds=0, found=())

    monkeypatch.setattr(checkpoints, "run_checkpoints", run)
    assert invoke("--parameters", text).exit_code == 130
    assert asked == [parameters]


@pytest.mark.parametrize("text", ["0", "-1", "M", "100m", "1e6", "0.1", "many", "9" * 400])
def test_parameters_that_are_none_are_refused(text):
    result = invoke("--parameters", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(
        f"Error: Invalid value for '--parameters': {text!r} is no number of parameters; give one "
        f"such as 100M, 2.5M or 500k\n"
    )


def test_a_model_that_is_too_large_is_one_line(clockwork, monkeypatch):
    monkeypatch.setattr(room, "_free_memory", lambda: 0)
    result = invoke(*SMALL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: checkpoints: 1,000 parameters need 0.5 GB of memory")
    assert len(result.stderr.splitlines()) == 1


def test_the_script_runs_by_itself_and_its_help_teaches():
    done = python(checkpoints.__file__, "--help")
    for words in ("torch.distributed.checkpoint", "default: 7", "default: 100M", "--folder"):
        assert words in " ".join(done.stdout.split()), words
