"""The CRC-32s in an archive of torch.save, at which torch itself does not look."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from descend.files import opened

BEGIN = b"PK\x03\x04"


def archive_damages(path: Path) -> list[str] | None:
    """Find the damages of an archive: every part whose CRC-32 differs.

    Args:
        path: a file of torch.save.

    Returns:
        Each damage in words; none if all parts are whole; None where no checksums are: in what
        torch wrote before 1.6 or was told to write without them, and in all other files.

    Raises:
        OSError: if it cannot be opened.

    Example:
        >>> import os, tempfile, torch
        >>> file = Path(tempfile.mkdtemp(), "new.pth")
        >>> torch.save({"epoch": 3}, file)
        >>> archive_damages(file)
        []
    """
    with opened(path) as file:
        begin = file.read(len(BEGIN))
        if not zipfile.is_zipfile(file):
            return ["the list of its parts is missing at its end"] if begin == BEGIN else None
        try:
            with zipfile.ZipFile(file) as archive:
                parts = archive.infolist()
                if not any(part.CRC for part in parts):
                    return None
                return [what for part in parts for what in _part_damages(archive, part)]
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive makes zipfile raise almost anything
            return [f"the list of its parts cannot be read ({error})"]


def _part_damages(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Iterator[str]:
    try:
        with archive.open(part) as file:
            while file.read(1 << 20):
                pass
    except MemoryError:
        raise
    except Exception as error:  # as above
        why = "its CRC-32 differs" if str(error).startswith("Bad CRC-32") else str(error)
        yield f"the part {part.filename} is not what was saved: {why or 'it ends too early'}"
