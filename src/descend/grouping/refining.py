"""Groups split further: how one builder of groups works on what another has built."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from descend.errors import ParameterError
from descend.grouping.selection import Named, named


def refined(
    owner: str,
    model: nn.Module,
    groups: Iterable[dict[str, Any]] | None,
    part: Mapping[int, int],
    options: Callable[[dict[str, Any], int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Split every group by the part that each of its parameters belongs to.

    Args:
        owner: the function that was called, for messages.
        model: the model whose parameters the groups hold.
        groups: groups to split; None for one group of all parameters. They are not changed.
        part: the number of every parameter's part, by `id(parameter)`.
        options: the options of a new group, from those of the group it comes from and its part.

    Returns:
        The parts of each group, one after the other, by number; none is empty.

    Raises:
        ParameterError: a group has no "params", or holds what is no parameter of the model.
    """
    known = {id(pair[1]): pair for pair in named(owner, model)}
    result = []
    if groups is None:
        groups = [{"params": list(model.parameters())}]
    for index, group in enumerate(groups):
        pairs = _pairs(owner, known, index, group)
        for number in sorted({part[id(param)] for _, param in pairs}):
            # Each its own tensor: schedules and loads fill an lr tensor in place.
            own = {
                key: value.clone() if isinstance(value, Tensor) else value
                for key, value in group.items()
                if key != "params"
            }
            chosen = [pair for pair in pairs if part[id(pair[1])] == number]
            result.append({"params": chosen, **options(own, number)})
    return result


def _pairs(owner: str, known: Mapping[int, Named], index: int, group: Any) -> list[Named]:
    if not isinstance(group, dict) or "params" not in group:
        raise ParameterError(
            f'{owner}: group {index} must be a dict with "params", as param_groups returns it, '
            f"got {group!r}"
        )
    entries = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
    pairs = []
    for entry in entries:
        param = entry[1] if isinstance(entry, tuple) else entry
        if id(param) not in known:
            what = f"a tensor of shape {tuple(param.shape)}" if isinstance(param, Tensor) else param
            raise ParameterError(
                f"{owner}: group {index} holds {what} that is no parameter of the model; "
                "build the groups from the same model"
            )
        pairs.append(known[id(param)])
    return pairs
