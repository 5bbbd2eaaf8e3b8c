"""The text of kernels: what the compiled backends share of it.

In a kernel, the rule's own names begin with `u_` or with `v` and a number (see `grammar`), and the
kernel's never do: whatever a rule calls its states and scalars, it cannot touch an address.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from descend.engine import grammar
from descend.engine.measure import Measure
from descend.engine.rule import Variant
from descend.engine.rule_arguments import where_written
from descend.errors import RuleError


def body(
    variant: Variant, literal: str, number: str, wide: str, measure: Measure | None = None
) -> tuple[list[str], dict[str, str]]:
    """The update of one element, as lines without branches.

    Args:
        variant: the rule and its flags; what it reads are the variables `u_param`, `u_grad`, ...
        literal: how the backend rounds a number to the precision of the arithmetic:
            "float32({})".
        number: how it writes a number of float64.
        wide: how it turns an element into one of float64.
        measure: one of the rule's: the terms that it adds up, instead of the update.

    Returns:
        The lines, and the new value of the parameter and of each state present (or each term), by
        name.
    """
    written = (measure or variant.rule).written
    assert written is not None, "without its source a rule takes the eager path"
    lines, new = grammar.straight(
        written, dict(variant.flags), variant.absent, literal, number, wide
    )
    results = zip(written.final, new, strict=True)
    return (
        [*_prologue(variant), *lines],
        {name: text for name, text in results if text is not None},
    )


def _prologue(variant: Variant) -> list[str]:
    """The lines that change the gradient before the rule sees it."""
    lines = []
    if variant.scaled:
        lines.append("u_grad = u_grad * grad_factor")
    if variant.limited:
        lines.append("u_grad = minimum(maximum(u_grad, -grad_limit), grad_limit)")
    return lines


@contextmanager
def blamed(variant: Variant, errors: type[Exception]) -> Iterator[None]:
    """Name the rule whose kernel the compiler in this block refuses.

    Args:
        variant: what is compiled.
        errors: what the compiler raises.

    Raises:
        RuleError: the rule's file and line, and the compiler's reason.
    """
    try:
        yield
    except errors as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        flags = ", ".join(f"{flag}={value}" for flag, value in variant.flags)
        # Nothing that the grammar admits should get here; whoever meets it should know a way on.
        raise RuleError(
            f"{where_written(variant.rule.update)} could not be compiled"
            f"{' with ' + flags if flags else ''}: {reason}; please report this, with the rule. "
            'Until then, `with descend.engine.forced_backend("eager"):` steps without compiling'
        ) from error
