"""`descend verify`: read checkpoints and say whether they are whole."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from descend.cli import INPUT
from descend.cli.options import A_PATH, json_option
from descend.cli.reading import readable, reading
from descend.errors import CheckpointError
from descend.user_file import describe

DAMAGED = 1
LARGE = 10_000_000  # bytes that take long enough to speak of a speed
MOST_TOLD = 20  # damages of one checkpoint, but with --json

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
checkpoint or cannot be read, 130 interrupted.
"""


@click.command(help=HELP)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=A_PATH)
@json_option
def verify(paths: tuple[Path, ...], as_json: bool) -> int:
    """Read checkpoints and say whether they are whole; the exit status."""
    import descend.checkpoint  # noqa: F401 - which takes longer than reading: it is not timed
    from descend.format import byte_size, duration, first_names, json_text, printable

    say: Callable[[str], None] = (lambda line: None) if as_json else click.echo
    documents = [_verify(path, say) for path in paths]
    read = [one for document in documents for one in document["checkpoints"]]
    damaged = [one["path"] for one in read if one["damages"]]
    errors = [printable(one["error"]) for one in (*documents, *read) if "error" in one]
    seconds, total = (sum(one[key] for one in read) for key in ("seconds", "bytes"))
    if as_json:
        whole = not damaged and not errors
        document = {"whole": whole, "bytes": total, "seconds": seconds, "paths": documents}
        click.echo(json_text(document))
    elif read:
        speed = f", {byte_size(total / seconds)}/s" if total > LARGE else ""
        say(f"{_verdict(read)}{byte_size(total)} read in {duration(seconds)}{speed}")
    for error in errors:
        click.echo(f"descend: error: {error}", err=True)
    if not damaged:
        return INPUT if errors else 0
    words = f"{len(damaged)} of {len(read)} checkpoints" if len(read) > 1 else "the checkpoint"
    verb = "are" if len(damaged) > 1 else "is"
    click.echo(f"descend: error: {words} {verb} damaged: {first_names(damaged)}", err=True)
    return DAMAGED


def _verify(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Verify what is at one path, and say it line by line; what was found."""
    from descend.format import counted, printable
    from descend.report.locate import find, used_checkpoint

    shown: dict[str, Any] = {"path": str(path), "checkpoints": []}
    try:
        with readable(path):
            found = find(path)
        if not found.checkpoints:
            raise CheckpointError(f"the run {path} has no checkpoint yet")
        shown["kind"] = found.kind
        if not found.is_one:
            say(f"{printable(str(path))}: {counted(len(found.checkpoints), 'checkpoint')}")
        names = [printable(found.name(one)) for one in found.checkpoints]
        margin, indent = max(map(len, names)), "" if found.is_one else "  "
        for one, name in zip(found.checkpoints, names, strict=True):
            entry = _verify_one(one, f"{indent}{name:{margin}}", say)
            if entry is not None:
                shown["checkpoints"].append(entry)
    except CheckpointError as error:
        shown["error"] = describe(error)
        return shown
    if found.is_series:
        chosen = shown["used"] = used_checkpoint(found, shown["checkpoints"])
        say(f"  {f'{Path(chosen).name} would be used' if chosen else 'none of them can be used'}")
    return shown


def _verify_one(path: Path, name: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Verify one checkpoint, and say it; None if it has gone meanwhile."""
    from descend.checkpoint.damages import damages_of
    from descend.format import byte_size, printable
    from descend.report.locate import disk_size
    from descend.report.tables import screen, styled

    on, total, error = screen(), disk_size(path), {}
    begun = time.perf_counter()
    try:
        with readable(path), reading(path) as progress:
            damages = damages_of(path, progress)
    except CheckpointError as unreadable:
        if path.is_file():
            raise
        damages, error = [], {"error": describe(unreadable)}
    seconds = time.perf_counter() - begun
    if (damages or error) and not path.exists():
        say(f"{name}  removed while it was read, as a training does with old ones")
        return None
    if damages is None:
        raise CheckpointError(
            f"cannot verify {path}: there are no checksums in it, as in what torch wrote before "
            f"1.6; descend convert makes a checkpoint of it, which has them"
        )
    status = "damaged" if damages else "not readable" if error else "whole"
    style = "good" if status == "whole" else "bad"
    say(f"{styled(name, on)}  {byte_size(total):>7}  {styled((status, style), on)}")
    for damage in damages[:MOST_TOLD]:
        say(f"    {styled(printable(damage), on)}")
    if len(damages) > MOST_TOLD:
        say(f"    and {len(damages) - MOST_TOLD:,} more, which --json names")
    return {
        "path": str(path),
        "whole": None if error else not damages,
        "damages": damages,
        "bytes": total,
        "seconds": seconds,
        **error,
    }


def _verdict(read: Sequence[Mapping[str, Any]]) -> str:
    """The verdict on several."""
    if len(read) == 1:
        return ""
    damaged = sum(one["whole"] is False for one in read)
    unreadable = sum(one["whole"] is None for one in read)
    parts = [
        (damaged, "is damaged" if damaged == 1 else "are damaged"),
        (unreadable, "cannot be read"),
    ]
    told = [f"{number:,} of {len(read):,} {words}" for number, words in parts if number]
    return f"{', '.join(told) or f'all {len(read):,} are whole'}: "
