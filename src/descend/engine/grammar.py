"""The grammar of update rules: what compiles, and an error with file and line for what does not.

`read` finds the source of an update; `straight` turns it, for one choice of flags, into code
without branches, which is what the compiled backends run; `check` does so for every choice. What is
admitted is exactly what `straight` can turn into code.

Every expression is one of three things: an *element* (one number per element of the parameter), a
*number* (the same for all elements: scalars, literals, and what is computed from these), or a
*condition* (a comparison). Numbers are float64, as Python's are, and are rounded to the precision
of the arithmetic where they meet an element: `1 - beta2` loses nothing.
"""

import ast
import linecache
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from descend.engine import refusals, vocabulary
from descend.engine.rule_arguments import Arguments
from descend.errors import RuleError

MOST_FLAGS = 10
"""Each choice of flags is a kernel of its own: 1024 of them."""

LONGEST_SHOWN = 60
"""Characters of a rule's source in a message."""

_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_TAKES = {
    "absolute": ("x",),
    "maximum": ("x", "y"),
    "minimum": ("x", "y"),
    "sign": ("x",),
    "sqrt": ("x",),
    "where": ("condition", "x", "y"),
}


@dataclass(frozen=True)
class Written:
    """An update rule as its author wrote it.

    Args:
        update: the function.
        arguments: its states, scalars and flags.
        function: its syntax tree, with the positions of its file.
    """

    update: Callable[..., Any]
    arguments: Arguments
    function: ast.FunctionDef

    def refused(self, node: ast.AST, why: str, instead: str) -> RuleError:
        """The error that shows a piece of the source, and what to write in its place."""
        code = self.update.__code__
        source = "".join(linecache.getlines(code.co_filename, self.update.__globals__))
        text, *more = (ast.get_source_segment(source, node) or ast.unparse(node)).splitlines()
        if more or len(text) > LONGEST_SHOWN:
            text = f"{text[:LONGEST_SHOWN]} ..."
        return RuleError(
            f"{code.co_filename}:{getattr(node, 'lineno', code.co_firstlineno)}: in "
            f"{code.co_name}(), `{text}` cannot be compiled: {why}; {instead}"
        )


def read(update: Callable[..., Any], arguments: Arguments) -> Written | None:
    """Find the source of an update rule; None where there is none (typed in, or made by exec)."""
    code = update.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, update.__globals__)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            names = [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
            if first == code.co_firstlineno and names == list(code.co_varnames[: len(names)]):
                return Written(update, arguments, node)
    return None


def check(written: Written, optional: Mapping[str, str]) -> None:
    """Refuse an update rule that some backend could not compile, under whichever flags.

    Args:
        written: the rule.
        optional: the states that exist only under a flag: `{state: flag}`.

    Raises:
        RuleError: shows file, line and text, why it cannot be compiled, and what is allowed.
    """
    names = written.arguments.flags
    if len(names) > MOST_FLAGS:
        raise written.refused(
            written.function,
            f"it has {len(names)} flags, and each choice of them is a kernel of its own",
            f"at most {MOST_FLAGS} flags are allowed; make numbers of some, or several rules",
        )
    for values in product((True, False), repeat=len(names)):
        flags = dict(zip(names, values, strict=True))
        absent = [state for state, flag in optional.items() if not flags[flag]]
        straight(written, flags, absent, "{}", "{}")


def straight(
    written: Written, flags: Mapping[str, bool], absent: Iterable[str], literal: str, number: str
) -> tuple[list[str], list[str | None]]:
    """An update rule for one choice of flags, as lines without branches.

    Every argument `x` is the variable `u_x`; every assignment makes a new variable.

    Args:
        written: the rule.
        flags: the value of each flag.
        absent: the states that do not exist under these flags.
        literal: how a backend rounds a number to the precision of the arithmetic: "float32({})".
        number: how it writes a number of float64.

    Returns:
        The lines, and the new values of the parameter and of each state, None for absent ones.

    Raises:
        RuleError: some of it cannot be compiled.
    """
    return _Straightened(written, flags, absent, literal, number).result()


@dataclass(frozen=True)
class _Value:
    """What an expression becomes.

    Args:
        text: its code.
        element: it differs from element to element.
        condition: it is a comparison.
        constant: its value, where that is known by now.
    """

    text: str
    element: bool = False
    condition: bool = False
    constant: float | None = None


class _Straightened:
    """See `straight`, whose arguments it takes."""

    def __init__(
        self,
        written: Written,
        flags: Mapping[str, bool],
        absent: Iterable[str],
        literal: str,
        number: str,
    ) -> None:
        self.written, self.flags, self.absent = written, flags, frozenset(absent)
        self.literal, self.number = literal, number
        self.lines: list[str] = []
        self.states = ("param", *written.arguments.states)
        self.known = {
            name: _Value(f"u_{name}", element=True)
            for name in ("grad", *self.states)
            if name not in self.absent
        }
        self.known |= {name: _Value(f"u_{name}") for name in written.arguments.scalars}
        self.assigned = {
            node.id
            for node in ast.walk(written.function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }

    def result(self) -> tuple[list[str], list[str | None]]:
        function, refused = self.written.function, self.written.refused
        if function.decorator_list:
            raise refused(
                function.decorator_list[0], "a kernel does not see a decorator", "leave it out"
            )
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        last = body[-1] if body else function
        if not isinstance(last, ast.Return):
            raise refused(last, "the update does not end with `return`", self.returns())
        for statement in body[:-1]:
            self.statement(statement)
        return self.lines, self.returned(last)

    def returns(self) -> str:
        comma = "," if len(self.states) == 1 else ""
        return f"its last line must be: return {', '.join(self.states)}{comma}"

    # Statements

    def statement(self, node: ast.stmt) -> None:
        refused = self.written.refused
        match node:
            case ast.If():
                for inner in node.body if self.flag(node.test) else node.orelse:
                    self.statement(inner)
            case ast.Assign(targets=[target]):
                self.assign(target, node.value)
            case ast.Assign():
                raise refused(node, "it assigns to several variables", "use a line for each")
            case ast.AnnAssign(value=ast.expr() as value):
                self.assign(node.target, value)
            case ast.Return():
                raise refused(
                    node,
                    "there is one `return`, at the end",
                    f"assign to variables in the branches; {self.returns()}",
                )
            case ast.Pass():
                pass
            case _:
                raise refused(node, *refusals.about(node))

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        refused = self.written.refused
        if isinstance(target, (ast.Tuple, ast.List)):
            raise refused(target, "it assigns to several variables", "use a line for each")
        if not isinstance(target, ast.Name):
            raise refused(
                target,
                "an update changes nothing in place",
                "assign to a variable, and return the new values",
            )
        name = target.id
        if name in self.flags:
            raise refused(
                target, f"{name} is a flag, a constant of the kernel", "use another variable"
            )
        if name in vocabulary.WORDS:
            raise refused(
                target, f"{name} hides the word {name}() of the vocabulary", "use another variable"
            )
        new = self.value(value)
        if new.constant is None:
            variable = f"v{len(self.lines)}_{name}"
            self.lines.append(f"{variable} = {new.text}")
            new = _Value(variable, new.element, new.condition)
        self.known[name] = new

    def flag(self, node: ast.expr) -> bool:
        """The value of what stands behind `if`."""
        refused = self.written.refused
        match node:
            case ast.Name(id=name) if name in self.flags:
                found = self.flags[name]
            case ast.UnaryOp(op=ast.Not()):
                found = not self.flag(node.operand)
            case ast.BoolOp(op=ast.And()):
                found = all(self.flag(one) for one in node.values)
            case ast.BoolOp():
                found = any(self.flag(one) for one in node.values)
            case ast.Compare(left=ast.Name(id=name)) if name in self.flags:
                raise refused(node, f"{name} is True or False already", f"write: if {name}")
            case ast.Name(id=name) if name in self.written.arguments.scalars:
                raise refused(
                    node,
                    f"`if` needs a flag, and {name} is a number that may change at every step",
                    f"annotate it if it is a flag ({name}: bool), or use where({name} != 0, x, y)",
                )
            case _:
                raise refused(
                    node,
                    "`if` needs a flag: a kernel has no branches, as elements differ",
                    "use where(condition, x, y), or a keyword-only argument annotated bool",
                )
        return found

    def returned(self, node: ast.Return) -> list[str | None]:
        refused = self.written.refused
        values = node.value.elts if isinstance(node.value, ast.Tuple) else None
        if values is None or len(values) != len(self.states):
            got = "one value, and no tuple" if values is None else f"{len(values)} values"
            hint = ""
            if not self.written.arguments.scalars and len(self.states) > len(values or [0]):
                hint = "; among the arguments, numbers and flags stand behind a *"
            raise refused(
                node,
                f"it returns {got}, and must return a tuple of {len(self.states)}: the new "
                f"{', '.join(self.states)}",
                self.returns() + hint,
            )
        self.refuse_other_order(node, values)
        results: list[str | None] = []
        for name, value in zip(self.states, values, strict=True):
            if name in self.absent:
                results.append(None)
                continue
            new = self.quantity(value)
            if not new.element:
                raise refused(
                    value,
                    f"the new {name} would be one number for all elements",
                    "return one value for each; numbers that change with the step are the business "
                    "of `scalars` and `counters`",
                )
            results.append(new.text)
        return results

    def refuse_other_order(self, node: ast.Return, values: list[ast.expr]) -> None:
        """Refuse new values that stand in one another's place, which is seldom meant."""
        placed = [
            (value.id, name)
            for value, name in zip(values, self.states, strict=True)
            if isinstance(value, ast.Name) and value.id in self.states
        ]
        got, wanted = [one for one, _ in placed], [name for _, name in placed]
        if got != wanted and sorted(got) == sorted(wanted):
            raise self.written.refused(
                node,
                f"it returns {', '.join(got)} in the place of {', '.join(wanted)}",
                f"{self.returns()}; to exchange them on purpose, use variables of other names",
            )

    # Expressions

    def value(self, node: ast.expr) -> _Value:
        match node:
            case ast.Constant():
                found = self.constant(node, node.value)
            case ast.Name():
                found = self.name(node)
            case ast.BinOp() if type(node.op) in _OPERATORS:
                found = self.operation(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                found = self.signed(node)
            case ast.Compare():
                found = self.comparison(node)
            case ast.Call():
                found = self.call(node)
            case ast.IfExp():
                found = self.value(node.body if self.flag(node.test) else node.orelse)
            case _:
                raise self.written.refused(node, *refusals.about(node))
        return found

    def quantity(self, node: ast.expr) -> _Value:
        """An expression that must not be a comparison."""
        value = self.value(node)
        if value.condition:
            raise self.written.refused(
                node, "a comparison is no number", "make one of it: where(condition, 1.0, 0.0)"
            )
        return value

    def constant(self, node: ast.expr, value: object) -> _Value:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.written.refused(node, *refusals.about(node))
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if not finite:
            raise self.written.refused(node, "its value is not finite", "use smaller numbers")
        return _Value(self.number.format(repr(float(value))), constant=value)

    def name(self, node: ast.Name) -> _Value:
        name, refused = node.id, self.written.refused
        if name in self.known:
            return self.known[name]
        under = "with " + ", ".join(f"{flag}={value}" for flag, value in self.flags.items())
        if name in self.flags:
            raise refused(node, f"{name} is a flag, no number", f"write: x if {name} else y")
        if name in self.absent:
            raise refused(
                node,
                f"{under}, there is no {name}: the rule's `optional` says so",
                f"use {name} only under its flag, or take it out of `optional`",
            )
        if name in self.assigned:
            raise refused(
                node,
                f"{under}, {name} has no value here" if self.flags else f"{name} has no value yet",
                "assign to it before, in every branch",
            )
        outer = name in self.written.update.__code__.co_freevars
        raise refused(node, *refusals.about_name(name, outer, self.written.update.__globals__))

    def signed(self, node: ast.UnaryOp) -> _Value:
        value = self.quantity(node.operand)
        if isinstance(node.op, ast.UAdd):
            return value
        if value.constant is not None:
            return self.constant(node, -value.constant)
        return _Value(f"(-{value.text})", value.element)

    def operation(self, node: ast.BinOp) -> _Value:
        sign, meaning = _OPERATORS[type(node.op)]
        values = [self.quantity(one) for one in (node.left, node.right)]
        constants = [value.constant for value in values if value.constant is not None]
        if len(constants) == len(values):
            return self.folded(node, meaning, constants)
        left, right = self.met(values)
        return _Value(f"({left} {sign} {right})", any(value.element for value in values))

    def comparison(self, node: ast.Compare) -> _Value:
        refused = self.written.refused
        if len(node.ops) > 1:
            raise refused(
                node,
                "it asks for one truth, and each element has its own",
                "compare twice: where(low < x, where(x < high, a, b), b)",
            )
        if type(node.ops[0]) not in _COMPARISONS:
            raise refused(node, "only < <= > >= == != compare numbers", refusals.ALLOWED)
        values = [self.quantity(one) for one in (node.left, node.comparators[0])]
        if all(value.constant is not None for value in values):
            raise refused(node, "it compares two known numbers", "write what comes out")
        left, right = self.met(values)
        text = f"({left} {_COMPARISONS[type(node.ops[0])]} {right})"
        return _Value(text, any(value.element for value in values), condition=True)

    def call(self, node: ast.Call) -> _Value:
        word = self.word(node)
        takes = _TAKES[word]
        for one in node.args:
            if isinstance(one, ast.Starred):
                raise self.written.refused(one, *refusals.about(one))
        if node.keywords or len(node.args) != len(takes):
            by_name = f", {len(node.keywords)} by name" if node.keywords else ""
            raise self.written.refused(
                node,
                f"{word}() takes {len(takes)} values by position, got {len(node.args)}{by_name}",
                f"write {word}({', '.join(takes)})",
            )
        if word == "where":
            return self.choice(*node.args)
        values = [self.quantity(one) for one in node.args]
        constants = [value.constant for value in values if value.constant is not None]
        if len(constants) == len(values):
            return self.folded(node, getattr(vocabulary, word), constants)
        text = f"{word}({', '.join(self.met(values))})"
        return _Value(text, any(value.element for value in values))

    def choice(self, asked: ast.expr, yes: ast.expr, no: ast.expr) -> _Value:
        if isinstance(asked, ast.Name) and asked.id in self.flags:
            raise self.written.refused(
                asked, f"{asked.id} is a flag, no comparison", f"write: x if {asked.id} else y"
            )
        condition = self.value(asked)
        if not condition.condition:
            raise self.written.refused(
                asked, "where() chooses by a comparison", "compare it: x != 0"
            )
        values = [self.quantity(one) for one in (yes, no)]
        first, second = self.met(values, condition.element)
        element = condition.element or any(value.element for value in values)
        return _Value(f"where({condition.text}, {first}, {second})", element)

    def folded(self, node: ast.expr, meaning: Callable[..., Any], constants: list[float]) -> _Value:
        """What holds only literals, computed as Python does."""
        try:
            return self.constant(node, meaning(*constants))
        except (ArithmeticError, ValueError) as error:
            if isinstance(error, RuleError):
                raise
            raise self.written.refused(
                node, f"it cannot be computed: {error}", "numbers must be finite"
            ) from error

    def met(self, values: list[_Value], element: bool = False) -> list[str]:
        """The texts of values that meet; where one is an element, numbers are rounded for it."""
        if not element and not any(value.element for value in values):
            return [value.text for value in values]
        return [
            value.text
            if value.element
            else self.literal.format(
                value.text if value.constant is None else repr(float(value.constant))
            )
            for value in values
        ]

    def word(self, node: ast.Call) -> str:
        """The word of the vocabulary that is called, whatever name it was imported under."""
        function = node.func
        scope, code = self.written.update.__globals__, self.written.update.__code__
        meaning: Any = None
        if isinstance(function, ast.Name):
            if function.id in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
                raise self.written.refused(
                    node,
                    f"{function.id} is a variable of the function here, or of one around it",
                    "give the variable another name; the words are imported: "
                    f"{refusals.IMPORT} ...",
                )
            meaning = scope.get(function.id)
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            meaning = getattr(scope.get(function.value.id), function.attr, None)
        if isinstance(function, ast.Name):
            for word in vocabulary.WORDS:
                if meaning is getattr(vocabulary, word):
                    return word
        raise self.written.refused(node, *refusals.about_call(function, meaning))
