"""`descend diff` as a user meets it: what differs, by how much, and what it takes."""
# ruff: noqa: E501  messages are compared whole

import faulthandler
import math
import os
import re
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import commands
from descend import checkpoint as ck
from descend.checkpoint.manifest import TENSORS
from descend.report import tables
from descend.report.tables import Screen

invoke = partial(commands.invoke, "diff")
document = partial(commands.document, "diff")


def told(*args, status):
    """The lines that are printed."""
    result = invoke(*args)
    assert (result.exit_code, result.stderr) == (status, "")
    assert "\x1b" not in result.stdout
    return result.stdout.splitlines()


def compared(a, b, *options, status=1):
    """The lines for two states."""
    ck.save("a", a)
    ck.save("b", b)
    return told("a", "b", *options, status=status)


def table(lines, first):
    """The cells of the table whose header begins with a word."""
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [first])
    found = []
    for line in lines[start + 1 :]:
        if not line.startswith("  ") or line.split()[0] in ("and", "value", "entry"):
            break
        found.append(re.split(r" {2,}", line.strip()))
    return found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(seed=0):
    torch.manual_seed(seed)
    return {
        "model": {"body.w": torch.randn(3, 4), "head.b": torch.randn(5)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(3, 4)}},
            "param_groups": [{"params": [0, 1], "lr": 0.1}],
        },
        "epoch": 3,
    }


def test_equal_states_are_equal_bit_for_bit():
    lines = compared(state(), state(), status=0)
    assert lines == [
        "equal bit for bit: 4 tensors and 4 other values",
        "A: a",
        "B: b",
        "",
        "model: equal, 2 tensors",
        "optimizer: equal, 2 tensors and 3 other values",
        "epoch: equal, 1 other value",
    ]
    found = document("a", "b", status=0)
    assert (found["equal"], found["tensors"], found["differing"]) == (True, 4, 0)
    assert found["largest"] is None
    assert all(one["equal"] for one in found["objects"].values())


def test_what_differs_is_named_with_how_much_the_largest_first():
    a, b = state(), state()
    b["model"]["body.w"][1, 2] += 0.5
    b["model"]["head.b"][:3] -= 2
    b["optimizer"]["param_groups"][0]["lr"] = 0.2
    lines = compared(a, b)
    assert lines[:3] == [
        "2 of 4 tensors differ, the largest by 2 (model.head.b); 1 other value differs",
        "A: a",
        "B: b",
    ]
    assert "epoch: equal, 1 other value" in lines
    assert "model: different: 2 of 2 tensors" in lines
    first, second = table(lines, "tensor")
    assert first[:3] == ["head.b", "3 of 5", "2"]
    assert second[:3] == ["body.w", "1 of 12", "0.5"]
    assert "optimizer: different: 0 of 2 tensors, 1 other value" in lines
    assert table(lines, "value") == [["param_groups.0.lr", "0.1 and 0.2"]]
    found = document("a", "b", status=1)
    assert (found["equal"], found["tensors"], found["differing"]) == (False, 4, 2)
    assert found["largest"]["name"] == "model.head.b"
    assert found["largest"]["largest"] == pytest.approx(2)
    differences = found["objects"]["model"]["differences"]
    assert [(one["name"], one["count"], one["elements"]) for one in differences] == [
        ("model.head.b", 3, 5), ("model.body.w", 1, 12),
    ]  # fmt: skip
    relative = float(
        (
            (a["model"]["head.b"] - b["model"]["head.b"]).abs()
            / torch.maximum(a["model"]["head.b"].abs(), b["model"]["head.b"].abs())
        ).max()
    )
    assert differences[0]["relative"] == pytest.approx(relative, rel=1e-5)


def test_one_bit_is_a_difference():
    a, b = {"w": torch.zeros(3)}, {"w": torch.tensor([0.0, -0.0, 0.0])}
    lines = compared(a, b)
    assert lines[0] == "1 of 1 tensor differs, the largest by 0 (w)"
    assert table(lines, "tensor") == [
        ["w", "1 of 3", "0", "0", "in their bits alone, as 0.0 and -0.0 do"]
    ]


@pytest.mark.parametrize(
    ("a", "b", "largest", "words"),
    [
        ([math.nan, 1], [1, 1], None, "nan"),
        ([math.inf, 1], [1, 1], None, "inf"),
        ([math.inf, 1], [-math.inf, 1], None, "inf"),
        ([math.inf, 1], [math.inf, 3], 2.0, "2"),
    ],
)
def test_what_is_not_finite_is_shown_and_null_in_json(a, b, largest, words):
    a, b = torch.tensor(a), torch.tensor(b, dtype=torch.float32)
    lines = compared({"m": {"w": a}}, {"m": {"w": b}})
    assert lines[0] == f"1 of 1 tensor differs, the largest by {words} (m.w)"
    assert table(lines, "tensor")[0][2] == words
    assert document("a", "b", status=1)["largest"]["largest"] == largest
    assert compared({"m": {"w": a}}, {"m": {"w": a.clone()}}, status=0)


def test_a_nan_comes_before_every_number():
    a = {"m": {"x": torch.zeros(2), "y": torch.zeros(2), "z": torch.zeros(2)}}
    b = {"m": {"x": torch.ones(2), "y": torch.full((2,), math.nan), "z": torch.full((2,), 9.0)}}
    lines = compared(a, b)
    assert [row[0] for row in table(lines, "tensor")] == ["y", "z", "x"]
    assert "the largest by nan (m.y)" in lines[0]


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64,
     torch.int64, torch.uint8, torch.int8, torch.bool, torch.uint16],
)  # fmt: skip
def test_every_dtype_is_compared(dtype):
    one, other = torch.tensor([0, 0, 1]).to(dtype), torch.tensor([1, 0, 1]).to(dtype)
    lines = compared({"m": {"w": one}}, {"m": {"w": other}})
    assert table(lines, "tensor") == [["w", "1 of 3", "1", "1"]]
    assert compared({"m": {"w": one}}, {"m": {"w": one.clone()}}, status=0)


def test_the_largest_is_one_of_the_weights_and_not_of_random_bytes_or_counters():
    a = {"m": {"w": torch.zeros(3), "n": torch.tensor(1)}, "o": {"step": torch.tensor(5.0)}, "r": {"rng": torch.zeros(9, dtype=torch.uint8)}}  # fmt: skip
    b = {"m": {"w": torch.ones(3), "n": torch.tensor(900)}, "o": {"step": torch.tensor(500.0)}, "r": {"rng": torch.full((9,), 200, dtype=torch.uint8)}}  # fmt: skip
    lines = compared(a, b)
    assert lines[0] == "4 of 4 tensors differ, the largest by 1 (m.w)"
    assert [row[0] for row in table(lines, "tensor")] == ["w", "n"]
    b["m"]["w"] = a["m"]["w"]
    assert "the largest by 495 (o.step)" in compared(a, b)[0]
    b["o"] = a["o"]
    assert compared(a, b)[0] == "2 of 4 tensors differ"


def test_other_shapes_and_dtypes_are_told():
    a = {"m": {"w": torch.zeros(3), "v": torch.zeros(2), "u": torch.zeros(4)}}
    b = {
        "m": {"w": torch.zeros(3, 1), "v": torch.zeros(2, dtype=torch.float64), "u": torch.ones(4)}
    }
    lines = compared(a, b)
    assert lines[0] == "3 of 3 tensors differ, the largest by 1 (m.u)"
    assert table(lines, "tensor") == [
        ["w", "float32 of shape (3,) and float32 of shape (3, 1)"],
        ["v", "float32 of shape (2,) and float64 of shape (2,)"],
        ["u", "4 of 4", "1", "1"],
    ]
    assert document("a", "b", status=1)["objects"]["m"]["differing"] == 3


def test_what_is_in_one_alone_is_told():
    a = {"model": {"w": torch.ones(2), "old": torch.ones(2)}, "ema": {"w": torch.ones(2)}, "n": 1}
    b = {"model": {"w": torch.ones(2), "new": torch.ones(2), "x": {"y": 1}}, "scaler": {}}
    lines = compared(a, b)
    assert lines[0] == (
        "0 of 1 tensor differ; 3 entries in one of them alone; ema, n only in A; scaler only in B"
    )
    assert "ema: only in A" in lines
    assert "scaler: only in B" in lines
    assert "model: different: 0 of 1 tensor, 3 entries in one alone" in lines
    assert table(lines, "entry") == [
        ["old", "only in A"], ["new", "only in B"], ["x", "only in B"],
    ]  # fmt: skip
    found = document("a", "b", status=1)["objects"]
    assert (found["ema"]["only_in"], found["scaler"]["only_in"]) == ("first", "second")
    assert (found["model"]["in_one_alone"], found["model"]["only_in"]) == (3, None)
    assert document("a", "b", "--only", "model", status=1)["objects"].keys() == {"model"}


@pytest.mark.parametrize(
    ("a", "b", "line"),
    [
        (1, 2, "n: 1 and 2"),
        (1, True, "n: a int and a bool"),
        (1, 1.0, "n: a int and a float"),
        (0.0, -0.0, "n: 0.0 and -0.0"),
        ("x", "y\n\x1b[31m", "n: 'x' and 'y\\n\\x1b[31m'"),
        (None, 0, "n: a NoneType and a int"),
        (2**70, 2**70 + 1, f"n: {2**70} and {2**70 + 1}"),
        (torch.float32, torch.float64, "n: torch.float32 and torch.float64"),
        (b"a", b"b", "n: b'a' and b'b'"),
    ],
)  # fmt: skip
def test_plain_values_are_told_in_a_line(a, b, line):
    lines = compared({"n": a, "m": {"w": torch.ones(1)}}, {"n": b, "m": {"w": torch.ones(1)}})
    assert lines[0] == "0 of 1 tensor differ; 1 other value differs"
    assert lines[4:] == [line, "m: equal, 1 tensor"]
    assert compared({"n": a}, {"n": a}, status=0)


def test_a_nan_that_is_a_plain_value_equals_itself():
    assert compared({"loss": math.nan}, {"loss": math.nan}, status=0)
    assert compared({"loss": math.nan}, {"loss": 1.0})[4:] == ["loss: nan and 1.0"]


def test_many_differences_are_cut_short_unless_all_are_asked_for():
    a = {
        "m": {f"t{i:02d}": torch.zeros(2) for i in range(30)},
        "h": {f"v{i}": i for i in range(12)},
    }
    b = {
        "m": {f"t{i:02d}": torch.full((2,), i / 8) for i in range(30)},
        "h": {f"v{i}": -i for i in range(12)},
    }
    lines = compared(a, b)
    assert (
        lines[0] == "29 of 30 tensors differ, the largest by 3.62 (m.t29); 11 other values differ"
    )
    assert [row[0] for row in table(lines, "tensor")] == [f"t{i}" for i in range(29, 19, -1)]
    assert "  and 19 more, which --all lists" in lines
    assert "  and 1 more, which --all lists" in lines
    whole = told("a", "b", "--all", status=1)
    assert whole[0] == lines[0]
    assert len(table(whole, "tensor")) == 29
    assert len(table(whole, "value")) == 11
    assert not any("more, which" in line for line in whole)
    assert len(document("a", "b", status=1)["objects"]["m"]["differences"]) == 29


def test_only_compares_one_object_or_several():
    a, b = state(0), state(1)
    b["model"] = a["model"]
    b["epoch"] = 4
    ck.save("a", a)
    ck.save("b", b)
    assert (
        told("a", "b", "--only", "model", status=0)[0]
        == "equal bit for bit: 2 tensors and 0 other values"
    )
    lines = told("a", "b", "--only", "model", "--only", "epoch", "--only", "model", status=1)
    assert lines[4:] == ["model: equal, 2 tensors", "epoch: 3 and 4"]
    result = invoke("a", "b", "--only", "modle")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "descend: error: cannot load modle of the checkpoint a: it holds model, optimizer, epoch\n"
    )


def test_only_what_is_compared_has_to_be_whole():
    ck.save("a", state())
    ck.save("b", state())
    file = Path("b") / TENSORS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    result = invoke("a", "b")
    assert (result.exit_code, result.stdout) == (2, "")
    damaged = re.search(
        r"the tensor (\S+) in tensors.safetensors is not what was saved", result.stderr
    )
    good = "model" if damaged[1].startswith("optimizer") else "optimizer"
    assert invoke("a", "b", "--only", good).exit_code == 0


def save_run(folder, seeds):
    path = Path(folder) / "checkpoints"
    path.mkdir(parents=True)
    for step, seed in enumerate(seeds, 1):
        ck.save(path / f"step-{step:08d}", state(seed))


def test_of_a_run_the_newest_whole_one_is_taken_and_told():
    save_run("one", [0, 1])
    save_run("two", [1, 0])
    lines = told("one", "two/checkpoints/step-00000001", status=0)
    assert lines[1:3] == [
        "A: one/checkpoints/step-00000002",
        "B: two/checkpoints/step-00000001",
    ]
    assert told("one/checkpoints", "two", status=1)
    os.truncate(Path("one/checkpoints/step-00000002") / TENSORS, 50)
    result = invoke("one", "two")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1] == "A: one/checkpoints/step-00000001"
    assert result.stderr.startswith("descend: warning: cannot load the checkpoint ")
    assert "step-00000001 is used instead" in result.stderr
    assert result.stderr.count("\n") == 1
    assert document("one", "two", status=0)["first"] == "one/checkpoints/step-00000001"


def test_f4_a_file_of_torchs_and_a_checkpoint_are_compared():
    saved = state()
    torch.save(
        {
            "model_state_dict": saved["model"],
            "optimizer_state_dict": saved["optimizer"],
            "epoch": 3,
        },
        "old.pth",
    )
    ck.save("new", saved)
    assert told("old.pth", "new", status=0)[0] == "equal bit for bit: 4 tensors and 4 other values"
    torch.save(state(1)["model"], "weights.pt")
    lines = told("weights.pt", "new", "--only", "model", status=1)
    assert lines[0].startswith("2 of 2 tensors differ, the largest by ")
    assert told("weights.pt", "new", status=1)[0].endswith("; optimizer, epoch only in B")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "nothing does not exist; give a checkpoint or the folder of a run"),
        (lambda: Path("nothing").mkdir(), "nothing holds no checkpoint; give a checkpoint, the folder of a run, or a file of torch's"),
        (lambda: Path("nothing").write_text("hello"), "cannot load nothing: it is damaged, or no file of torch.save"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", [1, -1])
def test_what_cannot_be_loaded_has_status_2(make, message, order):
    make()
    ck.save("a", state())
    for options in ([], ["--json"]):
        result = invoke(*["a", "nothing"][::order], *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"descend: error: {message}")
        assert result.stderr.count("\n") == 1


def test_a_run_without_a_checkpoint_and_a_folder_of_several_are_refused():
    ck.save("a", state())
    Path("both").mkdir()
    ck.save("both/a", state())
    Path("mine/checkpoints").mkdir(parents=True)
    for path, message in (
        ("mine", "the run mine has no checkpoint yet"),
        ("both", "both holds 1 checkpoint; give one of them"),
    ):
        result = invoke("a", path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"descend: error: {message}\n"
    assert invoke("a", "both/a/state.json").exit_code == 0


def test_arrays_are_compared_as_tensors_are():
    lines = compared({"m": {"x": np.zeros(3)}}, {"m": {"x": np.array([0, 0.5, 0])}})
    assert lines[0] == "1 of 1 tensor differs, the largest by 0.5 (m.x)"
    assert table(lines, "tensor") == [["x", "1 of 3", "0.5", "1"]]


def test_what_is_nested_deeply_is_compared_or_refused_in_one_line():
    deep: list = [torch.zeros(1)]
    for _ in range(300):
        deep = [deep]
    for _ in range(200):
        deep = [deep]
        try:
            torch.save({"model": {"w": torch.ones(1)}, "x": deep}, "x.pth")
        except RecursionError:
            break
        result = invoke("x.pth", "x.pth")
        assert result.exit_code in (0, 2)
        assert (result.stderr == "") == (result.exit_code == 0)
    assert result.exit_code == 2
    assert "nested too deeply" in result.stderr


def test_what_the_system_refuses_to_read_is_an_error_of_one_line(monkeypatch):
    ck.save("a", state())

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("descend.checkpoint.state_source.load_folder", refuse)
    result = invoke("a", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "descend: error: a cannot be read: Permission denied\n"


def test_one_path_is_too_few():
    result = invoke("a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "descend: error: Missing argument 'B'; see descend diff --help\n"


def test_names_with_odd_characters():
    a = {"m\n\x1b[31m": {"層.[b]x": torch.zeros(2)}, "a.b": {"c": torch.zeros(2)}, "a": {"b.c": 1}}
    b = {"m\n\x1b[31m": {"層.[b]x": torch.ones(2)}, "a.b": {"c": torch.ones(2)}, "a": {"b.c": 2}}
    lines = compared(a, b)
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "m\\n\\x1b[31m: different: 1 of 1 tensor" in lines
    assert re.search(r"^  層\.\[b\]x +2 of 2 ", text, re.M)
    assert "a: different: 1 other value" in lines
    assert "a.b: different: 1 of 1 tensor" in lines
    assert set(document("a", "b", status=1)["objects"]) == {"m\n\x1b[31m", "a.b", "a"}


def test_whole_numbers_as_names():
    torch.save({7: {"w": torch.zeros(1)}, "x": 1}, "a.pth")
    torch.save({7: {"w": torch.ones(1)}, "x": 1}, "b.pth")
    lines = told("a.pth", "b.pth", status=1)
    assert "7: different: 1 of 1 tensor" in lines


def test_empty_states():
    assert compared({}, {}, status=0)[0] == "equal bit for bit: 0 tensors and 0 other values"
    assert compared({}, {"n": 1})[0] == "n only in B"
    assert compared({"m": {}}, {"m": {}}, status=0)


def test_thousands_of_tensors():
    a = {"m": {f"layer.{i}.w": torch.zeros(2) for i in range(1500)}}
    b = {"m": {f"layer.{i}.w": torch.full((2,), float(i % 2)) for i in range(1500)}}
    lines = compared(a, b)
    assert lines[0] == "750 of 1,500 tensors differ, the largest by 1 (m.layer.1.w)"
    assert len(lines) < 30


def test_on_a_terminal_there_are_colours(monkeypatch):
    screen = Screen(colour=True, width=80, encoding="utf-8")
    monkeypatch.setattr(tables, "screen", lambda: screen)
    ck.save("a", state(0))
    ck.save("b", state(1))
    assert "\x1b[32mequal bit for bit\x1b[0m" in invoke("a", "a", color=True).stdout
    assert invoke("a", "b", color=True).stdout.startswith("\x1b[1;31m3 of 4 tensors differ")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros(2, np.int64), np.zeros(4, np.int32)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros((), np.float32), np.zeros((), np.int32)),
    ],
)
def test_arrays_of_other_dtypes_and_shapes_differ(a, b):
    assert ck.digest({"x": {"y": a}}) != ck.digest({"x": {"y": b}})
    compared({"x": {"y": a}}, {"x": {"y": b}})


def test_sparse_tensors_are_compared():
    torch.save({"m": {"w": torch.eye(3).to_sparse()}}, "a.pth")
    torch.save({"m": {"w": 2 * torch.eye(3).to_sparse()}}, "b.pth")
    assert told("a.pth", "a.pth", status=0)
    assert told("a.pth", "b.pth", status=1)


def test_quantized_tensors_are_compared():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them deprecated; Python, forks with threads
        one, other = (
            torch.quantize_per_tensor(torch.full((2,), value), 0.1, 0, torch.qint8)
            for value in (1.0, 2.0)
        )
        child = os.fork()
    if not child:  # a process of its own, because it may be killed
        faulthandler.disable()
        with suppress(Exception):
            differs = bool(ck.diff({"w": one}, {"w": other}))
            os._exit(0 if differs and not ck.diff({"w": one}, {"w": one}) else 1)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_lists_of_two_lengths_are_compared_as_far_as_they_go():
    group = {"params": [0], "lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-08}
    a = {"o": {"param_groups": [group, group]}}
    b = {"o": {"param_groups": [{**group, "lr": 0.2}]}}
    lines = compared(a, b)
    assert table(lines, "value") == [["param_groups.0.lr", "0.1 and 0.2"]]
    assert table(lines, "entry") == [["param_groups.1", "only in A"]]


def test_sparse_tensors_of_every_layout_are_compared():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls their support a beta
        one = {"csr": torch.eye(4).to_sparse_csr(), "bsr": torch.eye(4).to_sparse_bsr((2, 2))}
        other = {name: tensor * 2 for name, tensor in one.items()}
    torch.save({"m": one}, "a.pth")
    torch.save({"m": other}, "b.pth")
    assert told("a.pth", "a.pth", status=0)
    assert told("a.pth", "b.pth", status=1)


def test_a_dtype_that_torch_cannot_compute_with_is_compared():
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.fail("this torch has none")
    one, other = (
        torch.full((4,), value, dtype=torch.uint8).view(torch.float4_e2m1fn_x2) for value in (1, 2)
    )
    assert compared({"m": {"w": one}}, {"m": {"w": one}}, status=0)
    assert compared({"m": {"w": one}}, {"m": {"w": other}})
