"""IDX, the file format of MNIST: a magic number, the sizes, the values.

    bytes 0-1   zero
    byte  2     the type of the values: 0x08 is the unsigned byte
    byte  3     the number of dimensions, d
    d * 4       the sizes, big-endian unsigned 32-bit
    the rest    the values, the last dimension fastest

Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits,
http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import torch

from descend.errors import DataError
from descend.files import opened
from descend.format import counted

UNSIGNED_BYTE = 0x08
DEFLATE_LIMIT = 1032  # deflate cannot pack more bytes than this into one


def read_images(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read a file of images in the IDX format, gzipped or not.

    Args:
        path: the file, such as `train-images-idx3-ubyte.gz`. Its first bytes tell whether it is
            gzipped; its name does not matter.

    Returns:
        uint8 of shape (images, rows, columns).

    Raises:
        DataError: if the file is missing, truncated, longer than it says, damaged, or holds
            anything but images of unsigned bytes; nothing is returned of a file that is not whole.

    Example:
        >>> images = read_images("train-images-idx3-ubyte.gz")

    Source: http://yann.lecun.com/exdb/mnist/.
    """
    return _read(Path(path), 3, "images")


def read_labels(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read a file of labels in the IDX format, gzipped or not.

    Args:
        path: the file, such as `train-labels-idx1-ubyte.gz`.

    Returns:
        uint8 of shape (labels,).

    Raises:
        DataError: as `read_images`.

    Example:
        >>> labels = read_labels("train-labels-idx1-ubyte.gz")

    Source: http://yann.lecun.com/exdb/mnist/.
    """
    return _read(Path(path), 1, "labels")


def _read(path: Path, dimensions: int, what: str) -> torch.Tensor:
    try:
        with opened(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not gzipped:
                return _parse(raw, path, size, dimensions, what)
            with gzip.GzipFile(fileobj=raw, mode="rb") as file:
                return _parse(cast(IO[bytes], file), path, size * DEFLATE_LIMIT, dimensions, what)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except EOFError as error:
        raise DataError(f"{path}: the gzip file is cut off; get it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is damaged ({error}); get it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(file: IO[bytes], path: Path, most: int, dimensions: int, what: str) -> torch.Tensor:
    """Read one array; `most` is what the file can hold at most, in bytes."""
    header = file.read(4 + 4 * dimensions)
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if len(header) >= len(expected) and header[:4] != expected:
        raise DataError(
            f"{path}: the file starts with 0x{header[:4].hex()}, and an IDX file of {what} starts "
            f"with 0x{expected.hex()}; give the {what} file in the format of MNIST"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(
            f"{path}: the file is cut off after {counted(len(header), 'byte')}, within its header "
            f"of {4 + 4 * dimensions}; get it again"
        )
    shape = struct.unpack(f">{dimensions}I", header[4:])
    length = math.prod(shape)
    sizes = "x".join(str(size) for size in shape)
    if length == 0:
        raise DataError(f"{path}: the file is empty: its header says {sizes} {what}")
    if len(header) + length > most:
        # Checked before reading: a damaged header must not ask for terabytes of memory
        raise DataError(
            f"{path}: the header promises {length} bytes ({sizes}), and the file cannot hold more "
            f"than {max(0, most - len(header))}: it is cut off or damaged; get it again"
        )
    values = bytearray(file.read(length + 1))
    if len(values) != length:
        came = f"only {len(values)}" if len(values) < length else "more"
        raise DataError(
            f"{path}: the header promises {length} bytes ({sizes}), and the file holds {came}: it "
            f"is cut off or damaged; get it again"
        )
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)
