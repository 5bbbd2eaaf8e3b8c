"""The report of a load: which parameters got their state, which did not, and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from descend.base.matching import Label
from descend.format import counted


@dataclass(frozen=True)
class LoadReport:
    """The outcome of `load_state_dict`, parameter by parameter.

    A parameter is called by its name where names are known, else by its position among the
    parameters of all groups.

    Args:
        matched: the parameters whose state was taken over.
        missed: the optimizer's parameters that kept the state they had, each with the reason.
        unused: the saved parameters whose state was left out, each with the reason.
        groups: the optimizer's groups that took over options, each with the saved group they
            come from: `{group: saved group}`.

    Example:
        >>> print(LoadReport(("body",), {"head": "not in the state"}, {}, {0: 0}))
        state of 1 parameter loaded: body
        missed: head (not in the state)
        unused: none
        options loaded into: group 0
    """

    matched: tuple[Label, ...]
    missed: Mapping[Label, str]
    unused: Mapping[Label, str]
    groups: Mapping[int, int]

    def __str__(self) -> str:
        """Four lines: matched, missed, unused, groups."""
        count = len(self.matched)
        groups = [
            f"group {mine}" + (f" (from group {theirs})" if mine != theirs else "")
            for mine, theirs in self.groups.items()
        ]
        return (
            f"state of {counted(count, 'parameter')} loaded: {_listed(self.matched)}\n"
            f"missed: {_explained(self.missed)}\n"
            f"unused: {_explained(self.unused)}\n"
            f"options loaded into: {_listed(groups)}"
        )


def _listed(labels: tuple[Label, ...] | list[str]) -> str:
    return ", ".join(map(str, labels)) or "none"


def _explained(reasons: Mapping[Label, str]) -> str:
    return ", ".join(f"{label} ({reason})" for label, reason in reasons.items()) or "none"
