"""Damage of every kind to a checkpoint's files: found, named, and the one before is used."""

import json
import os
import random
import shutil
import socket

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoint.bits import assert_same, random_tensor
from descend.checkpoint import load, save, series, verify
from descend.checkpoint.contents import content_of
from descend.checkpoint.damages import seen_damages
from descend.checkpoint.hashing import hash_bytes, hash_tensor, hasher
from descend.checkpoint.manifest import manifest_text, read_manifest
from descend.checkpoint.storage_key import bytes_of
from descend.checkpoint.tensors_file import WORDS
from descend.errors import CheckpointError, CheckpointWarning, FormatError

FILES = ("tensors.safetensors", "state.json", "manifest.json")
STATE = {
    "model": {
        "w": random_tensor(torch.float32, (3, 4)),
        "b": random_tensor(torch.bfloat16, (5,)),
        "k": random_tensor(torch.complex64, (2,)),  # which safetensors keeps as bytes
        "tied": None,
        "mask": torch.tensor([True, False, True]),
        "empty": torch.empty(0, 3),
    },
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3, 4)}}},
    "epoch": 3,
    "lr": 0.1,
    "array": np.arange(3),
}
STATE["model"]["tied"] = STATE["model"]["w"]
TINY = {"w": torch.arange(2.0), "n": 3}


def contents(path):
    return {name: (path / name).read_bytes() for name in FILES}


def put(path, files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def tensor_at(content, place):
    """The tensor that a byte of tensors.safetensors belongs to; None in the header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        first, last = entry.get("data_offsets", (0, 0))
        if first <= place - 8 - length < last:
            return name
    return None


def assert_found(path, file, names):
    """Both ways of reading tell of the damage, the file and the tensors that were hit."""
    with pytest.raises(CheckpointError, match="cannot load the checkpoint") as refused:
        load(path)
    assert file in str(refused.value)
    assert str(path) in str(refused.value)
    found = verify(path)
    assert len(found) == max(1, len(names))
    for name in names:
        assert any(f"the tensor {name} in {file}" in one for one in found), (name, found)
    if names:
        assert any(f"the tensor {name} in" in str(refused.value) for name in names)


def test_p41_a_flipped_bit_in_each_byte_is_found(tmp_path):
    save(tmp_path / "c", TINY)
    whole = contents(tmp_path / "c")
    for name in FILES:
        for place in range(len(whole[name])):
            put(tmp_path / "c", {name: flipped(whole[name], 8 * place + place % 8)})
            with pytest.raises(CheckpointError, match="damaged"):
                load(tmp_path / "c")
        put(tmp_path / "c", whole)
    assert_same(load(tmp_path / "c"), TINY)


@pytest.mark.slow
def test_p41_every_flipped_bit_is_found(tmp_path):
    save(tmp_path / "c", TINY)
    whole = contents(tmp_path / "c")
    for name in FILES:
        for bit in range(8 * len(whole[name])):
            put(tmp_path / "c", {name: flipped(whole[name], bit)})
            hit = tensor_at(whole[name], bit // 8) if name == FILES[0] else None
            assert_found(tmp_path / "c", name, [hit] if hit else [])
        put(tmp_path / "c", whole)
    assert verify(tmp_path / "c") == []


def test_p41_every_truncation_is_found(tmp_path):
    save(tmp_path / "c", TINY)
    whole = contents(tmp_path / "c")
    for name in FILES:
        for length in range(len(whole[name])):
            put(tmp_path / "c", {name: whole[name][:length]})
            with pytest.raises(CheckpointError, match=rf"{name}.*damaged"):
                load(tmp_path / "c")
        for more in (b"\0", b" ", b"\n", b"}", whole[name]):
            put(tmp_path / "c", {name: whole[name] + more})
            with pytest.raises(CheckpointError, match=rf"{name}.*damaged"):
                load(tmp_path / "c")
        put(tmp_path / "c", whole)
    assert_same(load(tmp_path / "c"), TINY)


def damage_at_random(folder, times):
    """Damage the newest of two checkpoints, again and again: the one before is used each time."""
    save(folder / "step-00000001", STATE | {"epoch": 1})
    newest = folder / "step-00000002"
    save(newest, STATE)
    whole = contents(newest)
    sizes = [len(whole[name]) for name in FILES]
    chance = random.Random(0)
    hit = set()
    for time in range(times):
        name = chance.choices(FILES, [2, 1, 1])[0] if time % 2 else chance.choices(FILES, sizes)[0]
        content = whole[name]
        if time % 10 < 8:
            bit = chance.randrange(8 * len(content))
            damaged = flipped(content, bit)
            tensor = tensor_at(content, bit // 8) if name == FILES[0] else None
        else:
            damaged, tensor = content[: chance.randrange(len(content))], None
        hit.add(tensor or name)
        put(newest, {name: damaged})
        assert_found(newest, name, [tensor] if tensor else [])
        with pytest.warns(CheckpointWarning, match="is used instead; it is now called") as said:
            used, state = series.load_newest(folder, set_aside=True)
        assert len(said) == 1
        assert name in str(said[0].message)
        assert tensor is None or f"the tensor {tensor} in" in str(said[0].message)
        assert used == folder / "step-00000001"
        assert state["epoch"] == 1
        aside = folder / "step-00000002.damaged"
        assert sorted(os.listdir(folder)) == ["step-00000001", aside.name]
        assert (aside / name).read_bytes() == damaged
        aside.rename(newest)
        put(newest, {name: content})
    used, state = series.load_newest(folder)
    assert used == newest
    assert_same(state, STATE)
    assert hit > {*FILES, "model.w", "model.k", "array", "optimizer.state.0.exp_avg"}


def test_p41_f2_damage_at_random_is_found_and_the_checkpoint_before_is_used(tmp_path):
    damage_at_random(tmp_path, 300)


@pytest.mark.slow
def test_p41_f2_a_thousand_damages_are_found_and_the_checkpoint_before_is_used(tmp_path):
    damage_at_random(tmp_path, 1000)


@pytest.mark.parametrize(
    ("was", "now"), [(b'"F32"', b'"I32"'), (b'"shape":[2]', b'"shape":[02'), (b"  ", b" \n")]
)
def test_p41_a_header_that_reads_otherwise_is_found(tmp_path, was, now):
    save(tmp_path / "c", TINY)
    whole = contents(tmp_path / "c")[FILES[0]]
    assert was in whole
    put(tmp_path / "c", {FILES[0]: whole.replace(was, now, 1)})
    with pytest.raises(CheckpointError, match="the hash of its header differs"):
        load(tmp_path / "c")


def test_p41_a_file_of_another_length_is_told(tmp_path):
    save(tmp_path / "c", TINY)
    whole = contents(tmp_path / "c")[FILES[0]]
    put(tmp_path / "c", {FILES[0]: whole[:-1]})
    with pytest.raises(CheckpointError, match=f"has {len(whole) - 1} bytes and had {len(whole)}"):
        load(tmp_path / "c")


def test_p41_each_damaged_tensor_is_named(tmp_path):
    save(tmp_path / "c", STATE)
    whole = contents(tmp_path / "c")[FILES[0]]
    length = 8 + int.from_bytes(whole[:8], "little")
    put(tmp_path / "c", {FILES[0]: whole[:length] + bytes(255 - byte for byte in whole[length:])})
    names = {tensor_at(whole, place) for place in range(length, len(whole))}
    assert len(names) == 7
    assert_found(tmp_path / "c", FILES[0], names)


def test_p41_only_what_is_used_must_be_whole(tmp_path):
    save(tmp_path / "c", STATE)
    whole = contents(tmp_path / "c")[FILES[0]]
    place = next(i for i in range(len(whole)) if tensor_at(whole, i) == "model.w")
    put(tmp_path / "c", {FILES[0]: flipped(whole, 8 * place)})
    assert_same(load(tmp_path / "c", parts=["array"]), {"array": STATE["array"]})
    with pytest.raises(CheckpointError, match=r"the tensor model\.w in"):
        load(tmp_path / "c", parts=["model"])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", ["missing", "empty", "a folder", "zeros", "a dangling link"])
def test_p41_a_file_that_is_not_what_it_was(tmp_path, file, what):
    path = tmp_path / "c"
    save(path, STATE)
    size = (path / file).stat().st_size
    (path / file).unlink()
    if what == "empty":
        (path / file).touch()
    elif what == "a folder":
        (path / file).mkdir()
    elif what == "zeros":  # what a crash of the machine leaves of a file that was not flushed
        (path / file).write_bytes(bytes(size))
    elif what == "a dangling link":
        (path / file).symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=f"cannot load the checkpoint .*{file}"):
        load(path)
    if file == "manifest.json" and what in ("missing", "a dangling link"):
        with pytest.raises(CheckpointError, match=r"it is no checkpoint: it has no manifest\.json"):
            verify(path)
    else:
        assert len(verify(path)) == 1


def test_p41_files_of_two_checkpoints_are_not_mixed(tmp_path):
    other = {**STATE, "epoch": 4, "model": {**STATE["model"], "b": torch.ones(5).bfloat16()}}
    save(tmp_path / "a", STATE)
    save(tmp_path / "b", other)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    for swapped in range(1, 7):
        mixed = {name: (b if swapped >> i & 1 else a)[name] for i, name in enumerate(FILES)}
        put(tmp_path / "m", mixed)
        with pytest.raises(CheckpointError, match="damaged"):
            load(tmp_path / "m")
        assert verify(tmp_path / "m")
    put(tmp_path / "m", b)
    assert_same(load(tmp_path / "m"), other)


def test_files_that_do_not_belong_to_a_checkpoint_do_not_matter(tmp_path):
    save(tmp_path / "c", STATE)
    (tmp_path / "c" / "notes.txt").write_text("mine")
    (tmp_path / "c" / "plots").mkdir()
    assert_same(load(tmp_path / "c"), STATE)
    assert verify(tmp_path / "c") == []


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path):
    (tmp_path / "folder").mkdir()
    for read in (load, verify):
        with pytest.raises(CheckpointError, match="it does not exist"):
            read(tmp_path / "missing")
        with pytest.raises(CheckpointError, match=r"it is no checkpoint: it has no manifest\.json"):
            read(tmp_path / "folder")


def test_another_format_is_refused_and_told(tmp_path):
    save(tmp_path / "c", TINY)
    forge(tmp_path / "c", {"format": "descend checkpoint 3"})
    for read in (load, verify):
        with pytest.raises(FormatError, match="its format is 'descend checkpoint 3', and this ver"):
            read(tmp_path / "c")


def forge(path, entries=None, *, state=None, header=None, lacks=None):
    """Change what a checkpoint holds, and let all hashes say that it was saved like that."""
    manifest = read_manifest(path)
    files = manifest["files"]
    if state is not None:
        text = state if isinstance(state, bytes) else state.encode()
        (path / "state.json").write_bytes(text)
        files["state.json"] = {"bytes": len(text), "hash": hash_bytes(text)}
    if header is not None:
        whole = (path / FILES[0]).read_bytes()
        length = 8 + int.from_bytes(whole[:8], "little")
        whole = len(header).to_bytes(8, "little") + header + whole[length:]
        (path / FILES[0]).write_bytes(whole)
        files[FILES[0]] = {"bytes": len(whole), "header": hash_bytes(whole[: 8 + len(header)])}
    manifest |= entries or {}
    manifest.pop(lacks, None)
    (path / "manifest.json").write_text(manifest_text(manifest))


def assert_refused_without_a_crash(path):
    """And what `verify` finds whole can be loaded, all of it."""
    for parts in (["w"], ["n"], [], None):
        try:
            state = load(path, parts=parts)
        except CheckpointError:
            state = None
            continue
        assert isinstance(state, dict)
    try:
        found = verify(path)
    except CheckpointError:
        return
    assert all(isinstance(one, str) for one in found)
    assert (not found) == (state is not None)
    seen_damages(path)


NONSENSE_STATES = {
    "not JSON": "{", "not UTF-8": b"\xff\xfe", "empty": "", "null": "null", "a list": "[1]",
    "a word": '"w"', "NaN": '{"w": NaN}', "twice": '{"w": 1, "w": 2}', "deep": "[" * 100_000,
    "deep dicts": '{"w":' * 100_000, "deep and closed": '{"w":' + "[" * 900 + "]" * 900 + "}",
    "unknown tensor": '{"w": {"$tensor": "nose"}}', "no name": '{"w": {"$tensor": [1]}}',
    "a name that is a number": '{"w": {"$tensor": 3}}', "a dict": '{"w": {"$tensor": {"a": 1}}}',
    "unknown array": '{"w": {"$array": "nose"}}', "half of pairs": '{"w": {"$pairs": [[1]]}}',
    "pairs of three": '{"w": {"$pairs": [[1, 2, 3]]}}', "no pairs": '{"w": {"$pairs": 3}}',
    "odd key": '{"w": {"$pairs": [[[1], 2]]}}', "no tuple": '{"w": {"$tuple": 3}}',
    "odd set": '{"w": {"$set": [[1]]}}', "odd float": '{"w": {"$float": "x"}}',
    "no float": '{"w": {"$float": [1]}}', "odd int": '{"w": {"$int": "zz"}}',
    "no int": '{"w": {"$int": null}}', "odd bytes": '{"w": {"$bytes": "a"}}',
    "no bytes": '{"w": {"$bytes": 3}}', "odd complex": '{"w": {"$complex": [1]}}',
    "no complex": '{"w": {"$complex": "ab"}}', "odd dtype": '{"w": {"$dtype": "load"}}',
    "no dtype": '{"w": {"$dtype": 3}}', "dotted dtype": '{"w": {"$dtype": "nn.Linear"}}',
    "odd device": '{"w": {"$device": "toaster"}}', "no device": '{"w": {"$device": [1]}}',
    "pairs at the top": '{"$pairs": [["w", 1], ["n", 2]]}', "tensor at the top": '{"$tensor": "w"}',
    "tuple at the top": '{"$tuple": [1]}', "device at the top": '{"$device": "cpu"}',
    "huge number": '{"w": ' + "9" * 5000 + "}", "huge exponent": '{"w": 1e999}',
    "odd counter": '{"w": {"$counter": 3}}', "odd metadata": '{"w": {"$metadata": 3}}',
    "metadata alone": '{"$metadata": {}}', "half a surrogate": '{"w": "\\ud800"}',
    "a tensor twice": '{"w": [{"$tensor":"w"},{"$tensor":"w"}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE_STATES)
def test_p42_nonsense_in_the_state_with_the_right_hashes_is_refused(tmp_path, name):
    save(tmp_path / "c", TINY)
    forge(tmp_path / "c", state=NONSENSE_STATES[name])
    assert_refused_without_a_crash(tmp_path / "c")


W = {"dtype": "float32", "shape": [2], "hash": hash_tensor(TINY["w"])}
NONSENSE_MANIFESTS = {
    "no files": {"files": {}}, "files that are words": {"files": "x"},
    "files without hashes": {"files": {"state.json": {}, "tensors.safetensors": {}}},
    "files that are null": {"files": None}, "tensors that are a list": {"tensors": ["w"]},
    "no tensors": {"tensors": {}}, "tensors that are null": {"tensors": None},
    "a tensor that is null": {"tensors": {"w": None}},
    "no hash": {"tensors": {"w": W | {"hash": 3}}},
    "odd dtype": {"tensors": {"w": W | {"dtype": "load"}}},
    "no dtype": {"tensors": {"w": W | {"dtype": 3}}},
    "other dtype": {"tensors": {"w": W | {"dtype": "complex128"}}},
    "wider dtype": {"tensors": {"w": W | {"dtype": "float64"}}},
    "quantized dtype": {"tensors": {"w": W | {"dtype": "qint8"}}},
    "other shape": {"tensors": {"w": W | {"shape": [3, 5]}}},
    "no shape": {"tensors": {"w": W | {"shape": "x"}}},
    "huge shape": {"tensors": {"w": W | {"dtype": "uint8", "shape": [2**62, 2**62]}}},
    "negative shape": {"tensors": {"w": W | {"dtype": "int32", "shape": [-1]}}},
    "another tensor": {"tensors": {"w": W, "v": W}},
    "same that is a list": {"same": ["w"]}, "same that is null": {"same": None},
    "same of nothing": {"same": {"w": "nose"}}, "same of itself": {"same": {"w": "w"}},
    "same of a list": {"same": {"w": ["w"]}}, "about that is null": {"about": None},
    "format that is a number": {"format": 3}, "format that is null": {"format": None},
    "produced by nobody": {"produced_by": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE_MANIFESTS)
def test_p42_nonsense_in_the_manifest_with_the_right_hash_is_refused(tmp_path, name):
    save(tmp_path / "c", TINY)
    forge(tmp_path / "c", NONSENSE_MANIFESTS[name])
    assert_refused_without_a_crash(tmp_path / "c")


@pytest.mark.parametrize("entry", ["format", "about", "files", "tensors", "same", "produced_by"])
def test_p42_a_manifest_that_lacks_an_entry_is_refused(tmp_path, entry):
    save(tmp_path / "c", TINY)
    forge(tmp_path / "c", lacks=entry)
    assert_refused_without_a_crash(tmp_path / "c")


@pytest.mark.parametrize("entry", ["about", "files", "tensors", "same", "produced_by"])
@pytest.mark.parametrize("value", [None, "x"])
def test_p42_who_reads_a_manifest_finds_its_entries(tmp_path, entry, value):
    save(tmp_path / "c", TINY)
    forge(tmp_path / "c", {entry: value})
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_manifest(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '"x"', "{}", "[" * 100_000, "{", "\xff"])
def test_p41_a_manifest_that_is_none_is_refused(tmp_path, text):
    save(tmp_path / "c", TINY)
    (tmp_path / "c" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"manifest\.json (is not what|cannot be read)"):
        load(tmp_path / "c")
    assert len(verify(tmp_path / "c")) == 1


HEADERS = [
    b"", b"{", b"{}", b"null", b"[]", b'{"w": 3}', b'{"w": {}}', b"\xff", b"{" * 10_000,
    b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
    b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,9000]}}',
    b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[-1,8]}}',
    b'{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"X","shape":[2],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}',
    b'{"w":{"dtype":"F32","shape":[1,2,1],"data_offsets":[0,8]}}',
    b'{"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    b'{"__metadata__":{"w":3}}',
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_p42_nonsense_in_the_header_with_the_right_hash_is_refused(tmp_path, header):
    save(tmp_path / "c", TINY)
    forge(tmp_path / "c", header=header)
    assert_refused_without_a_crash(tmp_path / "c")


@given(st.binary(max_size=60), st.sampled_from(FILES))
def test_p41_any_content_in_place_of_a_file_is_refused(tmp_path_factory, content, file):
    path = tmp_path_factory.mktemp("any") / "c"
    save(path, TINY)
    put(path, {file: content})
    with pytest.raises(CheckpointError):
        load(path)
    assert verify(path)


@given(st.data())
def test_p42_any_header_with_the_right_hash_is_no_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "c"
    save(path, TINY)
    whole = contents(path)[FILES[0]]
    header = bytearray(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(
            st.sampled_from(b'0123456789-,:[]{}"FIUBC wv')
        )
    forge(path, header=bytes(header))
    assert_refused_without_a_crash(path)


# --- forgeries: every hash is right, and the tensors are not what they are said to be -----------


def hash_of(dtype, shape, content):
    hashing = hasher(f"torch.{dtype}", shape)
    hashing.update(content)
    return hashing.hexdigest()


def forged(path, kinds, entries, content, same=None):
    """A checkpoint of tensors as a forger writes it.

    Args:
        path: where to.
        kinds: dtype and shape of each tensor, as the manifest has them.
        entries: what the header says of each.
        content: what comes after the header.
        same: the manifest's.
    """
    save(path, {})
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    whole = len(header).to_bytes(8, "little") + header
    (path / FILES[0]).write_bytes(whole + content)
    state = json.dumps({name: {"$tensor": name} for name in [*kinds, *(same or {})]})
    files = {
        FILES[0]: {"bytes": len(whole + content), "header": hash_bytes(whole)},
        "state.json": {"bytes": len(state), "hash": hash_bytes(state.encode())},
    }
    tensors = {}
    for name, (dtype, shape) in kinds.items():
        first, last, *_ = entries.get(name, {}).get("data_offsets", (0, 0))
        content_hash = hash_of(dtype, shape, content[int(first) : int(last)])
        tensors[name] = {"dtype": dtype, "shape": shape, "hash": content_hash}
    (path / "state.json").write_text(state)
    manifest = read_manifest(path) | {"files": files, "tensors": tensors, "same": same or {}}
    (path / "manifest.json").write_text(manifest_text(manifest))


def header_entry(first, last, dtype="F32", shape=None):
    shape = [(last - first) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


F2 = ("float32", [2])
FORGERIES = {
    "no bytes and a large shape": (
        {"w": ("float32", [1000, 1000])}, {"w": header_entry(0, 0, shape=[1000, 1000])}, 0),
    "no bytes and a shape that is not the header's": (
        {"w": ("float32", [1000])}, {"w": header_entry(0, 0, shape=[0])}, 0),
    "shape -1": ({"w": ("float32", [-1])}, {"w": header_entry(0, 8, shape=[-1])}, 8),
    "two negative lengths": (
        {"w": ("float32", [-1, -2])}, {"w": header_entry(0, 8, shape=[-1, -2])}, 8),
    "shape true": ({"w": ("float32", [True])}, {"w": header_entry(0, 4, shape=[True])}, 4),
    "shape 2.0": ({"w": ("float32", [2.0])}, {"w": header_entry(0, 8, shape=[2.0])}, 8),
    "no list": ({"w": ("float32", 2)}, {"w": header_entry(0, 8, shape=2)}, 8),
    "an empty one that is too long": (
        {"w": ("float32", [0, 2**63])}, {"w": header_entry(0, 0, shape=[0, 2**63])}, 0),
    "an empty one whose strides are too long": (
        {"w": ("float32", [0, 2**62, 4])}, {"w": header_entry(0, 0, shape=[0, 2**62, 4])}, 0),
    "overlapping": ({"v": F2, "w": F2}, {"v": header_entry(0, 8), "w": header_entry(4, 12)}, 12),
    "the same bytes": ({"v": F2, "w": F2}, {"v": header_entry(0, 8), "w": header_entry(0, 8)}, 8),
    "a gap": ({"v": F2, "w": F2}, {"v": header_entry(0, 8), "w": header_entry(12, 20)}, 20),
    "bytes at the end": ({"w": F2}, {"w": header_entry(0, 8)}, 16),
    "beyond the end": ({"w": ("float32", [4])}, {"w": header_entry(0, 16)}, 8),
    "backwards": ({"w": F2}, {"w": header_entry(8, 0, shape=[2])}, 8),
    "in the header": ({"w": F2}, {"w": header_entry(-8, 0)}, 0),
    "offsets that are no numbers": (
        {"w": F2}, {"w": {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}}, 8),
    "three offsets": (
        {"w": F2}, {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, 8),
    "another dtype": ({"w": F2}, {"w": header_entry(0, 8, "I32")}, 8),
    "a narrower dtype": ({"w": ("float16", [2])}, {"w": header_entry(0, 8)}, 8),
    "a wider dtype": ({"w": ("float64", [2])}, {"w": header_entry(0, 8, "F64")}, 8),
    "another shape": ({"w": ("float32", [2, 1])}, {"w": header_entry(0, 8)}, 8),
    "another order": ({"w": ("float32", [2, 3])}, {"w": header_entry(0, 24, shape=[3, 2])}, 24),
    "complex numbers that are said to be real": (
        {"w": ("complex64", [1])}, {"w": header_entry(0, 8)}, 8),
    "an unknown dtype": ({"w": ("load", [2])}, {"w": header_entry(0, 8)}, 8),
    "a dtype that is none": ({"w": ("qint8", [8])}, {"w": header_entry(0, 8, "U8", [8])}, 8),
    "a tensor that only the manifest has": ({"v": F2, "w": F2}, {"w": header_entry(0, 8)}, 8),
    "a tensor that only the header has": (
        {"w": F2}, {"v": header_entry(8, 16), "w": header_entry(0, 8)}, 16),
    "a dtype in lower case": ({"w": F2}, {"w": header_entry(0, 8, "f32")}, 8),
    "an entry more": ({"w": F2}, {"w": header_entry(0, 8) | {"name": "w"}}, 8),
    "tied to nothing": ({"w": F2}, {"w": header_entry(0, 8)}, 8, {"v": "nose"}),
    "tied to itself": ({"w": F2}, {"w": header_entry(0, 8)}, 8, {"w": "w"}),
    "tied to one that is tied": (
        {"w": F2}, {"w": header_entry(0, 8)}, 8, {"u": "v", "v": "w"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_tensor_is_refused_and_found(tmp_path, name):
    kinds, entries, count, *same = FORGERIES[name]
    try:
        forged(tmp_path / "c", kinds, entries, bytes(range(count)), *same)
    except TypeError:  # a hash of a shape that is none
        kinds = {one: (dtype, [shape]) for one, (dtype, shape) in kinds.items()}
        forged(tmp_path / "c", kinds, entries, bytes(range(count)), *same)
    with pytest.raises(CheckpointError):
        load(tmp_path / "c")
    assert verify(tmp_path / "c") or "dtype" in name
    seen_damages(tmp_path / "c")


def test_what_a_forger_may_write_is_what_save_writes(tmp_path):
    """The forgeries above are refused for what they say, and not for how they are made."""
    kinds = {"e": ("int8", [3, 0]), "v": F2, "w": ("bfloat16", [1, 2]), "z": ("complex64", [1])}
    entries = {"v": header_entry(0, 8), "z": header_entry(8, 16, "U8", [8]),
               "w": header_entry(16, 20, "BF16", [1, 2]), "e": header_entry(20, 20, "I8", [3, 0]),
               "__metadata__": {"format": "pt"}}  # fmt: skip
    forged(tmp_path / "c", kinds, entries, bytes(20), {"tied": "w"})
    assert verify(tmp_path / "c") == []
    state = load(tmp_path / "c")
    assert state["tied"] is state["w"]
    for name, (dtype, shape) in kinds.items():
        assert (state[name].dtype, list(state[name].shape)) == (getattr(torch, dtype), shape)


ODD_NUMBERS = [-(2**63), -8, -1, 0, 1, 2, 3, 4, 8, 12, 16, 24, 2**31, 2**62, 2**64, 1.5, "8", None]


def test_forgeries_at_random_load_nothing_but_their_own_bytes(tmp_path):
    chance = random.Random(0)
    loaded = 0
    for _ in range(600):
        kinds = {"v": ["float32", [2]], "w": ["int16", [2, 2]], "x": ["uint8", [8]]}
        words = {"v": "F32", "w": "I16", "x": "U8"}
        entries = {
            name: header_entry(8 * i, 8 * i + 8, words[name], [*kinds[name][1]])
            for i, name in enumerate(kinds)
        }
        for _ in range(chance.randrange(3)):
            name = chance.choice([*entries])
            which, odd = chance.randrange(6), chance.choice(ODD_NUMBERS)
            if which == 0:
                entries[name]["data_offsets"][chance.randrange(2)] = odd
            elif which == 1:
                entries[name]["shape"][chance.randrange(len(entries[name]["shape"]))] = odd
            elif which == 2:
                kinds[name][1] = [*kinds[name][1][1:], odd]
            elif which == 3:  # both alike
                kinds[name][1] = entries[name]["shape"] = chance.choice([[odd], [0, odd], [2, odd]])
            elif which == 4:
                entries[name]["dtype"] = chance.choice([*WORDS.values()])
            else:
                kinds[name][0] = chance.choice([*WORDS, "complex64", "float8_e5m2"])
                entries[name]["dtype"] = WORDS.get(kinds[name][0], "U8")
        content = bytes(chance.randrange(256) for _ in range(24))
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        try:
            forged(tmp_path / "c", kinds, entries, content)
        except TypeError:  # nothing that has a hash
            continue
        try:
            state = load(tmp_path / "c")
        except CheckpointError:
            assert verify(tmp_path / "c")
            continue
        loaded += 1
        assert verify(tmp_path / "c") == []
        for name, tensor in state.items():
            first, last = entries[name]["data_offsets"]
            assert bytes_of(tensor).tobytes() == content[first:last]
        assert sum(tensor.nbytes for tensor in state.values()) == 24
    assert loaded > 150


# --- something else in the place of a file ------------------------------------------------------


def in_place_of(path, what, monkeypatch=None):
    path.unlink()
    if what == "a named pipe":
        os.mkfifo(path)
    elif what == "a socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(path))  # whose name must be short
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to({"a device": "/dev/zero", "a terminal": "/dev/tty"}[what])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", ["a named pipe", "a socket", "a folder", "a device"])
def test_what_is_no_file_is_refused_and_not_read(tmp_path, file, what):
    save(tmp_path / "c", STATE)
    in_place_of(tmp_path / "c" / file, what)
    with pytest.raises(CheckpointError, match=f"{file} cannot be read .*is {what}, and no reg"):
        load(tmp_path / "c")
    (found,) = verify(tmp_path / "c")
    assert f"is {what}, and no regular file" in found
    (found,) = seen_damages(tmp_path / "c")
    assert f"{file} is {what}, and no regular file" in found
    content_of(tmp_path / "c")


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_any_size_is_looked_at_before_it_is_read(tmp_path, file):
    save(tmp_path / "c", STATE)
    os.truncate(tmp_path / "c" / file, 1 << 42)  # which takes no room on the disk
    with pytest.raises(CheckpointError, match=f"{file} (has|cannot be read)"):
        load(tmp_path / "c")
    assert len(verify(tmp_path / "c")) == 1
    content_of(tmp_path / "c")


def test_a_link_to_a_file_is_one(tmp_path):
    """As the caches of some hubs have them."""
    save(tmp_path / "c", STATE)
    for file in FILES:
        (tmp_path / "c" / file).rename(tmp_path / file)
        (tmp_path / "c" / file).symlink_to(tmp_path / file)
    assert_same(load(tmp_path / "c"), STATE)
