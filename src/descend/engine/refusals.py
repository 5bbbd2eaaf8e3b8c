"""Why a piece of Python cannot stand in an update rule, and what to write in its place."""

import ast
import builtins
import difflib
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from descend.engine.vocabulary import WORDS

IMPORT = "from descend.rules import"

ALLOWED = (
    "an update rule may use its arguments, local variables, numbers, + - * /, comparisons, "
    f"`if` on a flag, and {', '.join(WORDS[:-1])} and {WORDS[-1]}"
)

WhyInstead = tuple[str, str]
"""Why it cannot be compiled, and what to write instead."""

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
    ("all", "any", "cumsum", "dot", "matmul", "mean", "median", "mm", "norm", "std", "sum", "var")
)
"""Words that need more than one element."""

_OPERATORS: dict[type[ast.AST], WhyInstead] = {
    ast.Pow: ("** is not in the vocabulary", "multiply: x * x; for a root: sqrt(x)"),
    ast.FloorDiv: ("// is not in the vocabulary", "use /"),
    ast.Mod: ("% is not in the vocabulary", ALLOWED),
    ast.MatMult: (
        "@ needs whole matrices, and a kernel sees one element",
        "a WholeRule sees whole tensors",
    ),
    ast.BitAnd: (
        "& is not in the vocabulary",
        "nest: where(first, where(second, x, y), y) is x where both hold",
    ),
    ast.BitOr: (
        "| is not in the vocabulary",
        "nest: where(first, x, where(second, x, y)) is x where either holds",
    ),
    ast.Invert: ("~ is not in the vocabulary", "turn the comparison around: > into <="),
    ast.Not: (
        "`not` asks for one truth, and a comparison has one for each element",
        "turn the comparison around: > into <=; `not` is for flags, after `if`",
    ),
    ast.And: (
        "`and` asks for one truth, and a comparison has one for each element",
        "nest: where(first, where(second, x, y), y) is x where both hold; "
        "`and` is for flags, after `if`",
    ),
    ast.Or: (
        "`or` asks for one truth, and a comparison has one for each element",
        "nest: where(first, x, where(second, x, y)) is x where either holds; "
        "`or` is for flags, after `if`",
    ),
}

_LOOP = (
    "a loop runs over and over, and the rule is one step of one element",
    "write the operations out, or compute what depends only on step and options in `scalars`",
)
_EFFECT = ("an update has no effects: all it does is return new values", "leave it out")
_DEFINITION = ("a kernel cannot define anything", "write it out, in one function")
_RAISE = ("a kernel cannot raise", "check the options in `flags`, on the host")
_IMPORT = ("a rule imports nothing", "import the vocabulary at the top of the file")
_NODES: dict[type[ast.AST], WhyInstead] = {
    ast.For: _LOOP,
    ast.While: _LOOP,
    ast.AsyncFor: _LOOP,
    ast.ListComp: _LOOP,
    ast.SetComp: _LOOP,
    ast.DictComp: _LOOP,
    ast.GeneratorExp: _LOOP,
    ast.With: _EFFECT,
    ast.AsyncWith: _EFFECT,
    ast.Global: _EFFECT,
    ast.Nonlocal: _EFFECT,
    ast.Delete: _EFFECT,
    ast.Await: _EFFECT,
    ast.Yield: _EFFECT,
    ast.YieldFrom: _EFFECT,
    ast.Assert: _RAISE,
    ast.Raise: _RAISE,
    ast.Try: ("a kernel cannot raise, so there is nothing to catch", "leave it out"),
    ast.Import: _IMPORT,
    ast.ImportFrom: _IMPORT,
    ast.FunctionDef: _DEFINITION,
    ast.AsyncFunctionDef: _DEFINITION,
    ast.ClassDef: _DEFINITION,
    ast.Lambda: _DEFINITION,
    ast.Match: ("a kernel has no branches", "use `if` on flags"),
    ast.AnnAssign: ("it gives the variable no value", "assign one: x = ..."),
    ast.AugAssign: (
        "where torch runs it, it would change the tensor itself: the parameter, or your gradient",
        "write it out: x = x + y",
    ),
    ast.NamedExpr: ("it assigns inside of an expression", "use a line of its own"),
    ast.Starred: ("a star stands for any number of values", "write each value out"),
    ast.Tuple: ("several values at once stand only behind `return`", "use a line for each value"),
    ast.Attribute: (
        "an element is a plain number and has no attributes, and a kernel sees no modules",
        "pass what it stands for as a keyword-only argument, or write the number itself",
    ),
    ast.Subscript: (
        "an update sees one element, which has no parts",
        "compute what depends only on options in `scalars`; a WholeRule sees whole tensors",
    ),
}


def about(node: ast.AST) -> WhyInstead:
    """What to say of a node that has no place in an update rule at all."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.BoolOp)):
        return _OPERATORS.get(type(node.op), ("this operator is not in the vocabulary", ALLOWED))
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            return "True and False are no numbers", "write 1.0 or 0.0, or use `if` on a flag"
        return f"{node.value!r} is no number", ALLOWED
    if isinstance(node, ast.Expr) and type(node.value) not in _NODES:
        return "its value goes nowhere", "assign it to a variable, or leave it out"
    kind = type(node.value) if isinstance(node, ast.Expr) else type(node)
    return _NODES.get(kind, ("it is no arithmetic on numbers", ALLOWED))


def about_call(function: ast.expr, meaning: object) -> WhyInstead:
    """What to say of a call of something that is no word of the vocabulary.

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
    return why, instead


def _near(name: str) -> str:
    if name in _NEAR:
        return f"write {_NEAR[name]}"
    close = difflib.get_close_matches(name.lower(), (*WORDS, *_NEAR), n=1)
    return f"did you mean {_NEAR.get(close[0], close[0] + '(...)')}?" if close else ""


def about_name(name: str, outer: bool, scope: Mapping[str, Any]) -> WhyInstead:
    """What to say of a name that is no argument and no local variable.

    Args:
        name: the name.
        outer: whether it is a variable of a function around the update.
        scope: the globals of its file.
    """
    argument = f"make it a keyword-only argument: def update(..., *, {name})"
    if outer:
        return (
            f"{name} is a variable of the function around it, which a kernel cannot see",
            argument,
        )
    meaning = scope.get(name, getattr(builtins, name, None))
    if name not in scope and not hasattr(builtins, name):
        return f"there is no {name}", f"assign to it before, or {argument}"
    if isinstance(meaning, (int, float)) and not isinstance(meaning, bool):
        return (
            f"{name} is a variable of the file, and a kernel would not see it change",
            f"write the number itself ({meaning!r}), or {argument}",
        )
    return f"{name} is a {type(meaning).__name__} from outside of the update", ALLOWED
