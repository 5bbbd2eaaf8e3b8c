"""Data that the suite's tasks learn: a text and a table (ATTRIBUTION.md says whose)."""

import gzip
import hashlib
import io
import zlib
from functools import cache
from importlib.resources import files

import numpy as np
import torch

from descend.errors import DataError

DIGESTS = {
    "plays.txt.gz": "14701ccf34e2bf65a59aeb6e36a37bd9ce1e2b136ecba08a39c22064aa0842a4",
    "rentals.csv.gz": "c0423e134977d9c02fb173e40a141a54034183b0767c970c6bf36be7ce1d77e7",
}
"""SHA-256 of each file's content, unpacked."""


@cache
def load_plays() -> bytes:
    """Load 330 KB from plays of Shakespeare: 63 different characters.

    Example:
        >>> load_plays()[:14]
        b'First Citizen:'

    Source: `ATTRIBUTION.md`; public domain.
    """
    return _unpacked("plays.txt.gz")


@cache
def load_rentals() -> dict[str, torch.Tensor]:
    """Load the bicycles rented in each of 17,379 hours of 2011 and 2012, with weather and calendar.

    Returns:
        By the name of the column, whole numbers of shape (17379,): the calendar's `year` (0, 1),
        `month` (1 to 12), `hour` (0 to 23), `holiday`, `weekday` (0 to 6) and `workingday`; the
        `weather` (1 clear to 4 heavy rain), the `temperature` (from -8 to 39 degrees in 50 steps),
        the `humidity` in percent and the `wind` (0 to 57); and `rentals`, 1 to 977. They are the
        same tensors at each call.

    Example:
        >>> load_rentals()["rentals"][:3]
        tensor([16, 40, 32])

    Source: H. Fanaee-T, Bike Sharing, UCI Machine Learning Repository, 2013,
    https://doi.org/10.24432/C5W894, CC BY 4.0.
    """
    lines = io.StringIO(_unpacked("rentals.csv.gz").decode())
    names = lines.readline().strip().split(",")
    table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.int64))
    return dict(zip(names, table.T.contiguous(), strict=True))


def _unpacked(name: str) -> bytes:
    """The content of a file, if it is the one that was shipped."""
    try:
        content = gzip.decompress((files(__name__) / name).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read ({error}); install descend again") from error
    if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
        raise DataError(f"{name}: the file is not the one that was shipped; install descend again")
    return content
