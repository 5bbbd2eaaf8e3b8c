"""Files of torch.save: read without running code, and written for those without descend."""

import os
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

from descend.checkpoint.harmless_classes import without_stand_ins
from descend.checkpoint.part_names import under_our_names
from descend.checkpoint.plain_pickle import code_free
from descend.checkpoint.safe_unpickle import load_harmless
from descend.checkpoint.torch_archive import archive_damages
from descend.errors import CheckpointError, CheckpointWarning, DamagedError, OutputError
from descend.files import opened, replaced
from descend.format import first_names

MOST_TOLD = 20  # objects that were left out, in a message


def load_torch(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that `torch.save` wrote, a checkpoint of Lightning among them; no code is run.

    The parts get the names that descend uses: "model" (also `model_state_dict`, `state_dict`,
    `net`, ...), "optimizer", "scheduler", "scaler"; any other `NAME_state_dict` is NAME; of
    Lightning's lists of optimizers and schedulers, "optimizer" and "scheduler", or "optimizer_0",
    "optimizer_1", ... where there are several. Everything else keeps its name. A file that is a
    state_dict itself is a model, or an optimizer.

    What torch reads without code comes back as it was. In place of a few harmless classes stands
    plain data: NumPy's numbers and arrays as such, a Namespace as a dict, a path as a string. An
    object of any other class is left out, with a `CheckpointWarning` that names it: of a dict its
    entry, elsewhere None takes its place.

    Args:
        path: the file: `.pth`, `.pt` or `.ckpt`.

    Returns:
        The state, on the CPU.

    Raises:
        CheckpointError: if it cannot be read, is damaged (which the checksums in it tell, where it
            has them), or holds nothing but objects that only running code could make.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "old.pth")
        >>> torch.save({"model_state_dict": torch.nn.Linear(2, 1).state_dict(), "epoch": 3}, file)
        >>> {name: type(part).__name__ for name, part in load_torch(file).items()}
        {'model': 'OrderedDict', 'epoch': 'int'}

    Source: torch.load with weights_only=True, https://pytorch.org/docs/stable/generated/torch.load.
    """
    state, left_out = read_torch(Path(path))
    warn_of_left_out(Path(path), left_out)
    return state


def read_torch(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read what `load_torch` does, and by path the class of each object that was left out."""
    left_out: dict[str, str] = {}
    try:
        if damages := archive_damages(path):
            more = f", and {len(damages) - 1:,} more" if len(damages) > 1 else ""
            raise DamagedError(f"cannot load {path}: it is damaged: {damages[0]}{more}")
        content = _content(path, left_out)
    except DamagedError:
        raise
    except OSError as error:
        what = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise CheckpointError(f"cannot load {path}: {what or error}") from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise CheckpointError(f"cannot load {path}: {_why_unreadable(path, error)}") from error
    if left_out and not content:
        raise CheckpointError(
            f"cannot load {path}: it holds a {next(iter(left_out.values()))}, which only running "
            f"code from the file could make; it needs to be saved anew, with state_dicts and plain "
            f"values alone"
        )
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"cannot load {path}: it holds a {type(content).__name__}; a dict of state_dicts is "
            f"needed, such as {{'model': model.state_dict(), 'epoch': 3}}"
        )
    state = under_our_names(content)
    ours = {id(part): name for name, part in state.items()}
    theirs = {str(name): ours.get(id(part), str(name)) for name, part in content.items()}
    return state, {_renamed(place, theirs): kind for place, kind in left_out.items()}


def warn_of_left_out(
    path: Path, left_out: Mapping[str, str], parts: Collection[str] | None = None
) -> None:
    """Name what of a torch file was left out, as far as it is of some parts."""
    told = [
        f"{place} (a {kind})"
        for place, kind in left_out.items()
        if parts is None or place.partition(".")[0] in parts
    ]
    if told:
        warnings.warn(
            f"{path}: {first_names(told, MOST_TOLD)}: left out, as only running code from the file "
            f"could make that",
            CheckpointWarning,
            stacklevel=3,
        )


def _renamed(place: str, ours: Mapping[str, str]) -> str:
    """A path with our name of the part that it is in."""
    part = next((name for name in ours if place == name or place.startswith(f"{name}.")), "")
    return ours.get(part, "") + place.removeprefix(part)


def save_torch(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state to a file that `torch.load(path, weights_only=True)` reads without descend.

    Everything is written on the CPU; tensors that are the same memory are one tensor again, and a
    view takes no more of the tensor that it is of along than it shows. Where torch would need code
    to read a value, its plain equal is written: a tensor for a NumPy array, a number for a NumPy
    number, a dict, set or tuple for other kinds of them.

    The file is written under another name, flushed and renamed. It is torch's format, a pickle:
    whoever loads it without `weights_only=True` trusts its writer.

    Args:
        path: the file; an existing one is replaced.
        state: such as `{"model": model, "epoch": 3}`. Of what has a `state_dict`, that is taken.

    Raises:
        CheckpointError: for a value that torch could not read without code, naming its path; for a
            file that cannot be written. What was there is then untouched.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "for_a_friend.pth")
        >>> save_torch(file, {"model": torch.nn.Linear(2, 1).state_dict(), "epoch": 3})
        >>> torch.load(file, weights_only=True)["epoch"]
        3

    Source: torch.save, https://pytorch.org/docs/stable/generated/torch.save.
    """
    path = Path(path)
    try:
        state = code_free(state, "", {})
    except RecursionError as error:
        raise CheckpointError(
            f"cannot write {path}: the state is nested too deeply, or holds itself; save plain "
            f"values"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    try:
        # Opened here: given a path, torch writes its name, the temporary one, into the file
        with replaced(path) as file:
            torch.save(state, file)
            file.flush()
            with opened(Path(file.name)) as written:
                _prove_readable(written)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, OutputError) else error
        text = cause.strerror if isinstance(cause, OSError) else None
        raise CheckpointError(
            f"cannot write {path}: {text or _short(error)}; it needs an existing folder, the right "
            f"to write there, and room on the disk"
        ) from error


def torch_damages(path: Path) -> list[str] | None:
    """Find the damages of a file of torch.save.

    Args:
        path: the file.

    Returns:
        Each damage in words; none if it is whole, whatever it holds; None where no checksums are
        in it.

    Raises:
        CheckpointError: if it is none of torch's.
        OSError: if it cannot be opened.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "new.pth")
        >>> torch.save({"epoch": 3}, file)
        >>> torch_damages(file)
        []
    """
    found = archive_damages(path)
    if found:
        return found
    try:
        _content(path, {})
    except Exception as error:
        if found is None or "data.pkl" in str(error) or isinstance(error, MemoryError):
            load_torch(path)  # which says what is wrong
        elif "PytorchStreamReader" in str(error):  # of which Python's reader sees less
            return [f"torch cannot open it ({_short(error).partition('. ')[0]})"]
    return found


def _content(path: Path, left_out: dict[str, str]) -> Any:
    with opened(path) as file:
        try:
            content = _load(file, "cpu")
        except (UnpicklingError, ValueError) as error:  # of a class that torch does not know
            file.seek(0)
            try:
                content = load_harmless(file)
            except Exception:
                raise error from None  # which says what it is
    return without_stand_ins(content, "", left_out)


def _prove_readable(file: BinaryIO) -> None:
    """Raise where torch would not read a file without code."""
    try:
        _load(file, "meta")
    except NotImplementedError:  # torch 2.14 looks into sparse tensors, which have no values there
        file.seek(0)
        _load(file, "cpu")


def _load(file: BinaryIO, device: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # the error says it
        warnings.filterwarnings("ignore", "Validating sparse tensor")  # torch 2.14: it takes time
        return torch.load(file, map_location=device, weights_only=True, mmap=False)


def _why_unreadable(path: Path, error: Exception) -> str:
    """The reason why a file cannot be read, from what torch said of it."""
    text = _short(error)
    if "TorchScript" in text:
        return "it is a program of torch.jit.save, and no state; save its state_dict() instead"
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or holds itself"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "there is not enough memory for it"
    with opened(path) as file:
        begin = file.read(1)
    if begin not in (b"P", b"\x80"):  # of an archive, of a pickle
        return f"it is {'' if begin else 'empty, '}damaged, or no file of torch.save"
    protocol = ", or one of another pickle_protocol" if "Unsupported operand" in text else ""
    return f"it is damaged, or no file of torch.save{protocol} ({text[:200]})"


def _short(error: Exception) -> str:
    """The text of an error, on one line, without torch's advice about trusting the file."""
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())
    told = re.search(r"WeightsUnpickler error: (.*?)(?: Check the documentation|$)", text)
    return told[1] if told else text or type(error).__name__
