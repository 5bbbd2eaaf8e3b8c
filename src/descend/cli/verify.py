"""`descend verify`: read checkpoints and say whether they are whole."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.cli.loading import readable
from descend.errors import CheckpointError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

DAMAGED, INPUT = 1, 2
LARGE = 10_000_000  # bytes that take long enough to speak of a speed
BIG = 200_000_000  # bytes that take long enough to show that something is going on
MOST_TOLD = 20  # damages of one checkpoint, but with --json
ARCHIVE = b"PK\x03\x04"  # how a file of torch.save begins

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Read checkpoints, every byte of them, and say whether they are what was saved.

\b
Each PATH is one of
  a run's folder          all of its checkpoints, and which one the run would go on from
  a checkpoint            a folder that holds a manifest.json
  a folder of these       of checkpoints and runs
  a .pth, .pt or .ckpt    a file of torch.save: the CRC-32 of each of its parts is checked,
                          which torch.load does not do

\b
Examples:
  descend verify runs/mine
  descend verify runs/mine/checkpoints/step-00000420
  descend verify runs/*                    every run there is
  descend verify old.pth
  descend verify runs/mine && rsync -a runs/mine backup:
  descend verify runs/mine --json          for a program to read

A checkpoint is whole if every tensor has the hash that it was saved with, and so has everything
else in it. If not, each damage is named: which tensor, which file. Nothing is changed.

\b
Exit status: 0 all are whole, 1 one is damaged, 2 nothing is damaged but a PATH holds no
checkpoint, 130 interrupted.
"""


@dataclass(frozen=True)
class Found:
    """What is at a path.

    Args:
        path: as it was given.
        kind: "checkpoint", "run", "checkpoints" (of a run, without its folder), "folder" (of
            checkpoints with names of their own, and of runs), or "torch file".
        checkpoints: where they are; those of a run are the oldest first.
    """

    path: Path
    kind: str
    checkpoints: tuple[Path, ...]

    @property
    def is_series(self) -> bool:
        """Whether the newest whole one is used when the path is loaded."""
        return self.kind in ("run", "checkpoints")

    @property
    def is_one(self) -> bool:
        """Whether the path is a checkpoint itself."""
        return self.kind in ("checkpoint", "torch file")

    def name(self, checkpoint: Path) -> str:
        """What a checkpoint is called beside the others."""
        if self.is_one:
            return str(self.path)
        return checkpoint.name if self.is_series else str(checkpoint.relative_to(self.path))


def find(path: Path) -> Found:
    """Find the checkpoints that a path stands for; they are not read.

    Args:
        path: a checkpoint or a file in it, a run's folder, a folder of checkpoints, or a file of
            torch's.

    Returns:
        What is there; no checkpoint where a run has none yet.

    Raises:
        CheckpointError: if nothing is there.

    Example:
        >>> find(Path("runs/mine")).kind
        'run'
    """
    with readable(path):
        return _find(path)


def damages_of(
    path: Path, progress: Callable[[int], None] = lambda count: None
) -> list[str] | None:
    """Read a checkpoint or a file of torch's, and say what in it is damaged.

    Args:
        path: one of what `find` gives.
        progress: called with the bytes of each part that was read.

    Returns:
        Each damage in words; none if it is whole; None if that cannot be told, because it holds
        no checksums.

    Example:
        >>> damages_of(Path("runs/mine/checkpoints/step-00000042"))
        []
    """
    from descend.checkpoint.folder import verify as verify_folder
    from descend.checkpoint.manifest import MANIFEST

    with readable(path):
        if path.is_file():
            return _torch_damages(path)
        if not (path / MANIFEST).exists():
            return [f"{MANIFEST} is missing"]
        try:
            errors = verify_folder(path, progress=progress)
        except CheckpointError as error:
            errors = [str(error)]
    return [bare(path, error) for error in errors]


def bare(path: Path, error: str) -> str:
    """What is damaged, of an error that says it of a checkpoint."""
    from descend.checkpoint.manifest import damaged

    begin, end = str(damaged(path, "\0")).split("\0")
    return error.removeprefix(begin).removesuffix(end)


def disk_size(path: Path) -> int:
    """The bytes of a file, or of the files in a folder."""
    try:
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    except OSError:
        return 0


@contextmanager
def reading(path: Path) -> Iterator[Callable[[int], None]]:
    """Show how far a big checkpoint has been read: the block tells it by the bytes."""
    from rich.console import Console

    from descend.report.checkpoints import size, visible

    console, total = Console(stderr=True), disk_size(path)
    if not console.is_terminal or total < BIG:
        yield lambda count: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    words = TextColumn("reading {task.description}", markup=False)
    with Progress(BarColumn(), TimeElapsedColumn(), words, console=console, transient=True) as bar:
        words_of_it = f"{visible(path.name)}, {size(total)}"
        # What torch wrote is read without a word of how far
        task = bar.add_task(words_of_it, total=None if path.is_file() else total)
        yield lambda count: bar.advance(task, count)


@click.command(help=HELP)
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def verify(paths: tuple[Path, ...], as_json: bool) -> int:
    """Read checkpoints and say whether they are whole; the exit status."""
    import descend.checkpoint  # noqa: F401 - which takes longer than reading: it is not timed
    from descend.report.checkpoints import size, taken, visible

    say: Callable[[str], None] = (lambda line: None) if as_json else click.echo
    documents = [_verify(path, say) for path in paths]
    read = [one for document in documents for one in document["checkpoints"]]
    seconds = sum(one["seconds"] for one in read)
    damaged = [one["path"] for one in read if not one["whole"]]
    total = sum(one["bytes"] for one in read)
    if as_json:
        whole = not damaged and not any("error" in document for document in documents)
        document = {"whole": whole, "bytes": total, "seconds": seconds, "paths": documents}
        click.echo(json.dumps(document, indent=2))
    elif read:
        speed = f", {size(total / seconds)}/s" if total > LARGE else ""
        verdict = f"{_verdict(len(read), len(damaged))}: " if len(read) > 1 else ""
        say(f"{verdict}{size(total)} read in {taken(seconds)}{speed}")
    for document in documents:
        if "error" in document:
            click.echo(f"descend: error: {document['error']}", err=True)
    if damaged:
        words = f"{len(damaged)} of {len(read)} checkpoints" if len(read) > 1 else "the checkpoint"
        verb = "are" if len(damaged) > 1 else "is"
        named = ", ".join(map(visible, damaged[:3])) + ", ..." * (len(damaged) > 3)  # noqa: PLR2004
        click.echo(f"descend: error: {words} {verb} damaged: {named}", err=True)
        return DAMAGED
    return INPUT if any("error" in document for document in documents) else 0


def _verify(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Verify what is at one path, and say it line by line; what was found."""
    from descend.report.checkpoints import counted, visible

    shown: dict[str, Any] = {"path": str(path), "checkpoints": []}
    try:
        found = find(path)
        if not found.checkpoints:
            raise CheckpointError(f"the run {path} has no checkpoint yet")
        shown["kind"] = found.kind
        if not found.is_one:
            say(f"{visible(str(path))}: {counted(len(found.checkpoints), 'checkpoint')}")
        names = [visible(found.name(one)) for one in found.checkpoints]
        margin, indent = max(map(len, names)), "" if found.is_one else "  "
        for one, name in zip(found.checkpoints, names, strict=True):
            entry = _verify_one(one, f"{indent}{name:{margin}}", say)
            if entry is not None:
                shown["checkpoints"].append(entry)
    except CheckpointError as error:
        shown["error"] = " ".join(str(error).split())
        return shown
    if found.is_series:
        whole = [one["path"] for one in shown["checkpoints"] if one["whole"]]
        shown["used"] = whole[-1] if whole else None
        used = f"{Path(whole[-1]).name} would be used" if whole else "none of them can be used"
        say(f"  {used}")
    return shown


def _verify_one(path: Path, name: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Verify one checkpoint, and say it; None if it has gone meanwhile."""
    from descend.report.checkpoints import screen, size, styled, visible

    total = disk_size(path)
    begun = time.perf_counter()
    with reading(path) as progress:
        damages = damages_of(path, progress)
    seconds = time.perf_counter() - begun
    if damages and not path.exists():
        say(f"{name}  removed while it was read, as a training does with old ones")
        return None
    if damages is None:
        raise CheckpointError(
            f"cannot verify {path}: there are no checksums in it, as in what torch wrote before "
            f"1.6; descend convert makes a checkpoint of it, which has them"
        )
    on = screen()
    status = styled(("damaged", "bad") if damages else ("whole", "good"), on)
    say(f"{styled(name, on)}  {size(total):>7}  {status}")
    for damage in damages[:MOST_TOLD]:
        say(f"    {styled(visible(damage), on)}")
    if len(damages) > MOST_TOLD:
        say(f"    and {len(damages) - MOST_TOLD:,} more, which --json names")
    return {
        "path": str(path),
        "whole": not damages,
        "damages": damages,
        "bytes": total,
        "seconds": seconds,
    }


def _verdict(read: int, damaged: int) -> str:
    if damaged:
        return f"{damaged:,} of {read:,} are damaged"
    return f"all {read:,} are whole"


def _find(path: Path) -> Found:
    from descend.checkpoint.manifest import MANIFEST, STATE, TENSORS
    from descend.checkpoint.series import FOLDER, checkpoints
    from descend.checkpoint.source import locate
    from descend.training.metrics_log import METRICS

    if path.name in (MANIFEST, STATE, TENSORS) and (path.parent / MANIFEST).exists():
        path = path.parent
    if path.is_file():
        return Found(path, "torch file", (path,))
    if not path.exists() or (path / MANIFEST).exists():
        return Found(path, "checkpoint", (locate(path),))
    for folder, kind in ((path / FOLDER, "run"), (path, "checkpoints")):
        if listed := checkpoints(folder):
            return Found(path, kind, tuple(listed))
    if any((path / name).exists() for name in (STATE, TENSORS)):
        return Found(path, "checkpoint", (path,))  # what is left of one
    is_run = (path / FOLDER).is_dir() or (path / METRICS).exists()
    return Found(path, "run", ()) if is_run else _find_below(path)


def _find_below(path: Path) -> Found:
    """The checkpoints and the runs in a folder."""
    from descend.checkpoint.manifest import MANIFEST
    from descend.checkpoint.series import FOLDER, checkpoints

    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    found: list[Path] = []
    for child in children:
        is_checkpoint = (child / MANIFEST).exists()
        found += [child] if is_checkpoint else checkpoints(child / FOLDER)
    if found:
        return Found(path, "folder", tuple(found))
    raise CheckpointError(f"{path} holds no checkpoint{_hint(children)}")


def _hint(children: Sequence[Path]) -> str:
    """What in a folder may have been meant."""
    meant = [child for child in children if child.suffix in (".pth", ".pt", ".ckpt")]
    if not meant:
        return "; give a checkpoint, the folder of a run, or a file of torch's"
    named = ", ".join(str(child) for child in meant[:3])
    return f"; did you mean {named}{', ...' if len(meant) > 3 else ''}?"  # noqa: PLR2004


def _torch_damages(path: Path) -> list[str] | None:
    """What in a file of torch.save does not have its CRC-32; torch itself does not look."""
    import zipfile

    from descend.checkpoint import load_torch

    with path.open("rb") as file:
        begin = file.read(len(ARCHIVE))
    if begin != ARCHIVE:
        load_torch(path)  # which says what is wrong if it is none of torch's at all
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if not any(part.CRC for part in parts):
                return None  # torch was told to write none
            found = [what for part in parts for what in _part_damages(archive, part)]
    except Exception as error:  # a damaged archive makes zipfile raise almost anything
        return [f"the list of its parts cannot be read ({error})"]
    if not found and not any(part.filename.endswith("data.pkl") for part in parts):
        load_torch(path)  # as above: an archive of something else
    return found or list(_unopened(path))


def _unopened(path: Path) -> Iterator[str]:
    """Why torch cannot open an archive, of which Python's reader takes more damages for small."""
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        if "PytorchStreamReader" in str(error):  # else it is whole, and holds what is no plain data
            yield f"torch cannot open it ({str(error).partition('. ')[0]})"


def _part_damages(archive: "ZipFile", part: "ZipInfo") -> Iterator[str]:
    try:
        with archive.open(part) as file:
            while file.read(1 << 20):
                pass
    except Exception as error:  # as above
        why = str(error)
        why = "its CRC-32 differs" if why.startswith("Bad CRC-32") else why
        yield f"the part {part.filename} is not what was saved: {why}"
