"""`descend convert`: from a file of torch's to a checkpoint, and the other way round."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click

from descend.checks import WHOLE
from descend.cli.options import A_PATH, json_option
from descend.cli.reading import load_aloud, readable
from descend.errors import CheckpointError

ENDINGS = (".pth", ".pt", ".ckpt", ".pth.tar")

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Turn a checkpoint into a file of torch's, or the other way round.

\b
SRC is one of
  a .pth, .pt or .ckpt    a file of torch.save, of Lightning too; no code in it is run
  a checkpoint            a folder that holds a manifest.json
  a run's folder          its newest checkpoint that is whole
DST is one of
  a name ending in .pth, .pt or .ckpt    a file that plain torch reads:
                                         torch.load(DST, weights_only=True)
  any other name                         a checkpoint: a folder, every tensor of it hashed

\b
Examples:
  descend convert old.pth checkpoint              what a file holds, safe from now on
  descend convert runs/mine mine.pth              for somebody without descend
  descend convert runs/mine weights.pth --only model   a state_dict, for load_state_dict
  descend convert old.pth weights.pth --only model
  descend convert epoch=9.ckpt checkpoint         of Lightning's
  descend convert runs/mine mine.pth --json       for a program to read

From a torch file the parts get the names that descend uses: model_state_dict, state_dict, net, ...
become "model", optimizer_state_dict "optimizer", and so on. Names within a part stay as they are.
Every tensor keeps its bits and its dtype. With --only, a single object in a torch file is the
state_dict itself: model.load_state_dict(torch.load("weights.pth")).

A torch file cannot hold all that a checkpoint can: a NumPy array, as in the random states of a
run, becomes a tensor, a NumPy number a number, a frozenset a set. It has no hashes, only checksums
that torch itself does not look at. A run goes on from its folder alone.

\b
Exit status: 0 done, 2 the input cannot be used, 130 interrupted.
"""


@click.command(help=HELP)
@click.argument("source", metavar="SRC", type=A_PATH)
@click.argument("destination", metavar="DST", type=A_PATH)
@click.option(
    "--only",
    metavar="OBJECT",
    multiple=True,
    help="Convert this object alone, such as model; repeat it for others.",
)
@click.option(
    "--force", is_flag=True, help="Replace DST if it is there: a file, or a checkpoint's folder."
)
@json_option
def convert(
    source: Path, destination: Path, only: tuple[str, ...], force: bool, as_json: bool
) -> int:
    """Convert a checkpoint; the exit status."""
    to_torch = destination.name.lower().endswith(ENDINGS)
    with readable(destination):
        _refuse_taken(destination, to_torch, force)
    from descend.format import first_names, json_text
    from descend.report.locate import disk_size

    used, state = load_aloud(source, only)
    if not state:
        raise CheckpointError(f"{source} holds nothing that could be converted")
    with readable(source):
        document = _document(used, state, to_torch)
    _write(destination, used, state, to_torch, only)
    document |= {"destination": str(destination), "bytes": disk_size(destination)}
    if arrays := document["as_tensors"]:
        are = (
            "is a NumPy array: it is a tensor" if len(arrays) == 1 else "are NumPy arrays: tensors"
        )
        click.echo(f"descend: note: {first_names(arrays)} {are} in a file of torch's", err=True)
    click.echo(json_text(document) if as_json else "\n".join(_lines(document)))
    return 0


def _write(
    destination: Path, used: Path, state: Mapping[str, Any], to_torch: bool, only: Collection[str]
) -> None:
    from descend.checkpoint import save, save_torch

    try:
        if to_torch:
            alone = next(iter(state.values())) if only and len(state) == 1 else None
            save_torch(destination, alone if isinstance(alone, Mapping) else state)
        else:
            save(destination, state, about=_about(used, state))
    except CheckpointError as error:
        helps = not only and "model" in state and len(state) > 1
        if not helps or isinstance(error.__cause__, OSError):
            raise
        raise CheckpointError(f"{error}; --only model leaves everything else out") from error


def _refuse_taken(destination: Path, to_torch: bool, force: bool) -> None:
    """Raise where something is in the way, before the source is read."""
    is_folder, why = destination.is_dir(), ""
    if not os.path.lexists(destination):
        if not destination.parent.is_dir():
            why = f"there is no folder {destination.parent}; make it, or give another"
    elif is_folder and to_torch:
        why = (
            f"it is a folder, and {destination.suffix} is the ending of a file of torch's; give "
            "another name"
        )
    elif not is_folder and not to_torch:
        why = (
            "it is a file, and a checkpoint is a folder; the name of a file of torch's ends in "
            ".pth, .pt or .ckpt"
        )
    elif not force and not (is_folder and not any(destination.iterdir())):
        raise CheckpointError(f"{destination} is there already; --force replaces it")
    if why:
        raise CheckpointError(f"cannot write {destination}: {why}")


def _about(used: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in the manifest of the new checkpoint."""
    if used.is_dir():
        from descend.checkpoint.manifest import read_manifest

        return {**read_manifest(used)["about"], "converted from": used.name}
    steps = [state.get(name) for name in ("step", "global_step")]
    step = [{"step": n} for n in steps if WHOLE.admits(n)]
    return {**(step[0] if step else {}), "converted from": used.name}


def _document(used: Path, state: Mapping[Any, Any], to_torch: bool) -> dict[str, Any]:
    """The objects that are to be written, as plain data."""
    import numpy as np

    from descend.checkpoint.contents import content_of_state
    from descend.states import joined, leaves

    objects = {}
    for name, tensors in content_of_state(state).tensors.items():
        own = [tensor for tensor in tensors if tensor.same is None]  # tied ones once
        objects[name] = {"tensors": len(own), "bytes": sum(one.bytes or 0 for one in own)}
    arrays = [joined(place) for place, leaf in leaves(state) if isinstance(leaf, np.ndarray)]
    return {
        "source": str(used),
        "format": "torch" if to_torch else "checkpoint",
        "objects": objects,
        "as_tensors": arrays if to_torch else [],
    }


def _lines(document: Mapping[str, Any]) -> list[str]:
    from descend.format import byte_size, counted, printable
    from descend.report.tables import screen, styled, table

    objects, on = document["objects"], screen()
    rows = [
        [
            printable(name),
            *((f"{one['tensors']:,}", byte_size(one["bytes"])) if one["tensors"] else ("", "")),
        ]
        for name, one in objects.items()
    ]
    tensors = counted(sum(one["tensors"] for one in objects.values()), "tensor")
    kind = "a file of torch's" if document["format"] == "torch" else "a checkpoint"
    written, size = counted(len(objects), "object"), byte_size(document["bytes"])
    return [
        styled(printable(f"{document['source']} -> {document['destination']}"), on),
        *table(["object", "tensors", "bytes"], rows, on, indent=2),
        f"written: {kind} with {tensors} in {written}, {size}",
    ]
