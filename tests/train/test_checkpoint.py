"""Checkpoints: a round trip bit for bit, damage found, writes that are whole or not at all."""

import os

import pytest
import torch
from safetensors import safe_open

import descend.checkpoint.file
from descend.checkpoint import digest, load, save
from descend.errors import CheckpointError
from descend.optimizers import CATALOGUE

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool,
    torch.complex64, torch.complex128,
]  # fmt: skip


def trained(name="adamw"):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = CATALOGUE[name](model.named_parameters(), lr=0.01)
    for _ in range(3):
        step(model, optimizer, torch.randn(5, 3))
    return model, optimizer


def step(model, optimizer, inputs):
    def closure():
        optimizer.zero_grad()
        loss = model(inputs).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape):
    tensor = (torch.randn(shape, dtype=torch.complex128) * 9).to(torch.complex128)
    tensor = tensor.to(dtype) if dtype.is_complex else tensor.real.abs().to(dtype)
    state = {"x": tensor, "view": torch.stack([tensor, tensor], -1)[..., 0]}
    save(tmp_path / "c", state)
    back = load(tmp_path / "c")
    for name in state:
        assert back[name].dtype == dtype
        assert back[name].shape == shape
        assert torch.equal(
            back[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        )
    assert digest(back) == digest(state)


def test_the_rest_comes_back_as_it_was(tmp_path):
    state = {
        "none": None, "yes": True, "int": 3, "float": 0.1, "text": "ü\n", "inf": float("inf"),
        "list": [1, [2.5, None]], "tuple": (0.9, 0.999), "empty": {}, "$dollar": 1,
        "numbers": {0: {"a": torch.ones(1)}, 10: {}, "0": 2},
        "a": {"b": torch.zeros(1)}, "a.b": torch.ones(1),
    }  # fmt: skip
    save(tmp_path / "c", state)
    back = load(tmp_path / "c")
    assert torch.equal(back["a"]["b"], torch.zeros(1))
    assert torch.equal(back["a.b"], torch.ones(1))
    assert {k: v for k, v in back.items() if k not in ("a", "a.b", "numbers")} == {
        k: v for k, v in state.items() if k not in ("a", "a.b", "numbers")
    }
    assert list(back["numbers"]) == [0, 10, "0"]


# SparseAdam takes sparse gradients, which the model here has not.
@pytest.mark.parametrize("name", sorted({*CATALOGUE} - {"sparseadam"}))
def test_f1_model_and_optimizer_go_on_bit_for_bit(tmp_path, name):
    model, optimizer = trained(name)
    save(tmp_path / "c", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    state = load(tmp_path / "c")
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    other_optimizer = CATALOGUE[name](other.named_parameters(), lr=0.5)
    other.load_state_dict(state["model"])
    other_optimizer.load_state_dict(state["optimizer"])
    for m, o in ((model, optimizer), (other, other_optimizer)):
        step(m, o, torch.ones(5, 3))
    assert digest({"m": model.state_dict(), "o": optimizer.state_dict()}) == digest(
        {"m": other.state_dict(), "o": other_optimizer.state_dict()}
    )


def test_names_are_readable(tmp_path):
    model, optimizer = trained()
    save(tmp_path / "c", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    with safe_open(tmp_path / "c", framework="pt") as file:
        names = set(file.keys())
    assert {"model.0.weight", "optimizer.state.0.weight.exp_avg"} <= names


def test_shared_memory_is_stored_once_and_shared_again(tmp_path):
    weight = torch.randn(50, 50)
    save(tmp_path / "c", {"a": weight, "b": weight, "t": weight.t(), "row": weight[3]})
    back = load(tmp_path / "c")
    assert back["a"].data_ptr() == back["b"].data_ptr()
    assert torch.equal(back["t"], weight.t())
    assert torch.equal(back["row"], weight[3])
    assert os.path.getsize(tmp_path / "c") < 3 * weight.nbytes


def test_loaded_tensors_do_not_change_the_file(tmp_path):
    save(tmp_path / "c", {"x": torch.zeros(4)})
    load(tmp_path / "c")["x"].fill_(7)
    assert torch.equal(load(tmp_path / "c")["x"], torch.zeros(4))


def test_p41_every_flipped_bit_is_refused(tmp_path):
    save(tmp_path / "c", {"w": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16), "n": 3})
    whole = (tmp_path / "c").read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "d").write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load(tmp_path / "d")
    (tmp_path / "d").write_bytes(whole)
    assert load(tmp_path / "d")["n"] == 3


def test_p41_a_changed_tensor_is_named(tmp_path):
    save(tmp_path / "c", {"model": {"weight": torch.arange(3.0)}})
    damaged = bytearray((tmp_path / "c").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "c").write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"the tensor model\.weight is not what was saved"):
        load(tmp_path / "c")


def test_f2_every_truncation_is_refused(tmp_path):
    save(tmp_path / "c", {"w": torch.arange(3.0), "n": 3})
    whole = (tmp_path / "c").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "d").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="truncated, damaged"):
            load(tmp_path / "d")


@pytest.mark.parametrize("step", ["save_file", "_flush", "os.replace"])
def test_p40_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, step):
    save(tmp_path / "c", {"x": torch.zeros(4)})

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"descend.checkpoint.file.{step}", fail)
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .* No space left"):
        save(tmp_path / "c", {"x": torch.ones(4)})
    monkeypatch.undo()
    assert torch.equal(load(tmp_path / "c")["x"], torch.zeros(4))
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    flush, replace = descend.checkpoint.file._flush, os.replace
    monkeypatch.setattr(
        "descend.checkpoint.file._flush", lambda p: (calls.append(p.is_dir()), flush(p))
    )
    monkeypatch.setattr(
        "descend.checkpoint.file.os.replace", lambda a, b: (calls.append("rename"), replace(a, b))
    )
    save(tmp_path / "c", {"x": 1})
    assert calls == [False, "rename", True]


def test_the_file_has_the_mode_that_the_umask_gives(tmp_path):
    save(tmp_path / "c", {"x": torch.zeros(1)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"f": print}}, r"cannot save a\.f: it is a builtin_function_or_method"),
        ({"a": {1.5: 0}}, r"cannot save a: its key 1\.5 is a float"),
        (
            {"s": torch.zeros(2).to_sparse()},
            "cannot save s: the tensor is stored as torch",
        ),
        ({"m": torch.zeros(2, device="meta")}, "cannot save m: the tensor is on the meta device"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, state, message):
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "c", state)
    assert not any(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="its format is None"):
        load(tmp_path / "other")
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(tmp_path / "missing")


BASE = {"w": torch.tensor([0.0, 1.0]), "lr": 0.1}


@pytest.mark.parametrize(
    "other",
    [
        {"w": torch.tensor([-0.0, 1.0]), "lr": 0.1},
        {"w": torch.tensor([0.0, 1.0], dtype=torch.float64), "lr": 0.1},
        {"w": torch.tensor([[0.0, 1.0]]), "lr": 0.1},
        {"w": torch.tensor([1.0, 0.0]), "lr": 0.1},
        {"v": torch.tensor([0.0, 1.0]), "lr": 0.1},
        {"w": torch.tensor([0.0, 1.0]), "lr": 0.2},
        {"w": torch.tensor([0.0, 1.0])},
    ],
)
def test_a_digest_tells_any_difference(other):
    assert digest(other) != digest(BASE)


def test_a_digest_sees_values_not_memory():
    wide = torch.tensor([[0.0, 5.0], [1.0, 5.0]])
    assert digest({"lr": 0.1, "w": wide[:, 0]}) == digest(BASE)
    x = torch.ones(3)
    assert digest({"a": x, "b": x}) == digest({"a": x, "b": x.clone()})
    z = torch.tensor([1 + 2j])
    assert digest({"z": z.conj()}) == digest({"z": torch.tensor([1 - 2j])})
