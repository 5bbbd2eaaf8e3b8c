"""IDX files for tests, written byte by byte: no reader of ours checks itself."""

import gzip
import struct

import numpy as np

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array):
    """An array of unsigned bytes in the IDX format."""
    array = np.asarray(array, dtype=np.uint8)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def striped(count, rows, columns, classes, seed):
    """Images that are easy to tell apart, and their labels: class k has a bright row k."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, rows, columns))
    images[np.arange(count), labels] += 150
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_folder(folder, rows=28, columns=28, classes=10, sizes=(200, 50), gzipped=False):
    """A folder as MNIST's, with easy images."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for seed, count in enumerate(sizes):
        arrays.extend(striped(count, rows, columns, classes, seed))
    for name, array in zip(NAMES, arrays, strict=True):
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return folder
