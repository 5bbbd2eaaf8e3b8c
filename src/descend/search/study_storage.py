"""Where Optuna keeps a search: SQLite, a journal file, or a database; and what happens to it."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from descend.errors import DescendError, SearchError
from descend.files import open_own, refuse_foreign
from descend.user_file import describe

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

BEAT, GRACE = 10, 60  # seconds between signs of life in a database, and until they are missed


def need_optuna() -> None:
    """Refuse to go on where Optuna is not installed.

    Raises:
        SearchError: with the line that installs it.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise SearchError(
            "tune searches with Optuna, which is not installed: pip install 'descend[tune]'"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Let Optuna neither log nor warn of what is experimental in it."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="optuna")
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(asked: str | None, folder: Path) -> "BaseStorage":
    """The storage of a search.

    Args:
        asked: a journal file, or the URL of a database; None for SQLite in the folder.
        folder: of the search.

    Raises:
        SearchError: it cannot be reached.
    """
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    with reached(asked, folder):
        if asked is None:
            return get_storage(f"sqlite:///{folder.resolve() / 'study.db'}")
        if "://" not in asked:
            refuse_foreign(Path(asked))
            lock: Any = JournalLock(asked)
            return JournalStorage(JournalFileBackend(asked, lock_obj=lock))
        beat = None if asked.startswith("sqlite") else BEAT
        return get_storage(RDBStorage(asked, heartbeat_interval=beat, grace_period=GRACE))


class JournalLock:
    """The lock of a journal file: the system gives it back when the process dies.

    Optuna's own outlive a kill, and the others wait for half a minute.

    Args:
        journal: the file.
    """

    def __init__(self, journal: str) -> None:
        self._path = Path(f"{journal}.lock")
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        self._file = open_own(self._path)
        with suppress(ImportError):  # not a POSIX system
            import fcntl

            fcntl.lockf(self._file.fileno(), fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give it back."""
        assert self._file is not None
        self._file.close()


@contextmanager
def reached(asked: str | None, folder: Path) -> Iterator[None]:
    """Tell in one line of a storage that does not answer, or is full.

    Raises:
        SearchError: it does not.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with quiet():
            yield
    except (StorageInternalError, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        if isinstance(error, DescendError):
            raise
        cause = error.__cause__ if isinstance(error, StorageInternalError) else None
        why = describe(getattr(cause, "orig", None) or getattr(error, "orig", None) or error)
        raise SearchError(
            f"{_where(asked, folder)}: the storage cannot be used: {why}; see that it is there, "
            f"that it can be written and that there is room, and give the same command again"
        ) from error


def _where(asked: str | None, folder: Path) -> str:
    """The storage in words, without a password."""
    if asked is None:
        return str(folder / "study.db")
    if "://" in asked:
        from sqlalchemy.engine import make_url

        try:
            return f"--storage {make_url(asked).render_as_string(hide_password=True)}"
        except Exception:  # as no URL can be told whole, for the password in it
            return f"--storage {asked.partition('://')[0]}://..."
    return f"--storage {asked}"


class Heartbeat:
    """Signs of life of the trials of this process, in a database that keeps them.

    Args:
        storage: any; a file keeps none.
    """

    def __init__(self, storage: "BaseStorage") -> None:
        self._backend: Any = getattr(storage, "_backend", storage)
        self.kept = bool(getattr(self._backend, "heartbeat_interval", None))
        self._over = threading.Event()
        self._trials: tuple[int, ...] = ()
        if self.kept:
            threading.Thread(target=self._beat, daemon=True).start()

    def of(self, *trials: int) -> None:
        """Give signs of life of these, by Optuna's identifiers, and of no others."""
        self._trials = trials
        if self.kept:
            for one in trials:
                self._backend.record_heartbeat(one)

    def missed(self, study: int) -> set[int]:
        """The running trials that have given none for long."""
        return set(self._backend._get_stale_trial_ids(study)) if self.kept else set()

    def stop(self) -> None:
        """Give no more."""
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                for one in self._trials:
                    self._backend.record_heartbeat(one)
            except Exception:  # noqa: S112 - the main thread tells of a storage that is gone
                continue
