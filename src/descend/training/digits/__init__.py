"""1,797 handwritten digits of 8x8 pixels, shipped with descend (ATTRIBUTION.md says whose)."""

from importlib.resources import as_file, files

import torch

from descend.training.idx import read_images, read_labels


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Load the handwritten digits that descend ships: real data, without a download.

    Returns:
        The images, uint8 of shape (1797, 8, 8) with values 0 (paper) to 16 (ink), and the labels,
        uint8 of shape (1797,), 0 to 9. For a loss, `images / 16` and `labels.long()`.

    Example:
        >>> images, labels = load_digits()
        >>> images.shape, labels[:3].tolist()
        (torch.Size([1797, 8, 8]), [0, 1, 2])

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0.
    """
    with as_file(files(__name__)) as folder:
        return (
            read_images(folder / "images-idx3-ubyte.gz"),
            read_labels(folder / "labels-idx1-ubyte.gz"),
        )
