"""IDX files: read right, and every way of being broken told apart from being whole."""

import gzip
import struct

import numpy as np
import pytest
import torch

from descend.errors import DataError
from descend.training import digits_task, idx_task, load_digits, read_images, read_labels
from descend.training.images import cnn
from training.idx_files import NAMES, idx_bytes, write_folder

ARRAY = np.arange(2 * 3 * 4).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_images_and_labels_are_read(tmp_path, pack):
    (tmp_path / "i").write_bytes(pack(idx_bytes(ARRAY)))
    (tmp_path / "l").write_bytes(pack(idx_bytes([7, 8])))
    assert read_images(tmp_path / "i").tolist() == ARRAY.tolist()
    assert read_labels(tmp_path / "l").tolist() == [7, 8]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_every_truncation_and_every_addition_is_refused(tmp_path, pack):
    whole = pack(idx_bytes(ARRAY))
    for broken in [whole[:length] for length in range(len(whole))] + [whole + b"\x01"]:
        (tmp_path / "i").write_bytes(broken)
        with pytest.raises(DataError):
            read_images(tmp_path / "i")


def test_gzip_data_with_a_flipped_bit_is_refused(tmp_path):
    whole = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, (2, 9, 9))), mtime=0)
    for place in range(10, len(whole)):  # the ten bytes before hold a date and such
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "i").write_bytes(damaged)
        with pytest.raises(DataError):
            read_images(tmp_path / "i")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_header_that_promises_terabytes_is_refused_at_once(tmp_path, pack):
    (tmp_path / "i").write_bytes(pack(struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3) + b"abc"))
    with pytest.raises(DataError, match="the header promises"):
        read_images(tmp_path / "i")


def test_the_digits_are_the_real_ones():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == labels.dtype == torch.uint8
    assert (int(images.min()), int(images.max())) == (0, 16)
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]  # the source file's first line
    assert int(labels[0]) == 0


def test_the_split_is_fixed_stratified_and_without_overlap():
    task = digits_task()
    sizes = [len(part[1]) for part in (task.train, task.validation, task.test)]
    assert sizes == [1293, 149, 355]
    for part in (task.train, task.validation, task.test):
        counts = torch.bincount(part[1], minlength=10)
        assert counts.max() - counts.min() <= len(part[1]) * 0.02 + 2
    pixels = torch.cat([part[0] for part in (task.train, task.validation, task.test)])
    whole = load_digits()[0].unique(dim=0)
    assert len(pixels.unique(dim=0)) == len(whole)
    torch.manual_seed(5)
    assert torch.equal(digits_task().test[0], task.test[0])


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (5, 31), (28, 28), (64, 48)], ids=str)
def test_the_network_takes_every_size(size):
    network = cnn(*size, classes=3)
    outputs = network(torch.zeros(1, 1, *size))  # batch normalization in training, batch of one
    assert outputs.shape == (1, 3)


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_folder_becomes_a_task(tmp_path, gzipped):
    task = idx_task(write_folder(tmp_path, gzipped=gzipped))
    assert task.train[0].shape == (180, 1, 28, 28)
    assert task.validation[0].shape == (20, 1, 28, 28)
    assert task.test[0].shape == (50, 1, 28, 28)
    assert abs(float(task.train[0].mean())) < 1e-4
    assert abs(float(task.train[0].std()) - 1) < 1e-3


def test_images_of_one_colour_do_not_become_nan(tmp_path):
    write_folder(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(idx_bytes(np.zeros((200, 28, 28))))
    assert torch.isfinite(idx_task(tmp_path).train[0]).all()
