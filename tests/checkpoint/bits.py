"""States of every kind, and a comparison of two of them that knows nothing of descend's own."""

import struct
from math import isnan

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint64, torch.uint32, torch.uint16, torch.uint8,
    torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip
OF_NUMPY = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


def raw(tensor):
    """A tensor's bytes in row-major order."""
    if not tensor.numel():
        return b""
    dense = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return dense.flatten().view(torch.uint8).numpy().tobytes()


def from_bytes(content, dtype, shape):
    """A tensor whose values have these bytes."""
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(dtype).reshape(shape)


def random_tensor(dtype, shape, seed=0):
    """A tensor of random bits: NaNs of all kinds, infinities and subnormal numbers among them."""
    count = int(np.prod(shape)) * torch.empty((), dtype=dtype).element_size()
    content = np.random.default_rng(seed).bytes(count)
    if dtype is torch.bool:
        content = bytes(byte & 1 for byte in content)
    return from_bytes(content, dtype, shape)


def assert_same(a, b, path="the state"):
    """Raise unless both are of one type and equal bit for bit; the order of keys is free."""
    assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert raw(a) == raw(b), path
    elif isinstance(a, np.ndarray | np.generic):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), path
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b) or (isnan(a) and isnan(b)), path
    elif isinstance(a, complex):
        assert_same(a.real, b.real, path)
        assert_same(a.imag, b.imag, path)
    elif isinstance(a, dict):
        assert {(type(key), key) for key in a} == {(type(key), key) for key in b}, path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{path}.{index}")
    elif isinstance(a, set | frozenset):
        assert {(type(item), item) for item in a} == {(type(item), item) for item in b}, path
    else:
        assert a == b, path


@st.composite
def tensors(draw):
    """Tensors of any dtype, shape and layout."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    tensor = random_tensor(dtype, shape, draw(st.integers(0, 2**32)))
    layout = draw(st.sampled_from(["dense", "transposed", "strided", "expanded"]))
    if layout == "transposed":
        return tensor.permute(tuple(reversed(range(tensor.dim()))))
    if layout == "strided" and tensor.dim():
        return tensor[::2]
    if layout == "expanded":
        return tensor.expand(2, *shape)
    return tensor


def plain():
    """Values that are no containers."""
    exact = st.floats(allow_nan=True, allow_infinity=True)
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        exact,
        st.complex_numbers(allow_nan=True, allow_infinity=True),
        st.text(max_size=5),
        st.text(st.characters(categories=["Cs"]), max_size=1),  # JSON joins two of them
        st.binary(max_size=5),
        st.binary(max_size=5).map(bytearray),
        st.sampled_from(DTYPES),
        st.sampled_from([torch.device("cpu"), torch.device("cuda", 1)]),
    )


def numpy_values():
    """Arrays of any shape and dtype, in C's and in Fortran's order, and NumPy's scalars."""
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    held = st.sampled_from(OF_NUMPY).flatmap(lambda kind: arrays.arrays(kind, shapes))
    scalars = held.filter(lambda array: array.size and array.dtype != np.float64)
    return st.one_of(
        held, held.map(np.asfortranarray), scalars.map(lambda array: array.reshape(-1)[0])
    )


def states():
    """Nested states with everything in them that a checkpoint takes."""
    names = st.one_of(
        st.sampled_from(["", "$tensor", "$x", "a", "a.b", "a#2", "state", "model", "Ä", "\x00"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    )
    hashable = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(0, 3)))
    leaves = st.one_of(
        plain(), tensors(), numpy_values(), st.sets(hashable), st.frozensets(hashable)
    )

    def nested(inner):
        return st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(names, inner, max_size=3),
            st.dictionaries(st.one_of(names, st.integers()), inner, max_size=3),
        )

    return st.dictionaries(names, st.recursive(leaves, nested, max_leaves=8), max_size=4)
