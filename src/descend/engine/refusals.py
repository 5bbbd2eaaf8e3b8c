"""Why a piece of Python cannot stand in an update rule; what to write in its place.

Each reason is a text: why; what to write instead.
"""

import ast
import builtins
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from descend.engine.vocabulary import WORDS
from descend.spelling import closest

IMPORT = "from descend.rules import"

ALLOWED = (
    "an update rule may use its arguments, local variables, numbers, + - * /, comparisons, "
    f"`if` on a flag, and {', '.join(WORDS[:-1])} and {WORDS[-1]}"
)

REASONS: dict[str, str] = {
    "decorator": "a kernel does not see a decorator; leave it out",
    "no return": "the update does not end with `return`; {returns}",
    "several targets": "it assigns to several variables; use a line for each",
    "early return": (
        "there is one `return`, at the end; assign to variables in the branches; {returns}"
    ),
    "in place": (
        "an update changes nothing in place; assign to a variable, and return the new values"
    ),
    "flag assigned": "{name} is a flag, a constant of the kernel; use another variable",
    "word assigned": "{name} hides the word {name}() of the vocabulary; use another variable",
    "flag compared": "{name} is True or False already; write: if {name}",
    "if on a number": (
        "`if` needs a flag, and {name} is a number that may change at every step; annotate it if "
        "it is a flag ({name}: bool), or use where({name} != 0, x, y)"
    ),
    "if on an element": (
        "`if` needs a flag: a kernel has no branches, as elements differ; use where(condition, x, "
        "y), or a keyword-only argument annotated bool"
    ),
    "returned": (
        "it returns {got}, and must return a tuple of {total}: the {what} {results}; "
        "{returns}{hint}"
    ),
    "number returned": (
        "the {one} {name} would be one number for all elements; return one value for each; numbers "
        "that change with the step are the business of `scalars` and `counters`"
    ),
    "other order": (
        "it returns {got} in the place of {wanted}; {returns}; to exchange them on purpose, use "
        "variables of other names"
    ),
    "comparison as number": "a comparison is no number; make one of it: where(condition, 1.0, 0.0)",
    "not finite": "its value is not finite; use smaller numbers",
    "flag as number": "{name} is a flag, no number; write: x if {name} else y",
    "absent state": (
        "{under}there is no {name}: the rule's `optional` says so; use {name} only under its "
        "flag, or take it out of `optional`"
    ),
    "no value": "{under}{name} has no value {where}; assign to it before, in every branch",
    "chain": (
        "it asks for one truth, and each element has its own; compare twice: where(low < x, "
        "where(x < high, a, b), b)"
    ),
    "other comparison": f"only < <= > >= == != compare numbers; {ALLOWED}",
    "known comparison": "it compares two known numbers; write what comes out",
    "arguments": "{word}() takes {takes} values by position, got {got}; write {word}({names})",
    "flag as comparison": "{name} is a flag, no comparison; write: x if {name} else y",
    "number as comparison": "where() chooses by a comparison; compare it: x != 0",
    "not computed": "it cannot be computed: {error}; numbers must be finite",
    "hidden word": (
        "{name} is a variable of the function here, or of one around it; give the variable "
        f"another name; the words are imported: {IMPORT} ..."
    ),
}
"""Of what has a place in an update rule, but not there; {these} are filled in."""

_NEAR = {
    "abs": "absolute(x)",
    "fabs": "absolute(x)",
    "add": "x + y",
    "addcdiv": "x + y / z * number",
    "addcmul": "x + y * z * number",
    "clamp": "minimum(maximum(x, low), high)",
    "clip": "minimum(maximum(x, low), high)",
    "div": "x / y",
    "float": "the number itself: numbers are floating-point anyway",
    "fmax": "maximum(x, y)",
    "fmin": "minimum(x, y)",
    "isfinite": "x - x == 0",
    "isnan": "x != x",
    "lerp": "x + (y - x) * weight",
    "max": "maximum(x, y)",
    "min": "minimum(x, y)",
    "mul": "x * y",
    "neg": "-x",
    "pow": "x * x for a square, sqrt(x) for a root",
    "power": "x * x for a square, sqrt(x) for a root",
    "reciprocal": "1 / x",
    "relu": "maximum(x, 0)",
    "rsqrt": "1 / sqrt(x)",
    "sgn": "sign(x)",
    "signum": "sign(x)",
    "square": "x * x",
    "sub": "x - y",
}

_WHOLE = frozenset(
    ["all", "any", "cumsum", "dot", "matmul", "mean", "median", "mm", "norm", "std", "sum", "var"]
)
"""Words that need more than one element."""

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Pow: "** is not in the vocabulary; multiply: x * x; for a root: sqrt(x)",
    ast.FloorDiv: "// is not in the vocabulary; use /",
    ast.Mod: f"% is not in the vocabulary; {ALLOWED}",
    ast.MatMult: (
        "@ needs whole matrices, and a kernel sees one element; a WholeRule sees whole tensors"
    ),
    ast.BitAnd: (
        "& is not in the vocabulary; nest: where(first, where(second, x, y), y) is x where both "
        "hold"
    ),
    ast.BitOr: (
        "| is not in the vocabulary; nest: where(first, x, where(second, x, y)) is x where either "
        "holds"
    ),
    ast.Invert: "~ is not in the vocabulary; turn the comparison around: > into <=",
    ast.Not: (
        "`not` asks for one truth, and a comparison has one for each element; turn the comparison "
        "around: > into <=; `not` is for flags, after `if`"
    ),
    ast.And: (
        "`and` asks for one truth, and a comparison has one for each element; nest: where(first, "
        "where(second, x, y), y) is x where both hold; `and` is for flags, after `if`"
    ),
    ast.Or: (
        "`or` asks for one truth, and a comparison has one for each element; nest: where(first, "
        "x, where(second, x, y)) is x where either holds; `or` is for flags, after `if`"
    ),
}

_LOOPS = (ast.For, ast.While, ast.AsyncFor, ast.ListComp, ast.SetComp, ast.DictComp)
_EFFECTS = (ast.With, ast.AsyncWith, ast.Global, ast.Nonlocal, ast.Delete, ast.Await, ast.Yield)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_NODES: dict[tuple[type[ast.AST], ...], str] = {
    (*_LOOPS, ast.GeneratorExp): (
        "a loop runs over and over, and the rule is one step of one element; write the operations "
        "out, or compute what depends only on step and options in `scalars`"
    ),
    (*_EFFECTS, ast.YieldFrom): (
        "an update has no effects: all it does is return new values; leave it out"
    ),
    _DEFINITIONS: "a kernel cannot define anything; write it out, in one function",
    (ast.Assert, ast.Raise): "a kernel cannot raise; check the options in `flags`, on the host",
    (ast.Try,): "a kernel cannot raise, so there is nothing to catch; leave it out",
    (ast.Import, ast.ImportFrom): (
        "a rule imports nothing; import the vocabulary at the top of the file"
    ),
    (ast.Match,): "a kernel has no branches; use `if` on flags",
    (ast.AnnAssign,): "it gives the variable no value; assign one: x = ...",
    (ast.AugAssign,): (
        "where torch runs it, it would change the tensor itself: the parameter, or your gradient; "
        "write it out: x = x + y"
    ),
    (ast.NamedExpr,): "it assigns inside of an expression; use a line of its own",
    (ast.Starred,): "a star stands for any number of values; write each value out",
    (ast.Tuple,): "several values at once stand only behind `return`; use a line for each value",
    (ast.Attribute,): (
        "an element is a plain number and has no attributes, and a kernel sees no modules; pass "
        "what it stands for as a keyword-only argument, or write the number itself"
    ),
    (ast.Subscript,): (
        "an update sees one element, which has no parts; compute what depends only on options in "
        "`scalars`; a WholeRule sees whole tensors"
    ),
}


def about(node: ast.AST) -> str:
    """The reason why a node has no place in an update rule at all."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.BoolOp)):
        return _OPERATORS.get(type(node.op), f"this operator is not in the vocabulary; {ALLOWED}")
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            return "True and False are no numbers; write 1.0 or 0.0, or use `if` on a flag"
        return f"{node.value!r} is no number; {ALLOWED}"
    inner = node.value if isinstance(node, ast.Expr) else node
    for kinds, reason in _NODES.items():
        if isinstance(inner, kinds):
            return reason
    if isinstance(node, ast.Expr):
        return "its value goes nowhere; assign it to a variable, or leave it out"
    return f"it is no arithmetic on numbers; {ALLOWED}"


def about_call(function: ast.expr, meaning: object) -> str:
    """The reason why something that is no word of the vocabulary cannot be called.

    Args:
        function: what is called, as written.
        meaning: what it is, where it is a global name or an attribute of a module; else None.
    """
    if not isinstance(function, (ast.Name, ast.Attribute)):
        return about(function)
    text = ast.unparse(function)
    name = text.rpartition(".")[2]
    module = str(getattr(meaning, "__module__", "") or type(meaning).__module__)
    why = f"{text}() is not in the vocabulary"
    if isinstance(function, ast.Attribute) and name.endswith("_"):
        name = name.rstrip("_")
        why = f"{text}() changes a tensor in place, and an update is pure"
    elif name == text and name in WORDS:
        why = f"{text} is {module}.{text} here" if meaning else f"{text} is not imported"
    if name in WORDS:
        instead = f"write {name}(...), with: {IMPORT} {name}"
    elif name in _WHOLE:
        why = f"{text}() needs more than one element, and an update sees one"
        instead = "a WholeRule sees whole tensors"
    elif isinstance(meaning, FunctionType) and not module.startswith(("torch", "numpy")):
        instead = "a kernel cannot call it: write it out here"
    else:
        instead = _near(name) or (
            f"the words are {', '.join(WORDS)}; what depends only on step and options is computed "
            "in `scalars`, with any function"
        )
    return f"{why}; {instead}"


def _near(name: str) -> str:
    if name in _NEAR:
        return f"write {_NEAR[name]}"
    close = closest(name, (*WORDS, *_NEAR))
    return f"did you mean {_NEAR.get(close, f'{close}(...)')}?" if close else ""


def about_name(name: str, outer: bool, scope: Mapping[str, Any]) -> str:
    """The reason why a name that is no argument and no local variable cannot be used.

    Args:
        name: the name.
        outer: whether it is a variable of a function around the update.
        scope: the globals of its file.
    """
    argument = f"make it a keyword-only argument: def update(..., *, {name})"
    if outer:
        return (
            f"{name} is a variable of the function around it, which a kernel cannot see; {argument}"
        )
    meaning = scope.get(name, getattr(builtins, name, None))
    if name not in scope and not hasattr(builtins, name):
        return f"there is no {name}; assign to it before, or {argument}"
    if isinstance(meaning, (int, float)) and not isinstance(meaning, bool):
        return (
            f"{name} is a variable of the file, and a kernel would not see it change; "
            f"write the number itself ({meaning!r}), or {argument}"
        )
    return f"{name} is a {type(meaning).__name__} from outside of the update; {ALLOWED}"
