"""Files of torch.save: read without running code, and written for those without descend."""

import os
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from descend.checkpoint.folder import flush
from descend.checkpoint.stand_ins import plain, stand_ins
from descend.errors import CheckpointError

# The names that people give the parts -> ours. The first that is there counts.
MODEL = ("model", "model_state_dict", "state_dict", "model_state", "net", "network", "weights")
OPTIMIZER = ("optimizer", "optimizer_state_dict", "optim", "optimizer_state", "optim_state_dict")
SCHEDULER = ("scheduler", "scheduler_state_dict", "lr_scheduler", "lr_scheduler_state_dict",
             "schedule")  # fmt: skip
SCALER = ("scaler", "grad_scaler", "MixedPrecision", "native_amp_scaling_state")
NAMES = {"model": MODEL, "optimizer": OPTIMIZER, "scheduler": SCHEDULER, "scaler": SCALER}
LIGHTNING = {"optimizer_states": "optimizer", "lr_schedulers": "scheduler"}
ANY = "_state_dict"  # any other NAME_state_dict is NAME

_numbers = count()


def load_torch(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that `torch.save` wrote, a checkpoint of Lightning among them; no code is run.

    The parts get the names that descend uses: "model" (also `model_state_dict`, `state_dict`,
    `net`, ...), "optimizer", "scheduler", "scaler"; any other `NAME_state_dict` is NAME; of
    Lightning's lists of optimizers and schedulers, "optimizer" and "scheduler", or "optimizer_0",
    "optimizer_1", ... where there are several. Everything else keeps its name. A file that is a
    state_dict itself is a model.

    What torch reads without code comes back as it was. In place of a few harmless classes stands
    plain data: NumPy's numbers and arrays as such, a Namespace as a dict, a path as a string.

    Args:
        path: the file: `.pth`, `.pt` or `.ckpt`.

    Returns:
        The state, on the CPU.

    Raises:
        CheckpointError: if it cannot be read, is damaged (which the checksums in it tell, where it
            has them), or holds objects that only running code could make.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "old.pth")
        >>> torch.save({"model_state_dict": torch.nn.Linear(2, 1).state_dict(), "epoch": 3}, file)
        >>> {name: type(part).__name__ for name, part in load_torch(file).items()}
        {'model': 'OrderedDict', 'epoch': 'int'}

    Source: torch.load with weights_only=True, https://pytorch.org/docs/stable/generated/torch.load.
    """
    path = Path(path)
    try:
        _refuse_damaged(path)
        with stand_ins():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
        content = plain(content)
    except OSError as error:
        what = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise CheckpointError(f"cannot load {path}: {what or error}") from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise CheckpointError(f"cannot load {path}: {_why_unreadable(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"cannot load {path}: it holds a {type(content).__name__}; a dict of state_dicts is "
            f"needed, such as {{'model': model.state_dict(), 'epoch': 3}}"
        )
    return _named(content)


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
        state: such as `{"model": model.state_dict(), "epoch": 3}`.

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
        state = _readable(state, "", {})
    except RecursionError as error:
        raise CheckpointError(
            f"cannot write {path}: the state is nested too deeply, or holds itself; save plain "
            f"values"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.tmp")
    try:
        try:
            # Opened here: given a path, torch writes its name, the temporary one, into the file
            with temporary.open("wb") as file:
                torch.save(state, file)
            torch.load(temporary, map_location="meta", weights_only=True, mmap=False)
            flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        flush(path.parent)
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(
            f"cannot write {path}: {text or _short(error)}; it needs an existing folder, the right "
            f"to write there, and room on the disk"
        ) from error


def _refuse_damaged(path: Path) -> None:
    """Raise if a part of the file is not what its checksum says; torch itself does not look."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return  # what torch wrote before 1.6 has no checksums
        with zipfile.ZipFile(file) as parts:
            if any(part.CRC for part in parts.infolist()):  # or torch was told to write none
                bad = parts.testzip()
                if bad is not None:
                    raise zipfile.BadZipFile(f"the part {bad} is not what was saved")


def _why_unreadable(error: Exception) -> str:
    """What is wrong with a file, from what torch said of it."""
    text = _short(error)
    foreign = re.search(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\S+)", text)
    whose = foreign[1] if foreign else ""
    if not foreign and isinstance(error, ValueError) and text.startswith("it holds a"):
        whose = text.removeprefix("it holds a ")
    if whose:
        return (
            f"it holds a {whose}, which only running code from the file could make; it needs to "
            f"be saved anew, with state_dicts and plain values alone"
        )
    if "TorchScript" in text:
        return "it is a program of torch.jit.save, and no state; save its state_dict() instead"
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or holds itself"
    protocol = "Unsupported operand" in text
    return (
        f"it is damaged, or no file of torch.save{' with its own pickle protocol' * protocol} "
        f"({text[:200]})"
    )


def _short(error: Exception) -> str:
    """What an error says, on one line, without what torch advises about trusting the file."""
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())
    told = re.search(r"WeightsUnpickler error: (.*?)(?: Check the documentation|$)", text)
    return told[1] if told else text or type(error).__name__


def _named(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The parts under the names that descend uses."""
    of_module = [
        isinstance(value, torch.Tensor) or str(name).endswith("_extra_state")
        for name, value in content.items()
    ]
    if hasattr(content, "_metadata") or (of_module and all(of_module)):
        return {"model": content}
    state = dict(content)
    for ours, theirs in NAMES.items():
        found = next((name for name in theirs if isinstance(state.get(name), Mapping)), None)
        if found is not None and ours not in state:
            state[ours] = state.pop(found)
    for listed, our in LIGHTNING.items():
        if isinstance(state.get(listed), list):
            parts = state.pop(listed)
            names = [our] if len(parts) == 1 else [f"{our}_{i}" for i in range(len(parts))]
            state |= dict(zip(names, parts, strict=True))
    for name in [name for name in state if isinstance(name, str) and name.endswith(ANY)]:
        short = name.removesuffix(ANY)
        if short and short not in state:
            state[short] = state.pop(name)
    # In the order of the file, but for these first
    return {name: state[name] for name in [*(n for n in NAMES if n in state), *state]}


def _readable(value: Any, path: str, seen: dict[Any, torch.Tensor]) -> Any:  # noqa: PLR0911
    """A value as torch reads it without code.

    Args:
        value: of a state.
        path: to it, for messages.
        seen: the tensors so far, by their memory.
    """
    if isinstance(value, torch.Tensor):
        return _readable_tensor(value, path, seen)
    if isinstance(value, np.ndarray | np.generic):
        return _readable_array(value, path)
    if value is None or isinstance(value, bool | torch.dtype | torch.device | torch.Size):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, complex):
        return complex(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return value if value and type(value) is bytes else bytearray(value)
    if isinstance(value, Mapping):
        return _readable_mapping(value, path, seen)
    if isinstance(value, list | tuple):
        kind_of_list = list if isinstance(value, list) else tuple
        return kind_of_list(_readable(v, _join(path, i), seen) for i, v in enumerate(value))
    if isinstance(value, set | frozenset):
        return {_readable(item, _join(path, item), seen) for item in value}
    raise CheckpointError(
        f"{path or 'the state'} is a {type(value).__name__}; torch reads tensors, strings, bytes, "
        f"numbers, booleans, None, and dicts, lists, tuples and sets of them without running code"
    )


def _readable_mapping(value: Mapping[Any, Any], path: str, seen: dict[Any, torch.Tensor]) -> Any:
    kind: Any = next((one for one in (Counter, OrderedDict) if isinstance(value, one)), dict)
    result = kind()
    for key, item in value.items():
        place = _join(path, key)
        name = _readable(key, f"the key {place}", seen)
        if not isinstance(name, str | int | float | tuple | None):
            raise CheckpointError(
                f"{path or 'the state'} has the key {key!r}, a {type(key).__name__}; a key is a "
                f"string or a number"
            )
        result[name] = _readable(item, place, seen)
    if kind is OrderedDict and hasattr(value, "_metadata"):
        result._metadata = _readable(value._metadata, _join(path, "_metadata"), seen)
    return result


def _readable_tensor(value: torch.Tensor, path: str, seen: dict[Any, torch.Tensor]) -> torch.Tensor:
    if value.is_meta or torch.nn.parameter.is_lazy(value):
        raise CheckpointError(
            f"the tensor {path} has no values yet ({'meta device' if value.is_meta else 'lazy'}); "
            f"give the model some before it is saved"
        )
    tensor = value.detach()
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return tensor.cpu()
    flags = (tensor.is_conj(), tensor.is_neg())
    # What reads the same memory in the same way is one tensor; an empty one reads none
    place = tensor.data_ptr() if tensor.numel() else object()
    memory = (tensor.device, place, tensor.dtype, tensor.shape, tensor.stride(), flags)
    if memory not in seen:
        values = tensor.resolve_conj().resolve_neg().cpu()
        if values.untyped_storage().nbytes() > values.nbytes:  # torch would save the whole storage
            values = values.clone(memory_format=torch.contiguous_format)
        seen[memory] = values
    return seen[memory]


def _readable_array(value: Any, path: str) -> Any:
    if isinstance(value, np.generic):
        number = value.item()
        if not isinstance(number, np.generic) and isinstance(
            number, bool | int | float | complex | str | bytes
        ):
            return number
    elif value.dtype.kind in "US":
        return value.tolist()
    else:
        try:
            return torch.from_numpy(np.array(value))  # a copy: torch refuses read-only ones
        except TypeError:
            pass
    raise CheckpointError(
        f"{path or 'the state'} is a NumPy value of dtype {value.dtype}, which torch cannot hold"
    )


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
