"""The text of kernels: what the compiled backends share of it."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from descend.engine.rule import Variant


def bare(update: Callable[..., Any]) -> ast.Module:
    """An update rule as a compiler wants it: no annotations, no docstring, plain arguments."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(update)))
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef), "an update rule is a plain function"
    function.name = "update"
    function.decorator_list.clear()
    function.returns = None
    if ast.get_docstring(function) is not None:
        del function.body[0]
    function.args.args += function.args.kwonlyargs
    function.args.kwonlyargs, function.args.kw_defaults = [], []
    for argument in function.args.args:
        argument.annotation = None
    return tree


def call(variant: Variant) -> str:
    """The call of the update rule with this variant's flags as constants."""
    return "update({})".format(
        ", ".join(
            [
                "param",
                "grad",
                *variant.rule.states,
                *(f"{scalar}={scalar}" for scalar in variant.rule.scalar_names),
                *(f"{flag}={value}" for flag, value in variant.flags),
            ]
        )
    )


def prologue(variant: Variant) -> list[str]:
    """What happens to the gradient before the rule sees it."""
    lines = []
    if variant.scaled:
        lines.append("grad = grad * grad_factor")
    if variant.limited:
        lines.append("grad = minimum(maximum(grad, -grad_limit), grad_limit)")
    return lines
