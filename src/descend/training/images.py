"""Classifying images: the network and the two tasks that `descend train` brings along."""

import os
from pathlib import Path
from stat import S_ISDIR

import torch
from torch import nn

from descend.errors import DataError
from descend.format import counted
from descend.training.digits import load_digits
from descend.training.idx import read_images, read_labels
from descend.training.task import Task, accuracy

SMALLEST = 4  # pixels a side: below, two poolings leave nothing to look at
LARGEST_FULL = 16  # pixels a side up to which every convolution is worth its time
DROPOUT = 0.3
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
         "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")  # fmt: skip


def digits_task() -> Task:
    """The task of telling the 1,797 digits that descend ships apart.

    The split is fixed, the same in every run, and stratified: of each digit's images, in the
    file's order, every fifth is test data; of the others, one in ten is validation data. That is
    1,293 training, 149 validation and 355 test images.

    Returns:
        The task, its network freshly initialised from torch's global generator.

    Example:
        >>> digits_task().model

    Source: `load_digits`.
    """
    images, labels = load_digits()
    test = _position_in_class(labels) % 5 == 4  # noqa: PLR2004
    return image_task((images[~test], labels[~test]), (images[test], labels[test]))


def idx_task(folder: Path) -> Task:
    """The task of classifying the images in a folder of IDX files, such as MNIST's.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
            `t10k-images-idx3-ubyte` (test) and `t10k-labels-idx1-ubyte`, each as it is or with
            `.gz` after its name.

    Returns:
        The task: of each class's training images one in ten is validation data.

    Raises:
        DataError: if a file is missing or cannot be used: which, why, and what to do.

    Example:
        >>> idx_task(Path("/usr/share/datasets/fashion-mnist"))

    Source: http://yann.lecun.com/exdb/mnist/.
    """
    try:
        what = None if S_ISDIR(folder.stat().st_mode) else "is a file"
    except FileNotFoundError:
        what = "is missing"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    if what is not None:
        raise DataError(
            f"--data {folder}: the folder {what}; give the folder that holds {FILES[0]}(.gz) "
            f"and the three files beside it"
        )
    train_images, train_labels, test_images, test_labels = (_find(folder, name) for name in FILES)
    train = _read_pair(train_images, train_labels)
    test = _read_pair(test_images, test_labels)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{test_images}: its images are {_size(test[0])} pixels, and those of {train_images} "
            f"are {_size(train[0])}: both must be of one size"
        )
    if int(test[1].max()) > int(train[1].max()):
        raise DataError(
            f"{test_labels}: it holds the label {int(test[1].max())}, and {train_labels} only 0 "
            f"to {int(train[1].max())}: every class needs training images"
        )
    if min(train[0].shape[1:]) < SMALLEST:
        raise DataError(
            f"{train_images}: its images are {_size(train[0])} pixels, and the network needs at "
            f"least {SMALLEST}x{SMALLEST}"
        )
    if not (_position_in_class(train[1]) == 1).any():
        raise DataError(
            f"{train_labels}: no class has two images, so that none is left for validation; add "
            f"images"
        )
    return image_task(train, test)


def image_task(
    train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]
) -> Task:
    """The task of classifying grey images.

    Pixels are standardized by the mean and the standard deviation of the training pixels. One in
    ten of each class's training images, the second and every tenth after it, is validation data.

    Args:
        train: uint8 images of shape (n, rows, columns) and uint8 labels of shape (n,).
        test: the same.

    Returns:
        The task: `cnn`, cross-entropy, accuracy.

    Example:
        >>> image_task((images[:1500], labels[:1500]), (images[1500:], labels[1500:]))

    Source: the recipe of MNIST's many tutorials.
    """
    images, labels = train
    held_out = _position_in_class(labels) % 10 == 1
    pixels = images[~held_out].double()
    mean, deviation = float(pixels.mean()), float(pixels.std(correction=0)) or 1.0

    def prepare(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ((images.float() - mean) / deviation).unsqueeze(1), labels.long()

    rows, columns = images.shape[1:]
    return Task(
        model=cnn(rows, columns, classes=int(labels.max()) + 1),
        train=prepare(images[~held_out], labels[~held_out]),
        validation=prepare(images[held_out], labels[held_out]),
        loss=nn.functional.cross_entropy,
        metrics={"accuracy": accuracy},
        test=prepare(*test),
    )


def cnn(rows: int, columns: int, classes: int) -> nn.Sequential:
    """A small convolutional network for grey images of any size from 4x4.

    Three 3x3 convolutions of 32, 32 and 64 channels, each with batch normalization and ReLU; a
    2x2 max-pooling after the second and the third, and, for images of more than 16 pixels a side,
    one after the first, by as much as brings them to 16; dropout; one linear layer.

    Args:
        rows: the images' height in pixels.
        columns: their width in pixels.
        classes: how many classes to tell apart.

    Returns:
        A module from (n, 1, rows, columns) to scores of shape (n, classes), freshly initialised
        from torch's global generator: 30,762 parameters for 8x8 and ten classes.

    Example:
        >>> cnn(8, 8, classes=10)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Source: the layout of LeNet (Y. LeCun et al., Gradient-Based Learning Applied to Document
    Recognition, 1998) with batch normalization (S. Ioffe and C. Szegedy, 2015).
    """
    shrink = -(-max(rows, columns) // LARGEST_FULL)
    for factor in (shrink, 2, 2):
        rows, columns = -(-rows // factor), -(-columns // factor)

    def block(inputs: int, outputs: int, pool: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(pool, ceil_mode=True) if pool > 1 else nn.Identity(),
        ]

    return nn.Sequential(
        *block(1, 32, shrink),
        *block(32, 32, 2),
        *block(32, 64, 2),
        nn.Flatten(),
        nn.Dropout(DROPOUT),
        nn.Linear(64 * rows * columns, classes),
    )


def _position_in_class(labels: torch.Tensor) -> torch.Tensor:
    """For each label, how many of its kind come before it."""
    position = torch.empty(len(labels), dtype=torch.int64)
    for label in torch.unique(labels):
        where = labels == label
        position[where] = torch.arange(int(where.sum()))
    return position


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if os.path.isfile(path):  # Path's own raises where it may not look
            return path
    raise DataError(
        f"--data {folder}: {name} is missing, and so is {name}.gz; the folder must hold "
        f"{', '.join(FILES[:3])} and {FILES[3]}, gzipped or not"
    )


def _read_pair(images_path: Path, labels_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = read_images(images_path), read_labels(labels_path)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: it holds {counted(len(labels), 'label')}, and {images_path} holds "
            f"{counted(len(images), 'image')}: each image needs one label; get both from one source"
        )
    return images, labels


def _size(images: torch.Tensor) -> str:
    return f"{images.shape[1]}x{images.shape[2]}"
