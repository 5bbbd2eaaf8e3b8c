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

TEXT = "__written__"
"""The attribute of a function that was put together from others, and brings their text along."""

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
        results: the names of what it returns, in order.
        after: a function that goes on from there: of (param, grad, new_param), which makes another
            new parameter, or the terms of a measure.
    """

    update: Callable[..., Any]
    arguments: Arguments
    function: ast.FunctionDef
    results: tuple[str, ...]
    after: "Written | None" = None

    @property
    def final(self) -> tuple[str, ...]:
        """The names of what comes out in the end."""
        if self.after is None or self.after.results[0] == "param":
            return self.results
        return self.after.results

    def refused(self, node: ast.AST, reason: str) -> RuleError:
        """The error that shows a piece of the source, why it is one, and what to write instead."""
        code = self.update.__code__
        source = "".join(linecache.getlines(code.co_filename, self.update.__globals__))
        text, *more = (ast.get_source_segment(source, node) or ast.unparse(node)).splitlines()
        if more or len(text) > LONGEST_SHOWN:
            text = f"{text[:LONGEST_SHOWN]} ..."
        return RuleError(
            f"{code.co_filename}:{getattr(node, 'lineno', code.co_firstlineno)}: in "
            f"{code.co_name}(), `{text}` cannot be compiled: {reason}"
        )


def read(
    update: Callable[..., Any], arguments: Arguments, results: tuple[str, ...] | None = None
) -> Written | None:
    """Find the source of a function of a rule; None where there is none (typed in, or by exec).

    Args:
        update: the function.
        arguments: its arguments.
        results: the names of what it returns; None: the parameter and the states.
    """
    if TEXT in vars(update):
        known: Written | None = vars(update)[TEXT]
        return known
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
                return Written(update, arguments, node, results or ("param", *arguments.states))
    return None


def check(written: Written, optional: Mapping[str, str], names: tuple[str, ...]) -> None:
    """Refuse a function of a rule that some backend could not compile, under whichever flags.

    Args:
        written: the function.
        optional: the states that exist only under a flag: `{state: flag}`.
        names: of all flags of the rule, some of which the function takes.

    Raises:
        RuleError: shows file, line and text, why it cannot be compiled, and what is allowed.
    """
    if len(names) > MOST_FLAGS:
        raise written.refused(
            written.function,
            f"it has {len(names)} flags, and each choice of them is a kernel of its own; "
            f"at most {MOST_FLAGS} flags are allowed; make numbers of some, or several rules",
        )
    for values in product((True, False), repeat=len(names)):
        flags = dict(zip(names, values, strict=True))
        absent = [state for state, flag in optional.items() if not flags[flag]]
        straight(written, flags, absent, "{}", "{}")


def straight(
    written: Written,
    flags: Mapping[str, bool],
    absent: Iterable[str],
    literal: str,
    number: str,
    wide: str = "",
) -> tuple[list[str], list[str | None]]:
    """An update rule for one choice of flags, as lines without branches.

    Every argument `x` is the variable `u_x`; every assignment makes a new variable.

    Args:
        written: the rule.
        flags: the value of each flag.
        absent: the states that do not exist under these flags.
        literal: how a backend rounds a number to the precision of the arithmetic: "float32({})".
        number: how it writes a number of float64.
        wide: how it turns an element into one of float64; so are the factors of products that the
            terms of a measure are, and the parameter where another function goes on.

    Returns:
        The lines, and what is returned: for an update the new values of the parameter and of each
        state, None for absent ones.

    Raises:
        RuleError: some of it cannot be compiled.
    """
    first = _Straightened(written, flags, absent, literal, number, wide)
    if written.after is None:
        return first.result()
    # A step is what a parameter loses. In float32 a small one would be rounded, even to nothing.
    first.known["param"] = _Value("wide_param", element=True)
    lines, (new_param, *states) = first.result()
    then = _Straightened(written.after, flags, (), literal, number, wide, len(lines))
    then.known["param"] = _Value("wide_param", element=True)
    then.known["new_param"] = _Value("moved_param", element=True)
    more, results = then.result()
    lines = [f"wide_param = {wide.format('u_param')}", *lines, f"moved_param = {new_param}", *more]
    return lines, [*results, *states] if written.final == written.results else results


@dataclass(frozen=True)
class _Value:
    """An expression as code.

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
        wide: str,
        before: int = 0,
    ) -> None:
        self.written, self.absent, self.before = written, frozenset(absent), before
        self.flags = {name: flags[name] for name in written.arguments.flags}
        self.literal, self.number, self.wide = literal, number, wide
        self.lines: list[str] = []
        self.results = written.results
        self.known = {
            name: _Value(f"u_{name}", element=True)
            for name in ("param", "grad", *written.arguments.states)
            if name not in self.absent
        }
        self.known |= {name: _Value(f"u_{name}") for name in written.arguments.scalars}
        self.assigned = {
            node.id
            for node in ast.walk(written.function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }

    def result(self) -> tuple[list[str], list[str | None]]:
        function = self.written.function
        if function.decorator_list:
            raise self.refused(function.decorator_list[0], "decorator")
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        last = body[-1] if body else function
        if not isinstance(last, ast.Return):
            raise self.refused(last, "no return")
        for statement in body[:-1]:
            self.statement(statement)
        return self.lines, self.returned(last)

    def refused(self, node: ast.AST, reason: str, **words: object) -> RuleError:
        """The error for a piece of the source that `refusals.REASONS` has words for."""
        under = ", ".join(f"{flag}={value}" for flag, value in self.flags.items())
        results = ", ".join(self.results)
        known = {
            "under": f"with {under}, " if under else "",
            "what": "new" if self.results[0] == "param" else "terms",
            "one": "new" if self.results[0] == "param" else "term",
            "results": results,
            "total": len(self.results),
            "returns": f"its last line must be: return {results}{',' * (len(self.results) == 1)}",
        }
        return self.written.refused(node, refusals.REASONS[reason].format(**known, **words))

    # Statements

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.If():
                for inner in node.body if self.flag(node.test) else node.orelse:
                    self.statement(inner)
            case ast.Assign(targets=[target]):
                self.assign(target, node.value)
            case ast.Assign():
                raise self.refused(node, "several targets")
            case ast.AnnAssign(value=ast.expr() as value):
                self.assign(node.target, value)
            case ast.Return():
                raise self.refused(node, "early return")
            case ast.Pass():
                pass
            case _:
                raise self.written.refused(node, refusals.about(node))

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            raise self.refused(target, "several targets")
        if not isinstance(target, ast.Name):
            raise self.refused(target, "in place")
        name = target.id
        if name in self.flags:
            raise self.refused(target, "flag assigned", name=name)
        if name in vocabulary.WORDS:
            raise self.refused(target, "word assigned", name=name)
        new = self.value(value)
        if new.constant is None:
            variable = f"v{self.before + len(self.lines)}_{name}"
            self.lines.append(f"{variable} = {new.text}")
            new = _Value(variable, new.element, new.condition)
        self.known[name] = new

    def flag(self, node: ast.expr) -> bool:
        """The value of what stands behind `if`."""
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
                raise self.refused(node, "flag compared", name=name)
            case ast.Name(id=name) if name in self.written.arguments.scalars:
                raise self.refused(node, "if on a number", name=name)
            case _:
                raise self.refused(node, "if on an element")
        return found

    def returned(self, node: ast.Return) -> list[str | None]:
        values = node.value.elts if isinstance(node.value, ast.Tuple) else None
        if values is None or len(values) != len(self.results):
            got = "one value, and no tuple" if values is None else f"{len(values)} values"
            hint = ""
            if not self.written.arguments.scalars and len(self.results) > len(values or [0]):
                hint = "; among the arguments, numbers and flags stand behind a *"
            raise self.refused(node, "returned", got=got, hint=hint)
        self.refuse_other_order(node, values)
        results: list[str | None] = []
        for name, value in zip(self.results, values, strict=True):
            if name in self.absent:
                results.append(None)
                continue
            term = self.wide and self.results[0] != "param"
            new = self.product(value) if term else self.quantity(value)
            if not new.element:
                raise self.refused(value, "number returned", name=name)
            results.append(new.text)
        return results

    def product(self, node: ast.expr) -> _Value:
        """A term of a measure: the square of a large element is beyond float32, its sum is not."""
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
            return self.quantity(node)
        values = [self.quantity(one) for one in (node.left, node.right)]
        factors = [self.wide.format(value.text) for value in values]
        return _Value(f"({' * '.join(factors)})", any(value.element for value in values))

    def refuse_other_order(self, node: ast.Return, values: list[ast.expr]) -> None:
        """Refuse new values that stand in one another's place, which is seldom meant."""
        placed = [
            (value.id, name)
            for value, name in zip(values, self.results, strict=True)
            if isinstance(value, ast.Name) and value.id in self.results
        ]
        got, wanted = [one for one, _ in placed], [name for _, name in placed]
        if got != wanted and sorted(got) == sorted(wanted):
            raise self.refused(node, "other order", got=", ".join(got), wanted=", ".join(wanted))

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
                raise self.written.refused(node, refusals.about(node))
        return found

    def quantity(self, node: ast.expr) -> _Value:
        """An expression that must not be a comparison."""
        value = self.value(node)
        if value.condition:
            raise self.refused(node, "comparison as number")
        return value

    def constant(self, node: ast.expr, value: object) -> _Value:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.written.refused(node, refusals.about(node))
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if not finite:
            raise self.refused(node, "not finite")
        return _Value(self.number.format(repr(float(value))), constant=value)

    def name(self, node: ast.Name) -> _Value:
        name = node.id
        if name in self.known:
            return self.known[name]
        if name in self.flags:
            raise self.refused(node, "flag as number", name=name)
        if name in self.absent:
            raise self.refused(node, "absent state", name=name)
        if name in self.assigned:
            raise self.refused(node, "no value", name=name, where="here" if self.flags else "yet")
        outer = name in self.written.update.__code__.co_freevars
        scope = self.written.update.__globals__
        raise self.written.refused(node, refusals.about_name(name, outer, scope))

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
        if len(node.ops) > 1:
            raise self.refused(node, "chain")
        if type(node.ops[0]) not in _COMPARISONS:
            raise self.refused(node, "other comparison")
        values = [self.quantity(one) for one in (node.left, node.comparators[0])]
        if all(value.constant is not None for value in values):
            raise self.refused(node, "known comparison")
        left, right = self.met(values)
        text = f"({left} {_COMPARISONS[type(node.ops[0])]} {right})"
        return _Value(text, any(value.element for value in values), condition=True)

    def call(self, node: ast.Call) -> _Value:
        word = self.word(node)
        takes = _TAKES[word]
        for one in node.args:
            if isinstance(one, ast.Starred):
                raise self.written.refused(one, refusals.about(one))
        if node.keywords or len(node.args) != len(takes):
            got = f"{len(node.args)}" + (f", {len(node.keywords)} by name" if node.keywords else "")
            names = ", ".join(takes)
            raise self.refused(node, "arguments", word=word, takes=len(takes), got=got, names=names)
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
            raise self.refused(asked, "flag as comparison", name=asked.id)
        condition = self.value(asked)
        if not condition.condition:
            raise self.refused(asked, "number as comparison")
        values = [self.quantity(one) for one in (yes, no)]
        first, second = self.met(values, condition.element)
        element = condition.element or any(value.element for value in values)
        return _Value(f"where({condition.text}, {first}, {second})", element)

    def folded(self, node: ast.expr, meaning: Callable[..., Any], constants: list[float]) -> _Value:
        """The value of an expression of literals alone, computed as Python does."""
        try:
            return self.constant(node, meaning(*constants))
        except (ArithmeticError, ValueError) as error:
            if isinstance(error, RuleError):
                raise
            raise self.refused(node, "not computed", error=error) from error

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
                raise self.refused(node, "hidden word", name=function.id)
            meaning = scope.get(function.id)
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            meaning = getattr(scope.get(function.value.id), function.attr, None)
        if isinstance(function, ast.Name):
            for word in vocabulary.WORDS:
                if meaning is getattr(vocabulary, word):
                    return word
        raise self.written.refused(node, refusals.about_call(function, meaning))
