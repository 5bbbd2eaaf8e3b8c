"""`descend verify` as a user meets it: what it says of whole and of damaged checkpoints."""
# ruff: noqa: E501  messages are compared whole

import json
import os
import random
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

from cli import commands
from descend import checkpoint as ck
from descend import format
from descend.checkpoint import damages as library
from descend.checkpoint.manifest import MANIFEST, STATE, TENSORS, manifest_text, read_manifest
from descend.cli import reading
from descend.cli import verify as command
from descend.errors import FormatError
from descend.report import tables
from descend.report.tables import Screen

invoke = partial(commands.invoke, "verify")
document = partial(commands.document, "verify")


def told(*args, status=0):
    """The lines that are printed, but the time that it took."""
    result = invoke(*args)
    assert result.exit_code == status, (result.stdout, result.stderr)
    assert (result.stderr == "") == (status == 0)
    assert "\x1b" not in result.output
    *lines, last = result.stdout.splitlines()
    assert re.search(r"\S+ k?B read in [\d.]+ [mu]?s$", last), last
    return lines, last.rpartition(": ")[0]


def flip(file, place, bit=2):
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


def state(seed=0):
    torch.manual_seed(seed)
    return {"model": {"a": torch.randn(7), "b": torch.randn(2, 3)}, "epoch": seed}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run():
    """The folder of a run with four checkpoints."""
    folder = Path("mine/checkpoints")
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 10):
        ck.save(folder / f"step-{number:08d}", state(number), about={"step": number})
    return folder


def test_whole_checkpoints_are_called_whole(run):
    ck.save("mine/checkpoints/step-00000010-2", state())
    lines, last = told("mine")
    assert lines[0] == "mine: 5 checkpoints"
    assert [line.split() for line in lines[1:6]] == [
        [name, *words_of_size(run / name.strip()), "whole"]
        for name in ("step-00000001", "step-00000002", "step-00000003", "step-00000010", "step-00000010-2")
    ]  # fmt: skip
    assert lines[6] == "  step-00000010-2 would be used"
    assert last == "all 5 are whole"
    assert told("mine/checkpoints")[0][1:] == lines[1:]


def words_of_size(path):
    return format.byte_size(sum(file.stat().st_size for file in path.iterdir())).split()


def test_one_checkpoint_is_a_line():
    ck.save("c", state())
    lines, last = told("c")
    assert [line.split() for line in lines] == [["c", *words_of_size(Path("c")), "whole"]]
    assert last == ""
    for name in (MANIFEST, STATE, TENSORS):
        assert told(f"c/{name}")[0][0].endswith("whole")


def test_p41_every_damage_is_named(run):
    flip(run / "step-00000010" / TENSORS, -1)
    flip(run / "step-00000010" / STATE, 20)
    flip(run / "step-00000002" / MANIFEST, 200)
    os.truncate(run / "step-00000001" / TENSORS, 90)
    lines, last = told("mine", status=1)
    size = (Path(run) / "step-00000003" / TENSORS).stat().st_size
    assert [re.sub(r" +\S+ k?B +", " ", line) for line in lines] == [
        "mine: 4 checkpoints",
        "  step-00000001 damaged",
        f"    tensors.safetensors has 90 bytes and had {size}",
        "  step-00000002 damaged",
        "    manifest.json is not what was saved: its hash differs",
        "  step-00000003 whole",
        "  step-00000010 damaged",
        "    state.json is not what was saved: its hash differs",
        "    the tensor model.b in tensors.safetensors is not what was saved: its hash differs",
        "  step-00000003 would be used",
    ]
    assert last == "3 of 4 are damaged"
    assert invoke("mine").stderr == (
        "descend: error: 3 of 4 checkpoints are damaged: mine/checkpoints/step-00000001, "
        "mine/checkpoints/step-00000002, mine/checkpoints/step-00000010\n"
    )


def test_the_document_names_every_damage_too(run):
    flip(run / "step-00000010" / TENSORS, -1)
    found = document("mine", status=1)
    assert found["whole"] is False
    (path,) = found["paths"]
    assert (path["path"], path["kind"]) == ("mine", "run")
    assert path["used"] == "mine/checkpoints/step-00000003"
    assert [one["whole"] for one in path["checkpoints"]] == [True, True, True, False]
    assert path["checkpoints"][3]["damages"] == [
        "the tensor model.b in tensors.safetensors is not what was saved: its hash differs"
    ]
    assert found["bytes"] == sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    assert 0 < found["seconds"] == sum(one["seconds"] for one in path["checkpoints"])


def test_several_paths_are_each_verified(run):
    ck.save("c", state())
    torch.save(state(), "old.pth")
    lines, last = told("c", "mine", "old.pth", "c")
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "c", "mine:", "old.pth", "c",
    ]  # fmt: skip
    assert last == "all 7 are whole"
    assert [one["kind"] for one in document("c", "mine", "old.pth")["paths"]] == [
        "checkpoint", "run", "torch file",
    ]  # fmt: skip


def test_none_of_a_run_is_whole(run):
    for path in run.iterdir():
        (path / TENSORS).unlink()
    lines, last = told("mine", status=1)
    assert lines[-1] == "  none of them can be used"
    assert last == "4 of 4 are damaged"
    assert document("mine", status=1)["paths"][0]["used"] is None


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda c: (c / MANIFEST).unlink(), "manifest.json is missing"),
        (lambda c: (c / STATE).unlink(), "state.json cannot be read (No such file or directory)"),
        (lambda c: (c / TENSORS).unlink(), "tensors.safetensors cannot be read ("),
        (lambda c: (c / MANIFEST).write_text(""), "manifest.json is not what was saved"),
        (lambda c: (c / MANIFEST).write_text("[]"), "manifest.json is not what was saved"),
        (lambda c: (c / MANIFEST).write_bytes(b"\xff\xfe"), "manifest.json cannot be read ("),
        (lambda c: (c / STATE).write_text("{}"), "state.json has 2 bytes and had"),
        (lambda c: (c / TENSORS).write_bytes(b""), "tensors.safetensors has 0 bytes and had"),
        (lambda c: ((c / TENSORS).unlink(), (c / TENSORS).mkdir()), "tensors.safetensors cannot"),
        (lambda c: ((c / STATE).unlink(), (c / STATE).mkdir()), "state.json cannot be read"),
        (lambda c: ((c / MANIFEST).unlink(), (c / MANIFEST).mkdir()), "manifest.json cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_is_missing_or_something_else_is_named(damage, what):
    ck.save("c", state())
    damage(Path("c"))
    lines, _ = told("c", status=1)
    assert lines[0].endswith("damaged")
    assert lines[1].startswith(f"    {what}")


def test_every_bit_and_every_length_of_every_file_counts():
    ck.save("c", state())
    draw = random.Random(1)
    for _ in range(150):
        file = Path("c") / draw.choice([MANIFEST, STATE, TENSORS])
        before = file.read_bytes()
        place = draw.randrange(len(before))
        if draw.random() < 0.2:
            os.truncate(file, place)
        else:
            flip(file, place, draw.randrange(8))
        assert document("c", status=1)["whole"] is False
        file.write_bytes(before)
    assert document("c")["whole"] is True


def test_a_folder_of_checkpoints_and_of_runs(run):
    ck.save("best", state())
    ck.save(".hidden", state())
    Path("notes").mkdir()
    Path("notes.txt").touch()
    lines, last = told(".")
    assert lines[0] == ".: 5 checkpoints"
    assert [line.split()[0] for line in lines[1:]] == ["best"] + [
        f"mine/checkpoints/step-000000{number}" for number in ("01", "02", "03", "10")
    ]
    assert last == "all 5 are whole"
    assert "used" not in document(".")["paths"][0]


def test_many_damages_are_cut_short_in_the_text_alone():
    ck.save("c", {f"t{number:03d}": torch.full((64,), float(number)) for number in range(50)})
    file = Path("c") / TENSORS
    content = bytearray(file.read_bytes())
    for number in range(50):
        content[-1 - 256 * number] ^= 1
    file.write_bytes(content)
    lines, _ = told("c", status=1)
    assert len(lines) == 22
    assert lines[-1] == "    and 30 more, which --json names"
    assert len(document("c", status=1)["paths"][0]["checkpoints"][0]["damages"]) == 50


def test_every_flipped_byte_of_a_tensor_in_a_file_of_torchs_is_found():
    torch.save({"model": {"w": torch.arange(50.0)}}, "old.pth")
    content = Path("old.pth").read_bytes()
    start = content.index(torch.arange(50.0).numpy().tobytes())
    for place in range(start, start + 200, 7):
        flip(Path("old.pth"), place)
        lines, _ = told("old.pth", status=1)
        assert lines[1] == "    the part old/data/0 is not what was saved: its CRC-32 differs"
        # torch itself does not see it
        torch.load("old.pth", weights_only=True)
        Path("old.pth").write_bytes(content)


def test_a_damaged_file_of_torchs_never_crashes():
    torch.save({"model": {"w": torch.arange(50.0)}}, "old.pth")
    before = Path("old.pth").read_bytes()
    saved = torch.load("old.pth", weights_only=True)["model"]["w"]
    draw = random.Random(2)
    for _ in range(150):
        content = bytearray(before)
        if draw.random() < 0.3:
            content = content[: draw.randrange(len(content))]
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        Path("old.pth").write_bytes(content)
        result = invoke("old.pth", "--json")
        assert result.exit_code in (0, 1, 2)
        json.loads(result.stdout)
        if result.exit_code == 0:  # then it does not matter: padding, a date
            assert torch.equal(torch.load("old.pth", weights_only=True)["model"]["w"], saved)


def test_a_file_of_torchs_that_holds_code_is_whole_and_none_is_run():
    class Evil:
        def __reduce__(self):
            return (os.mkdir, ("ran",))

    torch.save({"model": {"w": torch.zeros(1)}, "evil": Evil()}, "evil.pth")
    assert told("evil.pth")[0][0].endswith("whole")
    assert not Path("ran").exists()


def test_what_has_no_checksums_is_refused():
    torch.save(state(), "old.pth", _use_new_zipfile_serialization=False)
    result = invoke("old.pth")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "descend: error: cannot verify old.pth: there are no checksums in it, as in what torch "
        "wrote before 1.6; descend convert makes a checkpoint of it, which has them\n"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "nothing does not exist; give a checkpoint or the folder of a run"),
        (lambda: Path("nothing").mkdir(), "nothing holds no checkpoint; give a checkpoint, the folder of a run, or a file of torch's"),
        (lambda: (Path("nothing").mkdir(), Path("nothing/x.ckpt").touch()), "nothing holds no checkpoint; did you mean nothing/x.ckpt?"),
        (lambda: Path("nothing/checkpoints").mkdir(parents=True), "the run nothing has no checkpoint yet"),
        (lambda: Path("nothing").write_text("hello"), "cannot load nothing: it is damaged, or no file of torch.save"),
        (lambda: zipfile.ZipFile("nothing", "w").close(), "cannot load nothing: "),
    ],
)  # fmt: skip
def test_where_nothing_is_the_status_is_2(make, message):
    make()
    result = invoke("nothing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"descend: error: {message}")
    assert result.stderr.count("\n") == 1
    found = document("nothing", status=2)
    assert found["whole"] is False
    assert found["paths"][0]["error"].startswith(message)


def test_no_path_at_all_is_refused():
    result = invoke()
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr == "descend: error: Missing argument 'PATH...'; see descend verify --help\n"
    )


def test_a_path_without_a_checkpoint_does_not_hide_the_others():
    ck.save("c", state())
    result = invoke("nope", "c")
    assert result.exit_code == 2
    assert result.stdout.split()[0] == "c"
    assert "nope does not exist" in result.stderr
    flip(Path("c") / TENSORS, -1)
    assert invoke("nope", "c").exit_code == 1
    assert [set(one) >= {"error"} for one in document("nope", "c", status=1)["paths"]] == [
        True,
        False,
    ]


def test_a_path_with_odd_characters():
    name = "a\nb\x1b[31m層"
    ck.save(name, {"model": {"t\n\x1b[1mx": torch.ones(4)}})
    assert told(name)[0][0].startswith("a\\nb\\x1b[31m層 ")
    flip(Path(name) / TENSORS, -1)
    assert told(name, status=1)[0][1] == (
        "    the tensor model.t\\n\\x1b[1mx in tensors.safetensors is not what was saved: its "
        "hash differs"
    )
    assert document(name, status=1)["paths"][0]["path"] == name


def test_a_checkpoint_that_a_training_removes_meanwhile_is_no_damage(run, monkeypatch):
    original = library.damages_of

    def removing(path, progress):
        if path.name == "step-00000001":
            shutil.rmtree(path)
        return original(path)

    monkeypatch.setattr(library, "damages_of", removing)
    lines, last = told("mine")
    assert "step-00000001  removed while it was read, as a training does with old ones" in lines[1]
    assert last == "all 3 are whole"


def test_what_the_system_refuses_to_read_is_an_error_of_one_line(monkeypatch):
    torch.save(state(), "old.pth")

    opening = os.open

    def refuse(path, *args, **options):
        if Path(path).name == "old.pth":
            raise PermissionError(13, "Permission denied")
        return opening(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    result = invoke("old.pth")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "descend: error: old.pth cannot be read: Permission denied\n"


def test_what_cannot_be_read_is_no_damage_and_hides_no_other(run):
    newest = run / "step-00000010"
    text = manifest_text({**read_manifest(newest), "format": "descend checkpoint 9"})
    (newest / MANIFEST).write_text(text)
    result = invoke("mine")
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["whole"] * 3
    assert lines[4].endswith("not readable")
    assert lines[5] == "  none of them can be used"
    assert lines[6].startswith("1 of 4 cannot be read: ")
    assert result.stderr.startswith(
        f"descend: error: cannot load the checkpoint {newest}: its format"
    )
    found = document("mine", status=2)
    assert (found["whole"], found["paths"][0]["used"]) == (False, None)
    assert [one["whole"] for one in found["paths"][0]["checkpoints"]] == [True, True, True, None]
    flip(run / "step-00000001" / TENSORS, -1)
    result = invoke("mine")
    assert result.exit_code == 1
    assert "1 of 4 is damaged, 1 of 4 cannot be read: " in result.stdout
    with pytest.raises(FormatError):
        ck.load("mine")


def test_a_file_of_torchs_with_another_beginning_is_damaged():
    torch.save({"model": {"w": torch.arange(50.0)}}, "old.pth")
    flip(Path("old.pth"), 0)
    lines, _ = told("old.pth", status=1)
    assert lines[1].startswith("    the part old/data.pkl is not what was saved: ")


def test_a_checkpoint_in_a_folder_that_lost_its_manifest_is_found():
    ck.save("best", state())
    ck.save("last", state())
    (Path("best") / MANIFEST).unlink()
    assert told(".", status=1)[1] == "1 of 2 is damaged"


def test_nothing_is_changed(run):
    flip(run / "step-00000010" / TENSORS, -1)

    def files():
        return {
            file: (file.stat().st_mtime_ns, file.read_bytes())
            for file in Path("mine").rglob("*")
            if file.is_file()
        }

    before = files()
    told("mine", status=1)
    assert files() == before


def test_a_big_one_shows_on_a_terminal_that_it_is_read(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    quiet = invoke("mine")
    assert quiet.stderr == ""
    monkeypatch.setattr(reading, "BIG", 1)
    monkeypatch.setattr(command, "LARGE", 1)
    shown = invoke("mine")
    assert "reading step-00000010, " in shown.stderr
    assert shown.stdout.startswith(quiet.stdout.rpartition("\n  step")[0])
    assert re.search(r"read in [\d.]+ [mu]?s, \S+ .?B/s$", shown.stdout)
    assert "reading" not in invoke("mine", "--json").stdout


def test_on_a_terminal_there_are_colours(run, monkeypatch):
    screen = Screen(colour=True, width=80, encoding="utf-8")
    monkeypatch.setattr(tables, "screen", lambda: screen)
    flip(run / "step-00000010" / TENSORS, -1)
    text = invoke("mine", color=True).stdout
    assert text.count("\x1b[32mwhole\x1b[0m") == 3
    assert text.count("\x1b[1;31mdamaged\x1b[0m") == 1


def test_a_word_for_a_damage_has_no_more_than_the_damage(run):
    path = run / "step-00000001"
    flip(path / TENSORS, -1)
    (damage,) = library.damages_of(path)
    assert str(path) not in damage
    (error,) = ck.verify(path)
    assert damage in error
    assert read_manifest(path)


def test_p40_a_replacement_cut_short_is_found_under_its_other_name():
    ck.save("c", state())
    os.rename("c", ".c.old")  # what a process killed between two renames leaves; load takes it
    assert ck.verify("c") == []
    assert document("c")["whole"]


def test_a_missing_file_of_tensors_is_told_as_the_others_are():
    ck.save("c", state())
    (Path("c") / TENSORS).unlink()
    lines, _ = told("c", status=1)
    assert lines[1] == "    tensors.safetensors cannot be read (No such file or directory)"
