"""A space to search: `lr=log(1e-5,1e-1) hidden=int(16,256) optimizer=choice(adamw,lion)`."""

import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from descend.checks import COUNT, Allowed, Range, plain_number
from descend.errors import SearchError
from descend.format import plain_text
from descend.optimizer_lookup import find_optimizer, literal, plain_name, settable
from descend.spelling import hint

if TYPE_CHECKING:
    from optuna import Trial as Ask

SUCH = {"log": "log(1e-5,1e-1)", "float": "float(0,0.2)", "int": "int(16,256)"}
KINDS = (*SUCH, "choice")
FORMS = (
    "log(1e-5,1e-1), float(0,0.2), float(0,1,0.05) in steps, int(16,256), int(8,64,8), "
    "int(16,256,log), choice(adamw,lion), or one value, which is fixed"
)
SCHEDULE = {"warmup": 0.02, "decay": 0.3}
"""The parts of the default schedule, as fractions of the length."""
SHARE = Range(0, 1, closed=True)
BETAS = {"beta1": 0, "beta2": 1}
PART = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*((?:[^\s()]|\([^()]*\))+)")
STEPPED, PAIR = 3, 2
NEAR = 1e-9


@dataclass(frozen=True)
class Dimension:
    """A name of a space and the values that it may have.

    Args:
        name: of the hyperparameter.
        kind: "log", "float", "int" or "choice".
        low: the least, of a number.
        high: the greatest.
        step: between two values; None for any.
        log: whether equal ratios are equally likely.
        choices: of a choice; one alone is fixed.
        text: as it was written.

    Example:
        >>> read_space("lr=log(1e-4,1e-1)")[0].high
        0.1

    Source: the distributions of Optuna, https://optuna.readthedocs.io.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    text: str = ""

    def suggest(self, ask: "Ask") -> Any:
        """Have Optuna choose a value."""
        if self.kind == "choice":
            return ask.suggest_categorical(self.name, self.choices)
        low, high = self.ends
        if self.kind == "int":
            step = int(self.step or 1)
            return ask.suggest_int(self.name, low, high, step=step, log=self.log)
        return ask.suggest_float(self.name, low, high, step=self.step, log=self.log)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The outermost values, or all of a choice."""
        if self.kind == "choice":
            return self.choices
        number = int if self.kind == "int" else float
        return number(self.low), number(self.high)

    def holds(self, value: object) -> bool:
        """Whether a value is one of it."""
        if self.kind == "choice":
            return any(value == one and type(value) is type(one) for one in self.choices)
        number = plain_number(value)
        if number is None or (self.kind == "int" and type(number) is not int):
            return False
        steps = (number - self.low) / self.step if self.step else 0.0
        return self.low <= number <= self.high and abs(steps - round(steps)) < NEAR


def read_space(*texts: str) -> list[Dimension]:
    """Read a space.

    Args:
        *texts: NAME=VALUES each, or several of them with spaces between.

    Raises:
        SearchError: it cannot be read, or a name stands there twice.

    Example:
        >>> [one.name for one in read_space("lr=log(1e-4,1e-1) width=int(8,64)")]
        ['lr', 'width']

    Source: the values of Optuna's distributions.
    """
    found: dict[str, Dimension] = {}
    for text in texts:
        at = 0
        while text[at:].strip():
            part = PART.match(text, at)
            if part is None:
                raise SearchError(
                    f"--space {text.strip()}: it must be NAME=VALUES, such as "
                    f"lr=log(1e-5,1e-1); the VALUES: {FORMS}"
                )
            at = part.end()
            if part[1] in found:
                raise SearchError(f"--space {part[1]}: it is given twice; give it once")
            found[part[1]] = _dimension(part[1], part[2])
    if not found:
        raise SearchError(f"--space: it is empty; give NAME=VALUES; the VALUES: {FORMS}")
    return [*found.values()]


def _dimension(name: str, text: str) -> Dimension:
    where = f"--space {name}={text}"
    called = re.fullmatch(r"(\w+)\((.*)\)", text)
    if called is None:
        if "(" in text or ")" in text:
            raise SearchError(f"{where}: the VALUES can be: {FORMS}")
        return Dimension(name, "choice", choices=(literal(text),), text=text)
    kind, inside = called[1], [one.strip() for one in called[2].split(",")]
    if kind not in KINDS:
        raise SearchError(
            f"{where}: there is no {kind}(...); {hint(kind, KINDS)}the VALUES can be: {FORMS}"
        )
    if not all(inside):
        raise SearchError(f"{where}: a value is missing between the commas; give it")
    if kind == "choice":
        return _choice(name, tuple(map(literal, inside)), text)
    log = kind == "log" or (kind == "int" and inside[-1] == "log" and len(inside) == STEPPED)
    numbers = [literal(one) for one in (inside[:-1] if kind == "int" and log else inside)]
    allowed = (PAIR,) if log else (PAIR, STEPPED)
    if len(numbers) not in allowed or not all(_is_number(one, kind) for one in numbers):
        wanted = "two whole numbers" if kind == "int" else "two numbers"
        more = "" if kind == "log" else ", and perhaps a step"
        raise SearchError(
            f"{where}: {kind} takes {wanted}, the least and the greatest{more}, such as "
            f"{SUCH[kind]}"
        )
    low, high, *step = (float(one) for one in numbers)  # type: ignore[arg-type]
    if low >= high:
        raise SearchError(f"{where}: the least must stand first, below the greatest")
    if log and low <= 0:
        raise SearchError(f"{where}: on a log scale the least must be above 0; float has no log")
    if step and not 0 < step[0] <= high - low:
        raise SearchError(f"{where}: the step must be above 0, and at most {high - low:g}")
    whole = "int" if kind == "int" else "float"
    return Dimension(name, whole, low, high, step[0] if step else None, log, text=text)


def _choice(name: str, choices: tuple[object, ...], text: str) -> Dimension:
    if len({(type(one), one) for one in choices}) < len(choices):
        raise SearchError(f"--space {name}={text}: a value is there twice; give each once")
    return Dimension(name, "choice", choices=choices, text=text)


def _is_number(value: object, kind: str) -> bool:
    kinds: Any = int if kind == "int" else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


class Space:
    """A space whose names are resolved: what each is of.

    Args:
        dimensions: as `read_space` gives them.
        arguments: of the task's function: the default of each, by name.
        scheduled: whether the default schedule is used, so that its parts can be searched.

    Raises:
        SearchError: a name is nothing's, or its values are not allowed.
        HyperparameterError: an optimizer of it is not there.

    Example:
        >>> Space(read_space("lr=log(1e-4,1e-1)"), {}).optimizers
        ['adamw']

    Source: conditional spaces, define-by-run; T. Akiba et al., Optuna, KDD 2019,
    https://arxiv.org/abs/1907.10902.
    """

    def __init__(
        self,
        dimensions: Iterable[Dimension],
        arguments: Mapping[str, Any],
        scheduled: bool = True,
    ) -> None:
        self.arguments, self.scheduled = dict(arguments), scheduled
        given = {one.name: self._whole(one) for one in dimensions}
        chosen = given.pop("optimizer", None)
        self.dimensions = [*([chosen] if chosen else []), *given.values()]
        names = ("adamw",) if chosen is None else chosen.ends
        self.optimizers = [plain_name(str(name)) for name in names]
        self._settable = {
            name: settable(find_optimizer(name, "--space optimizer=")) for name in self.optimizers
        }
        for one in given.values():
            self._check(one)
        parts = {**SCHEDULE, **{one.name: max(map(float, one.ends)) for one in self.dimensions
                                if one.name in SCHEDULE}}  # fmt: skip
        if scheduled and sum(parts.values()) > 1:
            raise SearchError(
                f"--space: warmup and decay can be up to {plain_text(parts['warmup'])} and "
                f"{plain_text(parts['decay'])} of the length, and have only 1 together; lower one"
            )

    @property
    def free(self) -> list[Dimension]:
        """The dimensions that are not fixed."""
        return [one for one in self.dimensions if len(one.ends) > 1]

    def suggest(self, ask: "Ask") -> None:
        """Have Optuna choose a value for each name that applies: one after the other."""
        optimizer = self.optimizers[0]
        for one in self.free:
            if not self._applies(one.name, optimizer):
                continue
            value = one.suggest(ask)
            if one.name == "optimizer":
                optimizer = plain_name(str(value))

    def _applies(self, name: str, optimizer: str) -> bool:
        return self._kind(name) != "setting" or self._has(optimizer, name)

    def options(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a training, by chosen values: optimizer, lr, settings, arguments, ..."""
        optimizer = plain_name(str(params.get("optimizer", self.optimizers[0])))
        fixed = {one.name: one.ends[0] for one in self.dimensions if one not in self.free}
        params = {
            name: value
            for name, value in {**fixed, **params}.items()
            if self._applies(name, optimizer)
        }
        kinds = {name: self._kind(name) for name in params}
        settings = {name: params[name] for name in params if kinds[name] == "setting"}
        if not settings.keys().isdisjoint(BETAS):
            betas = [*self._betas(optimizer)]
            for name, place in BETAS.items():
                betas[place] = settings.pop(name, betas[place])
            settings["betas"] = tuple(betas)
        return {
            "optimizer": optimizer,
            "lr": params.get("lr"),
            "settings": settings,
            "arguments": {name: params[name] for name in params if kinds[name] == "argument"},
            "batch_size": params.get("batch_size"),
            **{name: params.get(name, usual) for name, usual in SCHEDULE.items()},
        }

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The values of a training without a search, as far as they are known and in the space."""
        names = [one.name for one in self.dimensions]
        optimizer = "adamw" if "adamw" in self.optimizers else self.optimizers[0]
        known: dict[str, Any] = {**self.arguments, **SCHEDULE, "optimizer": optimizer}
        for name, declared in self._settable[optimizer].items():
            if declared is not None and name in names and name not in known:
                known[name] = declared.default
        signature = inspect.signature(find_optimizer(optimizer)).parameters
        known["lr"] = signature["lr"].default
        if not BETAS.keys().isdisjoint(names):
            known |= dict(zip(BETAS, self._betas(optimizer), strict=True))
        return {
            one.name: known[one.name]
            for one in self.free
            if one.name in known and one.holds(known[one.name])
        }

    def _whole(self, one: Dimension) -> Dimension:
        """The dimension in whole numbers, where the task's argument is one and it is on a log."""
        usual = self.arguments.get(one.name)
        whole = isinstance(usual, int) and not isinstance(usual, bool)
        if one.kind != "float" or not (whole or one.name == "batch_size"):
            return one
        if not one.log or one.low != int(one.low) or one.high != int(one.high):
            raise SearchError(
                f"--space {one.name}={one.text}: {one.name} is a whole number; give "
                f"{one.name}=int({max(1, int(one.low))},{max(2, int(one.high))})"
            )
        return Dimension(one.name, "int", one.low, one.high, None, True, text=one.text)

    def _kind(self, name: str) -> str:
        if name in ("optimizer", "lr", "batch_size"):
            return name
        if name in self.arguments:
            return "argument"
        if self.scheduled and name in SCHEDULE:
            return "schedule"
        return "setting"

    def _has(self, optimizer: str, name: str) -> bool:
        known = self._settable[optimizer]
        return name in known or (name in BETAS and "betas" in known)

    def _betas(self, optimizer: str) -> tuple[float, float]:
        signature = inspect.signature(find_optimizer(optimizer)).parameters
        betas: tuple[float, float] = signature["betas"].default
        return betas

    def _check(self, one: Dimension) -> None:
        """Refuse a dimension that is nothing's, or of two things, or has values out of range."""
        kind = self._kind(one.name)
        owners = [name for name in self.optimizers if self._has(name, one.name)]
        where = f"--space {one.name}={one.text}"
        if kind == "argument" and (owners or (self.scheduled and one.name in SCHEDULE)):
            other = owners[0] if owners else "the schedule"
            raise SearchError(
                f"{where}: {one.name} is an argument of the task and of {other} too; give the "
                f"task's argument another name"
            )
        if kind == "setting" and not owners:
            known = [*self._names()]
            near = "--schedule fixes the schedule; " if one.name in SCHEDULE else hint(
                one.name, known)  # fmt: skip
            raise SearchError(
                f"{where}: neither the task nor {' nor '.join(self.optimizers)} has such a name; "
                f"{near}allowed: {', '.join(known)}"
            )
        for allowed, owner in self._allowed(one.name, kind, owners):
            for value in one.ends:
                if allowed is not None and not allowed.admits(value):
                    raise SearchError(f"{where}: {owner} must be {allowed}")

    def _allowed(
        self, name: str, kind: str, owners: list[str]
    ) -> Iterator[tuple[Allowed | None, str]]:
        """The values that may be, and what they are of."""
        if kind == "lr":
            yield Range(0, positive=True), "lr"
        elif kind == "batch_size":
            yield COUNT, "batch_size"
        elif kind == "schedule":
            yield SHARE, f"{name}, a fraction of the length,"
        elif kind == "setting":
            for owner in owners:
                declared = self._settable[owner].get(name)
                yield (
                    Range(0, 1) if declared is None and name in BETAS
                    else None if declared is None else declared.allowed
                ), f"{name} of {owner}"  # fmt: skip

    def _names(self) -> Iterator[str]:
        """All names that a space may hold."""
        names = ["optimizer", "lr", "batch_size", *self.arguments]
        names += SCHEDULE if self.scheduled else ()
        for known in self._settable.values():
            names += known
            names += BETAS if "betas" in known else ()
        yield from dict.fromkeys(name for name in names if name != "betas")
