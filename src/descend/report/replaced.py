"""A file that is replaced whole: written under another name, and renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from descend.errors import OutputError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """The name to write a file under, which gets its own at the end; an error leaves what was.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "lr.csv")
        >>> with replaced(path) as temporary:
        ...     _ = temporary.write_text("step,lr")
        >>> path.read_text()
        'step,lr'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
