"""A search that several processes work on: what is known of it, and who does what.

Each change is made while the lock of the search's folder is held, and what it depends on is read
there. A process that has died is known by its own lock, which the system has given back; by a
heartbeat where locks of other machines cannot be seen and the storage keeps one.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from descend.errors import RunError, SearchError
from descend.run.lock import LOCK, Lock, is_held, lock
from descend.run.run_folder import prepare_folder
from descend.search.asked_trials import Asked
from descend.search.json_file import read_json, write_json
from descend.search.study_storage import Heartbeat, open_storage, reached
from descend.training.saved_command import changed

NOTE, TRIALS, PROCESSES = "search.json", "trials", ".processes"
LOOK, WAIT = 0.02, 0.5  # seconds between looks at the lock, and at what others do
HOST = socket.gethostname()


class SharedSearch:
    """A search in a folder and in a storage of Optuna's.

    Args:
        folder: new, empty, or of this search.
        storage: a journal file or the URL of a database; None for SQLite in the folder.
        options: what decides what comes out, by the names of the options.
        files: hashes of the user's files by their names.
        highest: whether more is better.

    Raises:
        OutputError: the folder cannot be used.
        SearchError: it is another search's, or the storage cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None,
        options: Mapping[str, Any],
        files: Mapping[str, str],
        highest: bool,
    ) -> None:
        self.folder, self.doubts = folder, list[str]()
        self._asked = storage
        self._study_of(options, files, highest)
        self.me = f"{HOST}-{os.getpid()}-{uuid4().hex[:6]}"
        own = folder / PROCESSES / self.me
        own.mkdir(parents=True)
        self._alive: Lock | None = lock(own)
        self._beat = Heartbeat(self.storage)

    def _study_of(
        self, options: Mapping[str, Any], files: Mapping[str, str], highest: bool
    ) -> None:
        """Find the study of the folder's search, or begin one."""
        from optuna.study import StudyDirection

        prepare_folder(self.folder, NOTE)
        with self.changing():
            note = self._note(options, files)  # first: by it the folder is known as a search's
            (self.folder / TRIALS).mkdir(exist_ok=True)
            self.storage = open_storage(self._asked, self.folder)
            known = {one.study_name: one for one in self.storage.get_all_studies()}
            if note["study"] not in known:
                if any((self.folder / TRIALS).iterdir()):
                    raise SearchError(
                        f"{self.folder} holds trials of a search that the storage does not know; "
                        f"give the --storage that it was begun with, or another --out"
                    )
                for one in known.values():
                    if one.user_attrs.get("options") == dict(options):
                        raise SearchError(
                            f"--storage holds this search already, with its trials in "
                            f"{one.user_attrs.get('folder')}; give that with --out, on a path "
                            f"that all machines share, or another --storage"
                        )
                way = StudyDirection.MAXIMIZE if highest else StudyDirection.MINIMIZE
                self._study = self.storage.create_new_study([way], note["study"])
                place = f"{self.folder.resolve()} on {HOST}"
                self.storage.set_study_user_attr(self._study, "folder", place)
                self.storage.set_study_user_attr(self._study, "options", dict(options))
            self._study = self.storage.get_study_id_from_name(note["study"])

    def _note(self, options: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
        """The note in the folder of its search; written where it says nothing yet."""
        path = self.folder / NOTE
        if not path.exists():
            name = f"{self.folder.resolve().name}-{uuid4().hex[:8]}"
            new = {"study": name, "options": dict(options), "files": dict(files)}
            write_json(path, new)
        note = read_json(path, ["study", "options", "files"], "give another --out")
        if other := changed(note["options"], options):
            raise SearchError(
                f"{self.folder} is of another search: {', '.join(other)}; give another --out, or "
                f"the same options"
            )
        self.doubts = [
            f"{name} has changed since the search was begun: trials before and after may differ"
            for name, content in files.items()
            if note["files"].get(name) != content
        ]
        return note

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the search: nobody else changes anything meanwhile.

        Raises:
            SearchError: the storage cannot be used.
        """
        with held_alone(self.folder), reached(self._asked, self.folder):
            yield

    def trials(self) -> list[Asked]:
        """All trials, by number."""
        found: dict[int, Asked] = {}
        for known in self.storage.get_all_trials(self._study, deepcopy=False):
            about = known.user_attrs
            if "trial" in about:  # else somebody else's; one that went on is there again
                found[about["trial"]] = _asked(known)
        return [found[number] for number in sorted(found)]

    def add(self, one: Asked) -> None:
        """Begin a trial, or have it go on, as this process's."""
        from optuna.trial import TrialState, create_trial

        one.owner = self.me
        self.storage.create_new_trial(
            self._study,
            create_trial(
                state=TrialState.RUNNING,
                params=one.params,
                distributions=one.distributions,
                intermediate_values=one.values,
                user_attrs={
                    "trial": one.number,
                    "folder": f"{TRIALS}/{one.number:04}",
                    "generation": one.generation,
                    "size": one.size,
                    "begun": one.begun,
                    "start": one.start,
                    "owner": self.me,
                },
            ),
        )

    def claim(self, one: Asked) -> None:
        """Take over a trial."""
        self.storage.set_trial_user_attr(one.id, "owner", self.me)
        shutil.rmtree(self.folder / PROCESSES / one.owner, ignore_errors=True)
        one.owner = self.me

    def report(self, one: Asked, rung: int, value: float, start: float | None) -> None:
        """Note the value of a trial at a rung, and the one before its first step."""
        if one.start is None:
            self.storage.set_trial_user_attr(one.id, "start", start)
            one.start = start
        self.storage.set_trial_intermediate_value(one.id, rung, value)
        one.values[rung] = value

    def end(self, one: Asked, state: str, *, value: float | None = None, why: str = "") -> None:
        """Note that a trial is done, paused, diverged or failed."""
        from optuna.trial import TrialState

        if why:
            self.storage.set_trial_user_attr(one.id, state, why)
        kind = {"done": TrialState.COMPLETE, "failed": TrialState.FAIL}
        values = None if value is None else [value]
        self.storage.set_trial_state_values(one.id, kind.get(state, TrialState.PRUNED), values)
        one.state, one.value, one.why = state, value, why

    def beat(self, trials: list[Asked]) -> None:
        """Give signs of life of these."""
        self._beat.of(*(one.id for one in trials))

    def orphaned(self, trials: list[Asked]) -> list[Asked]:
        """The running trials whose process is no more, and that nobody trains any more."""
        running = [one for one in trials if one.state == "running" and one.owner != self.me]
        missed = self._beat.missed(self._study) if running else set()
        lives = {one.owner: self._lives(one, missed) for one in running}
        return [one for one in running if not lives[one.owner] and not self._trained(one)]

    def _lives(self, one: Asked, missed: set[int]) -> bool:
        place = self.folder / PROCESSES / one.owner
        held = is_held(place)
        if held is None:  # the question cannot be asked here: try
            try:
                lock(place)
            except RunError:
                return True
            except OSError:
                pass
        if held or not self._beat.kept or one.owner.startswith(f"{HOST}-"):
            return bool(held)
        return one.id not in missed

    def _trained(self, one: Asked) -> bool:
        """Whether a process that its own has left behind is still at it."""
        folder = self.folder / TRIALS / f"{one.number:04}"
        return any(is_held(path.parent) for path in folder.glob(f"**/{LOCK}"))

    def close(self) -> None:
        """Leave the search to others."""
        self._beat.stop()
        self._alive = None
        shutil.rmtree(self.folder / PROCESSES / self.me, ignore_errors=True)


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold a folder that no run is in; wait for who else has it."""
    while True:
        try:
            held = lock(folder)
            break
        except RunError:
            time.sleep(LOOK)
    try:
        yield
    finally:
        del held


def _asked(known: Any) -> Asked:
    """A trial of Optuna's as one of the search."""
    about = known.user_attrs
    states = {"RUNNING": "running", "COMPLETE": "done", "FAIL": "failed", "PRUNED": "paused"}
    state = states[known.state.name]
    why = about.get("failed", "")
    if "diverged" in about and state == "paused":
        state, why = "diverged", about["diverged"]
    return Asked(
        number=about["trial"],
        params=dict(known.params),
        distributions=dict(known.distributions),
        state=state,
        values={int(rung): value for rung, value in known.intermediate_values.items()},
        value=known.value if state == "done" else None,
        generation=about["generation"],
        size=about["size"],
        owner=about["owner"],
        why=why,
        begun=about["begun"],
        start=about["start"],
        id=known._trial_id,
    )
