"""`descend inspect`: show what is in a checkpoint, a run, or a file of torch's."""

import fnmatch
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.errors import CheckpointError

if TYPE_CHECKING:
    from descend.cli.verify import Found

DAMAGED = 1

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Show what is in a checkpoint, a run, or a file of torch's, and whether it is whole.

\b
PATH is one of
  a run's folder          a table of its checkpoints, which one the run would go on from, and
                          that one in detail
  a checkpoint            a folder that holds a manifest.json
  a folder of these       a table of the checkpoints and of those of the runs in it
  a .pth, .pt or .ckpt    a file of torch.save, of Lightning too; no code in it is run

\b
Shown are
  the step, the epochs, the metrics, and plain values such as "epoch": 3
  each object in it (model, optimizer, ...): its tensors, their elements and bytes
  the lr and the other hyperparameters of each parameter group
  what wrote it (versions, processor, threads, flags), what of that is different here, and when
  whether it is whole; if it is damaged, which tensor or which file is

\b
Examples:
  descend inspect runs/mine
  descend inspect runs/mine/checkpoints/step-00000420
  descend inspect old.pth --tensors               every tensor: dtype, shape, bytes, hash
  descend inspect runs/mine --match "model.*.weight"
  descend inspect runs/mine --match exp_avg       those with exp_avg in their names
  descend inspect runs/mine --no-verify           at once, however big
  descend inspect runs/mine --json | jq .used     for a program to read

To verify a checkpoint, all of it is read. --no-verify reads what describes it, and no tensor: it
is fast, and finds only what is missing, cut short, or damaged in the description.

\b
Exit status: 0 done, 1 something is damaged, 2 PATH cannot be used, 130 interrupted.
"""


@dataclass(frozen=True)
class _Tensor:
    """A tensor by what is known of it without reading it.

    It stands in a state in the place of the tensor, the NumPy array or the NumPy number.

    Args:
        name: the path to it, joined by dots.
        dtype: such as "float32"; None where what would say it is damaged.
        shape: or None, as above.
        hash: 32 hexadecimal digits, or None.
        same: the name of the one that it shares its memory with, if any.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    hash: str | None = None
    same: str | None = None

    def numpy(self) -> "_Tensor":
        """Itself, for an array."""
        return self

    def __getitem__(self, index: object) -> "_Tensor":
        """Itself, for a number."""
        return self

    @property
    def elements(self) -> int | None:
        """How many numbers it holds."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def bytes(self) -> int | None:
        """How many bytes they take."""
        import torch

        kind = getattr(torch, self.dtype or "", None)
        if self.elements is None or not isinstance(kind, torch.dtype):
            return None
        return self.elements * kind.itemsize


class _Unknown(dict[str, _Tensor]):
    """Tensors by name; of those that a manifest does not know, only the name."""

    def __missing__(self, name: str) -> _Tensor:
        return _Tensor(str(name))


@dataclass(frozen=True)
class _Content:
    """What a checkpoint or a file of torch's holds.

    Args:
        state: nested; a `_Tensor` for each tensor. Empty where it cannot be read.
        tensors: those of each object, each once.
        manifest: what stands in it; empty for a file of torch's.
    """

    state: Mapping[str, Any]
    tensors: Mapping[str, Sequence[_Tensor]]
    manifest: Mapping[str, Any]


_Read = Callable[[_Tensor], Any]


@click.command(help=HELP)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tensors", "list_all", is_flag=True, help="List every tensor.")
@click.option(
    "--match",
    "pattern",
    metavar="PATTERN",
    help="List the tensors with PATTERN in their names; with * or ? in it, those whose whole "
    "names it fits.",
)
@click.option("--no-verify", is_flag=True, help="Do not read the tensors of checkpoints: fast.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def inspect(path: Path, list_all: bool, pattern: str | None, no_verify: bool, as_json: bool) -> int:
    """Show what is in a checkpoint; the exit status."""
    from descend.cli.loading import readable
    from descend.cli.verify import find
    from descend.report.checkpoints import finite, one_lines, screen, several_lines, visible

    found = find(path)
    listed = pattern if pattern is not None else ("" if list_all else None)
    with readable(path):
        document = (_one if found.is_one else _several)(found, listed, no_verify)
    read, lines = (
        ([document], one_lines) if found.is_one else (document["checkpoints"], several_lines)
    )
    if as_json:
        click.echo(json.dumps(finite(document), indent=2, allow_nan=False))
    else:
        click.echo("\n".join(lines(document, screen())))
    damaged = [visible(one["path"]) for one in read if one["damages"]]
    if not damaged:
        return 0
    named = ", ".join(damaged[:3]) + ", ..." * (len(damaged) > 3)  # noqa: PLR2004
    click.echo(f"descend: error: damaged: {named}", err=True)
    return DAMAGED


# What is found, as plain data: --json prints it, and `descend.report.checkpoints` tells it


def _one(found: "Found", listed: str | None, no_verify: bool) -> dict[str, Any]:
    path = found.checkpoints[0]
    damages = _damages(path, no_verify)
    try:
        content = _content(path, hashed=listed is not None)
    except CheckpointError:
        if not damages:
            raise  # nothing is wrong with it, but it is no file that can be read without its code
        content = _Content({}, {}, {})
    summary = _summary(path, content, damages, no_verify)
    return {"kind": found.kind, **summary, **_detail(path, content, listed)}


def _several(found: "Found", listed: str | None, no_verify: bool) -> dict[str, Any]:
    """A run or a folder of checkpoints: each of them in short, and one in detail."""
    if listed is not None and not (found.is_series and found.checkpoints):
        raise CheckpointError(
            f"cannot list the tensors of {found.path}, which holds "
            f"{len(found.checkpoints)} checkpoints; give one of them"
        )
    summaries, contents = [], {}
    for path in found.checkpoints:
        damages = _damages(path, no_verify)
        content = _content(path)
        if path.exists():  # a training removes old ones meanwhile
            summary = _summary(path, content, damages, no_verify)
            summaries.append({"name": found.name(path), **summary})
            contents[str(path)] = content
    usable = [one["path"] for one in summaries if not one["damages"]]
    used = usable[-1] if usable and found.is_series else None
    document: dict[str, Any] = {
        "kind": found.kind,
        "path": str(found.path),
        "log": _log(found.path, contents[used].state if used else {}),
        "checkpoints": summaries,
        "used": used,
        "best": _best([one for one in summaries if not one["damages"]]),
        "left": _left(found),
    }
    shown = used or (summaries[-1]["path"] if summaries and found.is_series else None)
    document["newest"] = None
    if shown is not None:
        summary = next(one for one in summaries if one["path"] == shown)
        document["newest"] = {**summary, **_detail(Path(shown), contents[shown], listed)}
    return document


def _damages(path: Path, no_verify: bool) -> list[str] | None:
    """What is damaged; None where that is not known."""
    from descend.cli.verify import damages_of, reading

    if no_verify and path.is_dir():
        return _seen_damages(path) or None
    with reading(path) as progress:
        return damages_of(path, progress)


def _seen_damages(path: Path) -> list[str]:
    """The damages that are seen without reading a tensor."""
    from descend.checkpoint.hashing import hash_bytes
    from descend.checkpoint.manifest import MANIFEST, STATE, TENSORS, read_manifest
    from descend.cli.verify import bare

    if not (path / MANIFEST).exists():
        return [f"{MANIFEST} is missing"]
    try:
        files = read_manifest(path)["files"]
    except CheckpointError as error:
        return [bare(path, str(error))]
    found = []
    for name in (STATE, TENSORS):
        try:
            count, expected = (path / name).stat().st_size, files[name]["bytes"]
            if count != expected:
                found.append(f"{name} has {count} bytes and had {expected}")
            elif name == STATE and hash_bytes((path / name).read_bytes()) != files[name]["hash"]:
                found.append(f"{name} is not what was saved: its hash differs")
        except OSError as error:
            found.append(f"{name} cannot be read ({error.strerror or error})")
        except (KeyError, TypeError):
            found.append(f"{MANIFEST} does not say what {name} was")
    return found


def _is_doubtful(path: Path) -> bool:
    """Whether what describes a checkpoint is damaged, and not only its tensors."""
    from descend.checkpoint.manifest import TENSORS

    return path.is_dir() and any(not what.startswith(TENSORS) for what in _seen_damages(path))


def _content(path: Path, *, hashed: bool = False) -> _Content:
    """What is in a checkpoint; as much of it as can be understood where it is damaged.

    Args:
        path: it.
        hashed: whether the tensors of a file of torch's shall have hashes.
    """
    from descend.checkpoint import load_torch

    if path.is_file():
        state = load_torch(path)
        try:
            state = {str(key): item for key, item in state.items()}
            tensors = {key: _torch_tensors(item, key, hashed) for key, item in state.items()}
            return _Content(state, tensors, {})
        except RecursionError as error:
            raise CheckpointError(f"{path} is nested too deeply, or holds itself") from error
    from descend.checkpoint.manifest import MANIFEST, STATE
    from descend.checkpoint.tree import unflatten

    manifest = _json(path / MANIFEST)
    known = _known(manifest)
    try:
        text = (path / STATE).read_text(encoding="utf-8")
        read = unflatten(text, known)  # type: ignore[arg-type]
        state = {str(key): item for key, item in read.items()}
        tensors = {key: _stored(item) for key, item in state.items()}
    except Exception:  # damaged JSON can be anything
        by_name: dict[str, list[_Tensor]] = defaultdict(list)
        for name, tensor in known.items():
            by_name[name.partition(".")[0]].append(tensor)
        return _Content({}, by_name, manifest)
    return _Content(state, tensors, manifest)


def _json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _known(manifest: Mapping[str, Any]) -> _Unknown:
    """The tensors of a manifest by name, which may be damaged."""
    known = _Unknown()
    for name, kind in _mapping(manifest, "tensors").items():
        try:
            shape = tuple(int(length) for length in kind["shape"])
            known[name] = _Tensor(name, str(kind["dtype"]), shape, str(kind["hash"]))
        except (KeyError, TypeError, ValueError):
            known[name] = _Tensor(name)
    for name, other in _mapping(manifest, "same").items():
        one = known[str(other)]
        known[name] = _Tensor(name, one.dtype, one.shape, one.hash, one.name)
    return known


def _mapping(held: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = held.get(name)
    return found if isinstance(found, dict) else {}


def _stored(value: object) -> list[_Tensor]:
    return [leaf for _, leaf in leaves(value, "") if isinstance(leaf, _Tensor)]


def _torch_tensors(value: object, path: object, hashed: bool) -> list[_Tensor]:
    """The tensors and arrays in a part of what a file of torch's holds."""
    import numpy as np
    import torch

    found: list[_Tensor] = []
    first: dict[object, str] = {}
    for name, leaf in leaves(value, str(path)):
        if isinstance(leaf, torch.Tensor):
            one = first.setdefault(_memory(leaf), name)
            dtype = str(leaf.dtype).removeprefix("torch.")
            digest = _hash(leaf) if hashed else None
            same = one if one != name else None
            found.append(_Tensor(name, dtype, tuple(leaf.shape), digest, same))
        elif isinstance(leaf, np.ndarray):
            found.append(_Tensor(name, str(leaf.dtype), leaf.shape))
    return found


def _memory(tensor: Any) -> object:
    """Equal for tensors that are the same memory."""
    try:
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
    except (RuntimeError, NotImplementedError):  # a sparse one has none
        return object()
    return place if tensor.numel() else object()


def _hash(tensor: Any) -> str | None:
    from descend.checkpoint.hashing import hash_tensor

    try:
        return hash_tensor(tensor)
    except (RuntimeError, NotImplementedError):  # as above
        return None


def leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Everything in a nested value that holds nothing itself, and its path."""
    items: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, item in items:
        yield from leaves(item, f"{path}.{key}" if path else str(key))


def _summary(
    path: Path, content: _Content, damages: list[str] | None, no_verify: bool
) -> dict[str, Any]:
    """What the table of a run's checkpoints says of one."""
    from descend.checkpoint.manifest import MANIFEST
    from descend.cli.verify import disk_size

    about = _mapping(content.manifest, "about")
    read = _reader(path)
    plain = {
        key: _value(value, read)
        for key, value in content.state.items()
        if key in ("step", "global_step", "epoch") and _is_value(value)
    }
    steps = (about.get("step"), plain.get("step"), plain.get("global_step"))
    try:
        described = path / MANIFEST if (path / MANIFEST).exists() else path
        written = datetime.fromtimestamp(described.stat().st_mtime).astimezone().isoformat()
    except (OSError, ValueError, OverflowError):
        written = None
    return {
        "path": str(path),
        "whole": None if damages is None else not damages,
        "verified": not no_verify and damages is not None,
        "damages": damages or [],
        "doubtful": bool(damages) and _is_doubtful(path),
        "bytes": disk_size(path),
        "written": written,
        "step": next((step for step in steps if step is not None), None),
        "epoch": plain.get("epoch"),
        "epochs_done": about.get("epochs done"),
        "batches_done": about.get("batches done"),
        "batches_per_epoch": about.get("batches per epoch"),
        "metrics": dict(_mapping(about, "metrics")),
    }


def _detail(path: Path, content: _Content, listed: str | None) -> dict[str, Any]:
    from descend.checkpoint.provenance import differences, provenance

    about, read = _mapping(content.manifest, "about"), _reader(path)
    shown = ("step", "epochs done", "batches done", "batches per epoch", "metrics")
    produced = _mapping(content.manifest, "produced_by")
    document = {
        "about": {key: value for key, value in about.items() if key not in shown},
        "values": {
            key: _value(value, read) for key, value in content.state.items() if _is_value(value)
        },
        "objects": {
            key: _object(content.state.get(key), tensors)
            for key, tensors in content.tensors.items()
            if key not in content.state or not _is_value(content.state[key])
        },
        "optimizers": {name: _groups(groups, read) for name, groups in _optimizers(content.state)},
        "waiting_gradients": len(_waiting(content.state)),
        "produced_by": dict(produced),
        "different_here": differences(produced, provenance()) if produced else [],
    }
    if listed is not None:
        document["tensors"] = _listed(content, listed)
    return document


def _object(value: object, tensors: Sequence[_Tensor]) -> dict[str, Any]:
    """How much an object holds; of tensors that are the same memory, one counts."""
    own = [tensor for tensor in tensors if tensor.same is None]
    known = all(tensor.bytes is not None for tensor in own)
    return {
        "tensors": len(own),
        "shared": len(tensors) - len(own),
        "elements": sum(tensor.elements or 0 for tensor in own) if known else None,
        "bytes": sum(tensor.bytes or 0 for tensor in own) if known else None,
        "dtypes": sorted({tensor.dtype for tensor in own if tensor.dtype}),
        "values": sum(1 for _ in leaves(value, "")) - len(tensors) if value is not None else 0,
    }


def _optimizers(value: object, name: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The parameter groups of every optimizer in a state, by its name."""
    if not isinstance(value, Mapping):
        return
    groups = value.get("param_groups")
    if isinstance(groups, list) and all(isinstance(group, Mapping) for group in groups):
        yield name, groups
        return
    for key, item in value.items():
        yield from _optimizers(item, f"{name}.{key}" if name else str(key))


def _groups(groups: Iterable[Mapping[str, Any]], read: _Read) -> list[dict[str, Any]]:
    """Each group's number of parameters and its hyperparameters."""
    return [
        {
            "parameters": len(group["params"]) if isinstance(group.get("params"), list) else None,
            **{
                str(key): _value(value, read)
                for key, value in group.items()
                if key not in ("params", "param_names", "parameters")
            },
        }
        for group in groups
    ]


def _waiting(state: Mapping[str, Any]) -> list[Any]:
    """The gradients that a run saved in the middle of an accumulation."""
    own = state.get("run")
    held = own.get("gradients") if isinstance(own, Mapping) else None
    lists = held.values() if isinstance(held, Mapping) else ()
    grads = [grad for listed in lists if isinstance(listed, list) for grad in listed]
    return [one for one in grads if isinstance(one, Mapping) and one.get("values") is not None]


def _is_value(value: object) -> bool:
    """Whether an entry of a state is plain, or a tensor of one element."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    if isinstance(value, _Tensor):
        return value.elements == 1
    held = (Mapping, list, tuple, set, frozenset, np.ndarray)
    return not isinstance(value, held)


def _value(value: Any, read: _Read) -> Any:  # noqa: PLR0911 - one line for each kind of value
    """A plain value; a tensor of one element is read."""
    import numpy as np
    import torch

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_value(item, read) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _value(item, read) for key, item in value.items()}
    if isinstance(value, _Tensor):
        return read(value)
    if isinstance(value, torch.Tensor):
        if value.numel() == 1 and value.layout is torch.strided:
            return _value(value.item(), read)
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, np.generic):
        return _value(value.item(), read)
    return str(value).removeprefix("torch.")


def _reader(path: Path) -> _Read:
    """What reads the value of a stored tensor of one element, and tells others in words."""
    from safetensors import SafetensorError, safe_open

    from descend.checkpoint.manifest import TENSORS

    @cache
    def opened() -> Any:
        return safe_open(path / TENSORS, framework="pt")

    def read(tensor: _Tensor) -> Any:
        if tensor.elements == 1:
            try:
                value = opened().get_tensor(tensor.same or tensor.name)
                if str(value.dtype) == f"torch.{tensor.dtype}":
                    return value.item()
            except (OSError, SafetensorError, RuntimeError):
                pass  # damaged: described all the same
        return f"a {tensor.dtype} tensor of shape {tensor.shape}"

    return read


def _listed(content: _Content, pattern: str) -> list[dict[str, Any]]:
    """The tensors whose names fit a pattern."""
    found = {tensor.name: tensor for tensors in content.tensors.values() for tensor in tensors}
    names = sorted(found, key=_natural)
    if "*" in pattern or "?" in pattern:
        chosen = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    else:
        chosen = [name for name in names if pattern in name]
    if pattern and not chosen:
        raise CheckpointError(
            f"--match {pattern}: none of the {len(names)} tensors fits"
            + (f"; they are called {names[0]}, ..." if names else "")
        )
    return [
        {
            "name": name,
            "dtype": found[name].dtype,
            "shape": found[name].shape,
            "bytes": found[name].bytes,
            "hash": found[name].hash,
            "same_as": found[name].same,
        }
        for name in chosen
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    """By which layer.2 comes before layer.10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)]


def _log(folder: Path, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many lines a run's log has, and how many a process that goes on would cut off."""
    from descend.training.metrics_log import METRICS

    own = state.get("run")
    kept = own.get("log") if isinstance(own, Mapping) else None
    lines = after = place = 0
    try:
        with (folder / METRICS).open("rb") as file:
            for line in file:
                after += isinstance(kept, int) and place >= kept
                place += len(line)
                lines += 1
    except OSError:
        return None
    return {"path": str(folder / METRICS), "lines": lines, "bytes": place, "after": after}


def _best(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each metric, the checkpoints where it is lowest and where it is highest."""
    from descend.report.checkpoints import NO_AIMS

    values: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for one in summaries:
        for name, value in one["metrics"].items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and name not in NO_AIMS:
                values[name].append((value, one["name"]))
    return {
        name: {
            "lowest": _as_entry(min(of, key=itemgetter(0))),
            "highest": _as_entry(max(of, key=itemgetter(0))),
        }
        for name, of in values.items()
        if len(of) > 1
    }


def _as_entry(pair: tuple[float, str]) -> dict[str, Any]:
    return {"value": pair[0], "checkpoint": pair[1]}


def _left(found: "Found") -> dict[str, list[str]]:
    """What is in the folder of a run's checkpoints beside them."""
    from descend.checkpoint.series import FOLDER

    folder = found.path / FOLDER if found.kind == "run" else found.path
    try:
        names = sorted(child.name for child in folder.iterdir()) if found.is_series else []
    except OSError:
        names = []
    return {
        "set_aside": [name for name in names if name.endswith(".damaged")],
        "unfinished": [name for name in names if name.startswith(".") and name.endswith(".tmp")],
    }
