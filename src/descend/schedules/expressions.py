"""Read a schedule from the expression that it prints. Nothing is evaluated: the tree is walked."""

import ast
import math
import operator
import string
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from descend.errors import ScheduleError, ScheduleTypeError
from descend.schedules.arguments import checked
from descend.schedules.schedule import SHAPES, Schedule, misfit, parameters, usage
from descend.spelling import meant

Made = TypeVar("Made")

LONGEST = 20_000  # characters; far above any schedule, and read in a moment
DEEPEST = 50  # calls, lists, products and signs inside each other
SHOWN = 40  # characters of the expression on either side of the place of an error

_UNWRITTEN = ("join", "multiply", "function")  # `>>`, `*`, and what only Python can hold
_PLAIN = frozenset(" ()[]{}.,:=+-*/>'\"_" + string.ascii_letters + string.digits)
_LANGUAGE = (
    "an expression is made of calls such as cosine(9500), a >> b, a * b, a * 0.5, numbers and lists"
)
# What Python says of these is short and right, in every version; the rest speaks of statements.
_PYTHON_SAYS = (
    "'",
    "unmatched",
    "closing parenthesis",
    "unterminated string",
    "positional argument follows",
    "too many nested",
)


def parse(text: str) -> Schedule:
    """The schedule of an expression.

    The language is what `str(schedule)` prints: calls of the functions of `descend.schedules`,
    `a >> b`, `a * b`, `a * 0.5`, parentheses, numbers (also `10*500`, `0.1/3`, `1e-3`, `inf`),
    words in quotes, lists, dicts. It is Python's, and read without evaluating anything: other
    names, attributes and operators are refused.

        parse(str(schedule)) == schedule

    Args:
        text: the expression; its times are steps.

    Raises:
        ScheduleError: it cannot be read, or a function refuses its arguments; the message is one
            line that shows the place.
        ScheduleTypeError: it is no string.

    Example:
        >>> parse("warmup(10*50) >> cosine(9500, end=0.1)")
        warmup(500) >> cosine(9500, end=0.1)
        >>> parse("cosine(10))")
        Traceback (most recent call last):
        descend.errors.ScheduleError: column 11 of cosine(10)«)»: unmatched ')'

    Source:
        Python's expressions, https://docs.python.org/3/reference/expressions.html.
    """
    if not isinstance(text, str):
        raise ScheduleTypeError(f"parse: the expression must be a string, got {text!r}")
    # One for one, so that columns stay what they are.
    source = text.translate({ord(space): " " for space in "\t\n\r\f\v"})
    stripped = source.lstrip() or source
    try:
        node = _tree(stripped)
        schedule = _read(node)
        if isinstance(schedule, Schedule):
            return schedule
        such = f"constant({schedule})" if _is_number(schedule) else "warmup(500) >> cosine(9500)"
        raise _refused(node, f"it is no schedule, such as {such}")
    except _Refusal as refused:
        refusal = refused
    except (RecursionError, MemoryError):  # the parser's own limits
        refusal = _Refusal("it is too long, or nested too deeply", 0, len(stripped))
    raise ScheduleError(_pointed(source, refusal, len(source) - len(stripped)))


class _Refusal(Exception):  # noqa: N818 - it never leaves this module
    """The reason to refuse an expression, and the columns of the piece, from 0."""

    def __init__(self, why: str, begin: int, end: int) -> None:
        super().__init__(why)
        self.begin, self.end = begin, end


def _tree(source: str) -> ast.expr:
    """The syntax of an expression on one line."""
    if len(source) > LONGEST:
        raise _Refusal(
            f"it has {len(source)} characters, and at most {LONGEST} are read", LONGEST, LONGEST
        )
    for column, character in enumerate(source):
        if character not in _PLAIN:
            raise _Refusal(f"{character!r} stands in no expression", column, column + 1)
    if source.isspace() or not source:
        raise _Refusal("it is empty; write for instance warmup(500) >> cosine(9500)", 0, 0)
    try:
        with warnings.catch_warnings():  # of `1or 2`, which is refused all the same
            warnings.simplefilter("ignore")
            return ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise _syntax(error, len(source.rstrip())) from None


def _syntax(error: SyntaxError, end: int) -> _Refusal:
    """Python's complaint about an expression of some length, in the words of this language."""
    begin = (error.offset or end + 1) - 1  # 0 where the expression stops too early
    if begin >= end:
        return _Refusal(f"something should follow here; {_LANGUAGE}", end, end)
    why = error.msg.split(" (detected")[0]
    if not why.startswith(_PYTHON_SAYS):
        comma = ", perhaps a comma" if why.endswith("forgot a comma?") else ""
        why = f"something is missing or too much here{comma}; {_LANGUAGE}"
    return _Refusal(why, begin, min(max((error.end_offset or 0) - 1, begin + 1), end))


def _read(node: ast.expr, depth: int = 0) -> Any:
    """The schedule, number, word or list that a piece of the expression stands for."""
    if depth > DEEPEST:
        raise _refused(node, f"it goes deeper than {DEEPEST} levels")
    read: Any
    match node:
        case ast.Constant(value=None | str()):
            read = node.value
        case ast.Constant():
            read = _finite(node, node.value)
        case ast.Name(id="inf"):
            read = math.inf
        case ast.List() | ast.Tuple():
            read = [_read(element, depth + 1) for element in node.elts]
        case ast.Dict():
            read = _dict(node, depth + 1)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            read = _signed(node, _read(node.operand, depth + 1))
        case ast.BinOp(op=ast.RShift()):
            read = _sequence(node, depth + 1)
        case ast.BinOp():
            read = _operation(node, depth + 1)
        case ast.Call():
            read = _call(node, depth + 1)
        case _:
            raise _unread(node)
    return read


def _unread(node: ast.expr) -> _Refusal:
    """The refusal of a piece that is not in the language; some come close."""
    match node:
        case ast.Name(id=name) if name in functions():
            why = (
                f"{name} is a function, and needs its arguments: {usage(name)}; a word stands in "
                f"quotes: '{name}'"
            )
        case ast.Name(id=name):
            why = (
                f"the name {name} stands for nothing{_instead(name, [*functions(), 'inf'])} Names "
                "are those of functions, and inf; a word stands in quotes"
            )
        case ast.Attribute(attr="over" | "in_epochs" as name, value=before):
            return _Refusal(
                f"the times of an expression are steps; in Python, parse(...).{name}(...) scales "
                "them",
                before.end_col_offset or 0,
                node.end_col_offset or 0,
            )
        case ast.Attribute(attr=name) if name in (*functions(), "inf"):
            why = f"write {name} alone"
        case ast.Attribute():
            why = f"names with a dot are not read; {_LANGUAGE}"
        case ast.Compare():
            why = "nothing is compared; one schedule after the other is a >> b"
        case _:
            why = f"this is not read; {_LANGUAGE}"
    return _refused(node, why)


def _finite(node: ast.expr, number: Any) -> Any:
    """A number that a float can hold."""
    if not _is_number(number):
        raise _refused(node, "this is no number, and no word in quotes")
    try:
        finite = math.isfinite(number)
    except OverflowError:
        finite = False
    if not finite:
        raise _refused(node, "it is no finite number")
    return number


def _dict(node: ast.Dict, depth: int) -> dict[Any, Any]:
    """A dict from numbers to levels."""
    read = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            raise _refused(value, "** is not read")
        number = _read(key, depth)
        if not _is_number(number):
            raise _refused(key, "a key must be a number, the time")
        if number in read:
            raise _refused(key, f"the time {number} stands twice")
        read[number] = _read(value, depth)
    return read


def _signed(node: ast.UnaryOp, value: Any) -> Any:
    """A number with a sign."""
    if not _is_number(value):
        hint = "; multiply the schedule: (...) * -1" if isinstance(value, Schedule) else ""
        raise _refused(node, f"a sign stands before numbers only{hint}")
    return -value if isinstance(node.op, ast.USub) else value


def _operation(node: ast.BinOp, depth: int) -> Any:
    """`a * b`, and the arithmetic of numbers."""
    left, right = _read(node.left, depth), _read(node.right, depth)
    operate = _ARITHMETIC.get(type(node.op))
    if operate is None:
        raise _refused(node, f"this operator is not read; {_LANGUAGE}")
    if _is_number(left) and _is_number(right):
        try:
            return _finite(node, operate(left, right))
        except ArithmeticError:
            raise _refused(node, "it is no finite number") from None
    for side, value in ((node.left, left), (node.right, right)):
        if not _is_number(value) and not isinstance(value, Schedule):
            raise _refused(side, "only schedules and numbers are multiplied")
    if not isinstance(node.op, ast.Mult):
        raise _refused(
            node, "+, - and / stand between numbers only; schedules are multiplied: a * 0.5"
        )
    return _placed(node, operator.mul, left, right)


def _sequence(node: ast.BinOp, depth: int) -> Schedule:
    """`a >> b >> c`: a loop, so that a long sequence is not a deep one."""
    pieces = [node.right]
    while isinstance(node.left, ast.BinOp) and isinstance(node.left.op, ast.RShift):
        node = node.left
        pieces.insert(0, node.right)
    pieces.insert(0, node.left)
    parts = [_read(piece, depth) for piece in pieces]
    for piece, part in zip(pieces, parts, strict=True):
        if not isinstance(part, Schedule):
            number = f"; constant({part}) is one" if _is_number(part) else ""
            raise _refused(piece, f"only schedules come after each other{number}")
    whole: Schedule = parts[0]
    for before, part in zip(pieces, parts[1:], strict=False):
        whole = _placed(before, operator.rshift, whole, part)  # before is what never ends
    return whole


def _call(node: ast.Call, depth: int) -> Schedule:
    """A call of one of the functions."""
    if isinstance(node.func, ast.Attribute):
        raise _unread(node.func)
    if not isinstance(node.func, ast.Name):
        raise _refused(node.func, f"only functions are called; {_LANGUAGE}")
    name = node.func.id
    if name not in functions():
        raise _refused(node.func, _no_function(name))
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _Refusal("** is not read", keyword.col_offset, keyword.col_offset + 2)
    refused = misfit(name, len(node.args), [str(keyword.arg) for keyword in node.keywords])
    if refused:
        why, blamed = refused
        if not isinstance(blamed, str):
            raise _refused(node if blamed is None else node.args[blamed], why)
        column = max(keyword.col_offset for keyword in node.keywords if keyword.arg == blamed)
        raise _Refusal(why, column, column + len(blamed))
    known = parameters(name)
    values = dict(zip(known, node.args, strict=False))
    values |= {str(keyword.arg): keyword.value for keyword in node.keywords}
    given = {
        key: _placed(value, checked, f"{name}: {key}", known[key].annotation, _read(value, depth))
        for key, value in values.items()
    }
    return _placed(node, partial(SHAPES[name], **given))


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _placed(node: ast.expr, make: Callable[..., Made], *args: Any) -> Made:
    """The result of a call whose refusal points at the piece."""
    try:
        return make(*args)
    except ScheduleError as error:
        raise _refused(node, str(error)) from None
    except ArithmeticError:
        raise _refused(node, "its numbers are too large to be computed with") from None


def _refused(node: ast.expr, why: str) -> _Refusal:
    return _Refusal(why, node.col_offset, node.end_col_offset or node.col_offset)


def _pointed(source: str, refusal: _Refusal, indent: int) -> str:
    """The message: the column, the piece within the expression, and why."""
    begin, end = refusal.begin + indent, refusal.end + indent
    before, piece, after = source[:begin], source[begin:end], source[end:]
    if len(before) > SHOWN:
        before = f"...{before[-SHOWN:]}"
    if len(piece) > 2 * SHOWN:
        piece = f"{piece[:SHOWN]}...{piece[-SHOWN:]}"
    if len(after) > SHOWN:
        after = f"{after[:SHOWN]}..."
    shown = f"{before}«{piece}»{after}"
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    return f"column {begin + 1} of {shown}: {refusal}"


def functions() -> list[str]:
    """The functions that an expression may call; a shape of the user's own is one too."""
    return sorted(name for name in SHAPES if name not in _UNWRITTEN)


def _no_function(name: str) -> str:
    if name == "function":
        return "a function of your own is no expression; make this schedule in Python"
    known = functions()
    return f"there is no function {name}{_instead(name, known)} There are {', '.join(known)}"


def _instead(name: str, known: Sequence[str]) -> str:
    """The known name that was probably meant, also of CosineAnnealingLR and exp."""
    word = name.lower()
    alike = (one for one in known if one.startswith(word) or word.startswith(one))
    close = meant(name, known) or next(alike, "")
    return f"; did you mean {close}?" if close else "."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
