"""Where in the files that a user gave something failed."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from descend.errors import DescendError, TaskError


@contextmanager
def located(paths: Collection[Path], kind: type[DescendError]) -> Iterator[None]:
    """Name the line of a user's file where an error passed through one.

    Args:
        paths: the files, as `descend.user_file.run_file` got them.
        kind: the error that says it. One of a task is of its file even where no line is.
    """
    from descend.user_file import describe, locate

    try:
        yield
    except Exception as error:
        for path in paths:
            place = locate(error, path)
            if place != str(path) or isinstance(error, TaskError):
                raise kind(f"{place}: {describe(error)}") from error
        raise
