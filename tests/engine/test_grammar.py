"""What an update rule may say: all of it compiles everywhere, all else is refused with its line."""

import importlib.util
import inspect
import itertools
import math
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from children import python
from descend.engine import cpu, forced_backend, gpu, grammar, rule_arguments, vocabulary
from descend.engine.plan import Clipping, Stepper
from descend.engine.rule import Rule
from descend.errors import DescendError, RuleError
from descend.optimizers import CATALOGUE

HEAD = """\
import math
import numpy as np
import torch
from descend.rules import Rule, absolute, maximum, minimum, sign, sqrt, where

RATE = 0.1


def helper(x):
    return x


"""

_count = itertools.count()


def loaded(folder, text, head=HEAD):
    """The module of a file with this text, as `import` would make it."""
    file = folder / f"rule_{next(_count)}.py"
    file.write_text(head + text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(file)
    try:
        spec.loader.exec_module(module)
    except RuleError as error:
        error.file = file
        raise
    return module


def rule_of(folder, text, **options):
    """The rule of a file that defines `update`."""
    return Rule(loaded(folder, textwrap.dedent(text)).update, **options)


# The lines of an update, the piece that is refused, why, and what to write instead.
REFUSED = {
    "torch.sqrt": ("x = torch.sqrt(grad)", "torch.sqrt(grad)", "vocabulary", "write sqrt(...)"),
    "math.sqrt": ("x = math.sqrt(lr)", "math.sqrt(lr)", "vocabulary", "write sqrt(...)"),
    "np.sqrt": ("x = np.sqrt(grad)", "np.sqrt(grad)", "vocabulary", "write sqrt(...)"),
    "a method": ("x = grad.sqrt()", "grad.sqrt()", "vocabulary", "write sqrt(...)"),
    "in place": ("x = grad.mul_(2)", "grad.mul_(2)", "in place", "write x * y"),
    "abs": ("x = abs(grad)", "abs(grad)", "vocabulary", "write absolute(x)"),
    "max": ("x = max(grad, lr)", "max(grad, lr)", "vocabulary", "write maximum(x, y)"),
    "clamp": (
        "x = torch.clamp(grad, -1, 1)",
        "torch.clamp(grad, -1, 1)",
        "vocabulary",
        "write minimum(maximum(x, low), high)",
    ),
    "pow": ("x = pow(grad, 2)", "pow(grad, 2)", "vocabulary", "write x * x for a square"),
    "norm": ("x = grad.norm()", "grad.norm()", "more than one element", "a WholeRule sees"),
    "exp": ("x = math.exp(lr)", "math.exp(lr)", "vocabulary", "computed in `scalars`"),
    "misspelt": ("x = absolut(grad)", "absolut(grad)", "vocabulary", "did you mean absolute(...)?"),
    "own function": ("x = helper(grad)", "helper(grad)", "vocabulary", "write it out here"),
    "float": ("x = float(lr)", "float(lr)", "vocabulary", "write the number itself"),
    "power": ("x = grad ** 2", "grad ** 2", "** is not", "multiply: x * x; for a root: sqrt(x)"),
    "floor": ("x = grad // 2", "grad // 2", "// is not in the vocabulary", "use /"),
    "modulo": ("x = grad % 2", "grad % 2", "% is not in the vocabulary", "an update rule may use"),
    "matrix": ("x = grad @ param", "grad @ param", "whole matrices", "a WholeRule sees"),
    "both": (
        "x = where((grad > 0) & (param > 0), 1.0, 0.0)",
        "(grad > 0) & (param > 0)",
        "& is not",
        "nest: where(first, where(second, x, y), y)",
    ),
    "either": (
        "x = where((grad > 0) | (param > 0), 1.0, 0.0)",
        "(grad > 0) | (param > 0)",
        "| is not",
        "nest: where(first, x, where(second, x, y))",
    ),
    "inverted": (
        "x = where(~(grad > 0), 1.0, 0.0)",
        "~(grad > 0)",
        "~ is not",
        "turn the comparison around",
    ),
    "not": (
        "x = where(not grad > 0, 1.0, 0.0)",
        "not grad > 0",
        "one for each element",
        "turn the comparison around",
    ),
    "and": (
        "x = where(grad > 0 and lr > 0, 1.0, 0.0)",
        "grad > 0 and lr > 0",
        "one for each element",
        "nest: where(first, where(second, x, y), y)",
    ),
    "or": (
        "x = where(grad > 0 or lr > 0, 1.0, 0.0)",
        "grad > 0 or lr > 0",
        "one for each element",
        "nest: where(first, x, where(second, x, y))",
    ),
    "chain": (
        "x = where(0 < grad < 1, grad, param)",
        "0 < grad < 1",
        "each element has its own",
        "compare twice",
    ),
    "is": ("x = where(grad is lr, 1, 2)", "grad is lr", "only < <= > >= == !=", "comparisons"),
    "in": ("x = where(grad in param, 1, 2)", "grad in param", "only < <= > >= == !=", "comp"),
    "compared literals": ("x = where(1 > 0, 1, 2)", "1 > 0", "two known numbers", "what comes out"),
    "where a number": ("x = where(grad, 1, 2)", "grad", "by a comparison", "x != 0"),
    "where a flag": ("x = where(flag, 1, 2)", "flag", "a flag, no comparison", "x if flag else y"),
    "too few": ("x = maximum(grad)", "maximum(grad)", "2 values by position, got 1", "(x, y)"),
    "by name": ("x = sqrt(x=grad)", "sqrt(x=grad)", "1 values by position, got 0, 1 by", "(x)"),
    "starred": ("x = maximum(*grad)", "*grad", "any number of values", "write each value out"),
    "a comparison as a number": (
        "x = 2 * (grad > 0)",
        "grad > 0",
        "a comparison is no number",
        "where(condition, 1.0, 0.0)",
    ),
    "a constant of the file": (
        "x = grad * RATE",
        "RATE",
        "a kernel would not see it change",
        "write the number itself (0.1), or make it a keyword-only argument",
    ),
    "an attribute": ("x = grad * math.pi", "math.pi", "no attributes", "write the number itself"),
    "an attribute of a tensor": ("x = param.data", "param.data", "no attributes", "keyword-only"),
    "an item": ("x = grad[0]", "grad[0]", "no parts", "in `scalars`"),
    "an unknown name": ("x = grad * missing", "missing", "there is no missing", "keyword-only"),
    "a function as a value": ("x = grad * helper", "helper", "is a function", "may use"),
    "a flag as a number": ("x = grad * flag", "flag", "a flag, no number", "x if flag else y"),
    "a bool": ("x = grad * True", "True", "no numbers", "1.0 or 0.0"),
    "None": ("x = None", "None", "no number", "may use"),
    "a text": ("x = 'a'", "'a'", "no number", "may use"),
    "a complex number": ("x = grad * 2j", "2j", "no number", "may use"),
    "infinity": ("x = grad * 1e999", "1e999", "not finite", "smaller numbers"),
    "overflow": ("x = grad * (1e200 * 1e200)", "1e200 * 1e200", "not finite", "smaller numbers"),
    "a huge integer": ("x = grad * " + "9" * 400, None, "not finite", "smaller numbers"),
    "division by zero": ("x = grad * (1 / 0)", "1 / 0", "division by zero", "finite"),
    "root of a negative": ("x = grad * sqrt(-1)", "sqrt(-1)", "cannot be computed", "finite"),
    "lambda": ("x = (lambda y: y)(grad)", "(lambda y: y)(grad)", "cannot define", "write it out"),
    "comprehension": ("x = [g for g in grad]", "[g for g in grad]", "a loop", "write the oper"),
    "walrus": ("x = (y := grad)", "y := grad", "inside of an expression", "a line of its own"),
    "tuple": ("x = (grad, param)", "(grad, param)", "only behind `return`", "a line for each"),
    "list": ("x = [grad]", "[grad]", "no arithmetic", "may use"),
    "f-string": ("x = f'{grad}'", "f'{grad}'", "no arithmetic", "may use"),
    "two targets": ("x, y = grad, param", "x, y", "several variables", "a line for each"),
    "chained targets": ("x = y = grad", "x = y = grad", "several variables", "a line for each"),
    "augmented": ("param -= lr * grad", "param -= lr * grad", "or your gradient", "x = x + y"),
    "attribute target": ("param.data = grad", "param.data", "nothing in place", "new values"),
    "item target": ("buffer[0] = grad", "buffer[0]", "nothing in place", "new values"),
    "flag target": ("flag = True", "flag", "a constant of the kernel", "another variable"),
    "word target": ("sign = grad", "sign", "hides the word sign()", "another variable"),
    "no value": ("x: float", "x: float", "no value", "assign one"),
    "print": ("print(grad)", "print(grad)", "goes nowhere", "leave it out"),
    "for": ("for i in (1, 2):\n    x = grad", "for i in (1, 2): ...", "a loop", "write the"),
    "while": ("while lr:\n    x = grad", "while lr: ...", "a loop", "write the operations out"),
    "with": ("with lr:\n    x = grad", "with lr: ...", "no effects", "leave it out"),
    "try": ("try:\n    x = grad\nfinally:\n    pass", "try: ...", "cannot raise", "leave it out"),
    "assert": ("assert lr > 0", "assert lr > 0", "cannot raise", "in `flags`"),
    "raise": ("raise ValueError", "raise ValueError", "cannot raise", "in `flags`"),
    "import": ("import os", "import os", "imports nothing", "at the top of the file"),
    "global": ("global RATE", "global RATE", "no effects", "leave it out"),
    "del": ("del grad", "del grad", "no effects", "leave it out"),
    "yield": ("yield grad", "yield grad", "no effects", "leave it out"),
    "nested": ("def inner(x):\n    return x", "def inner(x): ...", "cannot define", "write it out"),
    "class": ("class Inner:\n    pass", "class Inner: ...", "cannot define", "write it out"),
    "match": ("match lr:\n    case 1:\n        x = lr", "match lr: ...", "no branches", "use `if`"),
    "if on a tensor": ("if grad > 0:\n    x = lr", "grad > 0", "needs a flag", "use where("),
    "if on a number": ("if lr:\n    x = lr", "lr", "may change at every step", "(lr: bool)"),
    "if on both": ("if flag and lr > 0:\n    x = lr", "lr > 0", "needs a flag", "use where("),
    "if flag is": ("if flag is True:\n    x = lr", "flag is True", "already", "write: if flag"),
    "chosen by a tensor": ("x = lr if grad > 0 else 1", "grad > 0", "needs a flag", "use where("),
    "return in a branch": (
        "if flag:\n    return param, buffer",
        "return param, buffer",
        "one `return`, at the end",
        "its last line must be: return param, buffer",
    ),
    "too early": ("x = y\ny = grad", "y", "has no value here", "assign to it before"),
    "one branch": (
        "if flag:\n    x = grad\nparam = x",
        "x",
        "with flag=False, x has no value here",
        "in every branch",
    ),
    "the other branch": (
        "if not flag:\n    x = grad\nparam = x",
        "x",
        "with flag=True, x has no value here",
        "in every branch",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_refused_where_it_stands(tmp_path, name):
    lines, piece, why, instead = REFUSED[name]
    text = (
        f"def update(param, grad, buffer, *, lr, flag: bool):\n{textwrap.indent(lines, '    ')}\n"
    )
    with pytest.raises(RuleError) as caught:
        loaded(tmp_path, f"{text}    return param, buffer\n\n\nrule = Rule(update)\n")
    message, first = str(caught.value), HEAD.count("\n") + 2
    within = next((i for i, line in enumerate(lines.split("\n")) if piece and piece in line), 0)
    if name in ("one branch", "the other branch"):
        within = 2
    if name == "for":
        within = 0
    place, colon, rest = message.partition(": in update(), `")
    assert colon, message
    assert place == f"{caught.value.file}:{first + within}"
    shown, separator, reason = rest.partition("` cannot be compiled: ")
    assert separator, message
    if piece is not None:
        assert shown == piece
    assert why in reason.partition("; ")[0]
    assert instead in reason.partition("; ")[2]
    assert isinstance(caught.value, DescendError)
    assert isinstance(caught.value, ValueError)


RETURNS = {
    "nothing": ("param = param", "does not end with `return`"),
    "no tuple": ("return param", "it returns one value, and no tuple"),
    "none": ("return", "it returns one value, and no tuple"),
    "too few": ("return (param,)", "it returns 1 values, and must return a tuple of 3"),
    "too many": ("return param, first, second, grad", "it returns 4 values, and must return"),
    "starred": ("return *grad, first, second", "a star stands for any number of values"),
    "other order": (
        "return param, second, first",
        "it returns param, second, first in the place of param, first, second",
    ),
    "param last": ("return first, second, param", "it returns first, second, param in the place"),
    "a number": ("return param, lr, second", "the new first would be one number for all elements"),
    "a comparison": ("return param, first, grad > 0", "a comparison is no number"),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_is_returned_must_be_the_new_values_in_order(tmp_path, name):
    line, why = RETURNS[name]
    text = f"def update(param, grad, first, second, *, lr):\n    x = lr\n    {line}\n"
    with pytest.raises(RuleError, match=r"rule_\d+\.py:\d+: in update\(\), `") as caught:
        rule_of(tmp_path, text)
    assert why in str(caught.value)
    if name in ("nothing", "no tuple", "too few", "other order"):
        assert "its last line must be: return param, first, second" in str(caught.value)


def test_a_forgotten_star_is_pointed_out(tmp_path):
    with pytest.raises(RuleError, match=r"numbers and flags stand behind a \*"):
        rule_of(tmp_path, "def update(param, grad, lr):\n    return (param - lr * grad,)\n")


ARGUMENTS = {
    "none": ("def update(): pass", "must be param and grad, not none"),
    "other names": ("def update(p, g): pass", "must be param and grad, not p, g"),
    "other order": ("def update(grad, param): pass", "must be param and grad, not grad, param"),
    "args": ("def update(param, grad, *more): pass", r"takes \*more, which says neither"),
    "kwargs": ("def update(param, grad, **more): pass", r"takes \*\*more, which says neither"),
    "positional": ("def update(param, grad, /): pass", "param is positional-only.*leave out the /"),
    "default": (
        "def update(param, grad, *, lr=0.1): pass",
        r"its argument lr has a default \(0.1\).*constructor",
    ),
    "default of a state": ("def update(param, grad, x=None): pass", "argument x has a default"),
    "a word": ("def update(param, grad, sign): pass", r"sign hides the word sign\(\)"),
    "a flag among tensors": (
        "def update(param, grad, nesterov: bool): pass",
        "nesterov is annotated bool but stands among the tensors; put flags .* behind a *",
    ),
    "a lambda": ("update = lambda param, grad: (param,)", "is a lambda; write a function"),
    "step": ("def update(param, grad, step): return param, step", "`step` is the count of steps"),
    "a wrapper": (
        """
        import functools
        def wrapped(function):
            @functools.wraps(function)
            def inner(*args, **kwargs):
                return function(*args, **kwargs)
            return inner
        @wrapped
        def update(param, grad):
            return (param,)
        """,
        r"takes \*args",
    ),
    "a decorator": (
        """
        def same(function):
            return function
        @same
        def update(param, grad):
            return (param,)
        """,
        r"`same` cannot be compiled: a kernel does not see a decorator; leave it out",
    ),
    "a closure": (
        """
        def outer(rate):
            def update(param, grad):
                return (param - rate * grad,)
            return update
        update = outer(0.1)
        """,
        "rate is a variable of the function around it.*make it a keyword-only argument",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_must_be_those_of_an_update_rule(tmp_path, name):
    text, why = ARGUMENTS[name]
    with pytest.raises(RuleError, match=f"(?s){why}") as caught:
        rule_of(tmp_path, text)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("update", [None, "update", torch.nn.Linear, len, torch.abs])
def test_an_update_must_be_a_function(update):
    with pytest.raises(RuleError, match=r"must be a plain function, got .*def update"):
        Rule(update)


def test_a_word_from_elsewhere_is_not_the_vocabularys(tmp_path):
    text = "from math import sqrt\ndef update(param, grad):\n    return (param - sqrt(grad),)\n"
    with pytest.raises(RuleError, match=r"sqrt is math.sqrt here; write sqrt.*from desc"):
        rule_of(tmp_path, text)
    text = "del sqrt\ndef update(param, grad):\n    return (param - sqrt(grad),)\n"
    with pytest.raises(RuleError, match=r"sqrt is not imported; write sqrt.*from descend.rules"):
        rule_of(tmp_path, text)


def test_too_many_flags_are_refused(tmp_path):
    flags = [f"f{i}" for i in range(grammar.MOST_FLAGS + 1)]
    text = f"def update(param, grad, *, {': bool, '.join(flags)}: bool):\n    return (param,)\n"
    with pytest.raises(RuleError, match=r"it has 11 flags.*at most 10 flags are allowed"):
        rule_of(tmp_path, text)


STATEFUL = """
def update(param, grad, buffer, *, lr, heavy: bool):
    if heavy:
        buffer = buffer + grad
        grad = buffer
    return param - lr * grad, buffer
"""

OPTIONS = {
    "optional state": ({"optional": {"bufer": "heavy"}}, "'bufer' in optional is.*mean buffer?"),
    "optional flag": ({"optional": {"buffer": "haevy"}}, "'haevy' in the flags of.*mean heavy?"),
    "initial": ({"initial": {"buffre": "lr"}}, "'buffre' in initial is none.*mean buffer?"),
    "a counter named step": ({"counters": {"step": 0.0}, "scalars": dict}, "`step` is the count"),
    "a counter of the update": ({"counters": {"lr": 0.0}, "scalars": dict}, "counter lr is an arg"),
    "counters without a count": (
        {"counters": {"eta": 0.0}, "scalars": dict, "counts_steps": False},
        "counters and counts_steps=False; leave counts_steps out",
    ),
    "counters without scalars": ({"counters": {"eta": 0.0}}, "nothing says how they change"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_a_rule_names_must_exist(tmp_path, name):
    options, why = OPTIONS[name]
    with pytest.raises(RuleError, match=why):
        rule_of(tmp_path, STATEFUL, **options)


def test_a_state_under_a_flag_is_used_only_under_it(tmp_path):
    rule_of(tmp_path, STATEFUL, optional={"buffer": "heavy"})
    with pytest.raises(RuleError, match=r"with heavy=False, there is no buffer: .*optional"):
        rule_of(
            tmp_path,
            STATEFUL.replace("return param", "return param - buffer"),
            optional={"buffer": "heavy"},
        )


def test_the_vocabulary_takes_what_the_grammar_says():
    for word in vocabulary.WORDS:
        assert grammar._TAKES[word] == tuple(
            inspect.signature(getattr(vocabulary, word)).parameters
        )


@pytest.mark.parametrize("name", CATALOGUE)
def test_descends_own_rules_keep_to_the_grammar(name):
    rule = getattr(CATALOGUE[name], "rule", None)
    if isinstance(rule, Rule):
        assert rule.written is not None
        grammar.check(rule.written, rule.optional, rule.arguments.flags)


# What is admitted


def stepped(rule, options, dtype=torch.float64, backend="eager", values=None, state=None):
    """One step of a rule on one backend: the new parameter and the new states, by name."""
    param = torch.tensor(values[0], dtype=dtype, requires_grad=True)
    param.grad = torch.tensor(values[1], dtype=dtype)
    begun = {"step": torch.tensor(4.0)}
    for name in rule.states:
        begun[name] = torch.tensor(values[2], dtype=dtype)
    kept = {param: begun}
    stepper = Stepper("Test", rule, {})
    with forced_backend(backend):
        stepper.step([{"params": [param], **options}], kept, Clipping(value=state))
    assert [record["backend"] for record in stepper.explain()] == [backend]
    assert kept[param]["step"].item() == 5.0
    return {"param": param.detach(), **{name: kept[param][name] for name in rule.states}}


VALUES = ([1.0, -2.0, 0.5, 3.0], [0.5, 1.0, -4.0, 0.0], [2.0, -1.0, 0.25, 8.0])


def test_a_number_is_rounded_where_it_meets_an_element_and_nowhere_else(tmp_path):
    rule = rule_of(
        tmp_path,
        """
        def update(param, grad, kept, *, lr, beta, heavy: bool):
            rest = 1 - beta
            double = 2 * 3 - 4
            if heavy:
                grad = grad + kept
            kept = maximum(kept * beta, sqrt(lr))
            kept = where(grad > 0.5, lr, double)
            return -param - lr * rest * grad, where(lr > beta, kept, 1)
        """,
    )
    lines, new = grammar.straight(
        rule.written, {"heavy": False}, (), literal="f32({})", number="f64({})"
    )
    assert lines == [
        "v0_rest = (f64(1.0) - u_beta)",
        "v1_kept = maximum((u_kept * f32(u_beta)), f32(sqrt(u_lr)))",
        "v2_kept = where((u_grad > f32(0.5)), f32(u_lr), f32(2.0))",
    ]
    assert new == [
        "((-u_param) - (f32((u_lr * v0_rest)) * u_grad))",
        "where((u_lr > u_beta), v2_kept, f32(1.0))",
    ]
    lines, new = grammar.straight(rule.written, {"heavy": True}, (), "{}", "{}")
    assert lines[1] == "v1_grad = (u_grad + u_kept)"
    assert new[0] == "((-u_param) - ((u_lr * v0_rest) * v1_grad))"


def test_names_of_a_rule_never_meet_the_kernels_own(tmp_path, backend):
    states = "at, chunk, pointers, i, tl, new, load_param, u_param, v0_x, grad_factor"
    scalars = "start, length, row, mine, literal, number, offset, mask, BLOCK, one, grad_limit, β"
    text = (
        f"def update(param, grad, {states}, *, {scalars}, member: bool):\n"
        "    if member:\n"
        "        x = start + length + row + mine + literal + number + offset + mask + BLOCK\n"
        "    else:\n"
        "        x = 0\n"
        "    word = x + one + grad_limit + β\n"
        "    scalars = grad * word\n"
        "    x = at + chunk + pointers + i + tl + new + load_param + u_param + v0_x + grad_factor\n"
        f"    return param - scalars, {states.replace('at,', 'at + x,')}\n"
    )
    rule = rule_of(tmp_path, text)
    options = {name: 1.0 + k for k, name in enumerate(scalars.split(", "))} | {"member": True}
    found = stepped(rule, options, backend=backend, values=VALUES, state=3.0)
    start, gradient, kept = (torch.tensor(one, dtype=torch.float64) for one in VALUES)
    total = sum(options[name] for name in scalars.split(", "))
    torch.testing.assert_close(found["param"], start - gradient.clamp(-3, 3) * total)
    torch.testing.assert_close(found["at"], kept + 10 * kept)
    torch.testing.assert_close(found["tl"], kept)


def test_numbers_keep_their_precision_until_they_meet_an_element(tmp_path, backend):
    rule = rule_of(
        tmp_path,
        """
        def update(param, grad, *, beta):
            rest = 1 - beta
            third = 1 / 3 - 0.3333333
            return (param * 0 + grad * rest / sqrt(maximum(rest, 0.0)) + third,)
        """,
    )
    beta = 0.999999
    values = ([1.0] * 3, [1.0] * 3, [])
    found = stepped(rule, {"beta": beta}, torch.float32, backend, values)["param"]
    expected = (1 - beta) / math.sqrt(1 - beta) + (1 / 3 - 0.3333333)
    # Rounded to float32 before the subtraction, 1 - beta would be wrong by 5 %.
    assert found.tolist() == pytest.approx([expected] * 3, rel=3e-7)


def test_the_old_value_of_one_tensor_may_become_the_new_one_of_another(tmp_path, backend):
    rule = rule_of(
        tmp_path,
        """
        def update(param, grad, previous, last_grad):
            return param - grad, param, grad
        """,
    )
    found = stepped(rule, {}, backend=backend, values=VALUES)
    start, gradient, _ = (torch.tensor(one, dtype=torch.float64) for one in VALUES)
    assert torch.equal(found["param"], start - gradient)
    assert torch.equal(found["previous"], start)
    assert torch.equal(found["last_grad"], gradient)


def test_every_form_that_is_allowed(tmp_path, backend):
    module = loaded(
        tmp_path,
        textwrap.dedent(
            '''
            from __future__ import annotations

            from typing import TYPE_CHECKING

            import descend.rules
            from descend.rules import Rule, absolute, maximum, minimum, sign, where
            from descend.rules import sqrt as root

            if TYPE_CHECKING:
                from torch import Tensor

            Flag = bool


            class Holder:
                def update(
                    param: Tensor, grad: Tensor, kept: Tensor, *,
                    lr: float, first: bool, second: "bool", third: Flag,
                ) -> tuple[Tensor, Tensor]:
                    """A docstring."""
                    x: Tensor = +grad
                    if first and not second:
                        y = x * 2
                    elif second or third:
                        pass
                        y = -x
                    else:
                        y = x if first else root(absolute(x))
                    positive = x > (0 if third else -1)
                    lr = lr * 2
                    rate = where(lr >= 0.25, lr, 1.0)
                    kept = where(positive, kept, where(lr == 0, 5.0, 7.0))
                    return (
                        param - rate * (y),
                        where(lr < 0, kept, minimum(2.5, maximum(sign(kept) * kept, 1e-3))),
                    )


            rule = Rule(Holder.update)
            '''
        ),
        head="",
    )
    rule = module.rule
    expected = rule_arguments.Arguments(("kept",), ("lr",), ("first", "second", "third"))
    assert rule.arguments == expected
    for flags in itertools.product((True, False), repeat=3):
        options = {"lr": 0.25, **dict(zip(rule.arguments.flags, flags, strict=True))}
        wanted = stepped(rule, options, backend="eager", values=VALUES)
        found = stepped(rule, options, backend=backend, values=VALUES)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-15, atol=0)
    first, second, third = True, False, True
    found = stepped(
        rule,
        {"lr": 0.25, "first": first, "second": second, "third": third},
        backend=backend,
        values=VALUES,
    )
    assert found["param"].tolist() == [1.0 - 0.5, -2.0 - 1.0, 0.5 + 4.0, 3.0]
    assert found["kept"].tolist() == [2.0, 1.0, 2.5, 2.5]


# Generated rules: whatever the grammar admits means the same on every backend.
#
# A comparison and sign() jump, so they get only what is exact in float64: sums and products of few
# small dyadic numbers. Whatever else is inexact stays small, so that an absolute tolerance holds.

NUMBERS = ("0.5", "2", "1.5", "lr", "-0.25", "rate")


@st.composite
def expression(draw, names, depth, exact):
    """The text of an expression in these names; a number now and then."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from((*names, *names, *NUMBERS)))
    inner = expression(names, depth - 1, exact)
    exactly = expression(names[:EXACT] if not exact else names, min(depth - 1, 1), True)
    forms = ["{} + {}", "{} - {}", "{} * {}", "-{}", "{} / 2", "absolute({})", "sum"]
    forms += ["maximum({}, {})", "minimum({}, {})", "where", "sign"]
    if not exact:
        forms += ["{} / maximum(absolute({}), 0.5)", "sqrt(maximum(absolute({}), 0.5))", "flag"]
    form = draw(st.sampled_from(forms))
    if form == "where":
        compare = draw(st.sampled_from(("<", "<=", ">", ">=", "==", "!=")))
        # At least one side must not be a literal.
        left = f"{draw(st.sampled_from(names[:EXACT]))} + {draw(exactly)}"
        return f"where({left} {compare} {draw(exactly)}, {draw(inner)}, {draw(inner)})"
    if form == "sign":
        return f"sign({draw(exactly)})"
    if form == "flag":
        return f"({draw(inner)} if flag else {draw(inner)})"
    if form == "sum":
        return f"({draw(inner)} + {draw(inner)})"
    return "(" + form.format(*(draw(inner) for _ in range(form.count("{}")))) + ")"


EXACT = 3
"""How many of the names, from the first, hold values that are exact."""


@st.composite
def program(draw):
    """The text of an admissible update rule."""
    names = ["param", "grad", "state"]
    lines = []
    for k in range(draw(st.integers(0, 3))):
        value = draw(expression(tuple(names), 2, False))
        kind = draw(st.sampled_from(("plain", "flag", "both", "condition")))
        if kind == "plain":
            lines.append(f"x{k} = {value}")
        elif kind == "condition":
            lines.append(f"c{k} = {draw(st.sampled_from(names[:EXACT]))} > 0")
            lines.append(f"x{k} = where(c{k}, {value}, 0.125)")
        else:
            other = draw(expression(tuple(names), 2, False))
            test = "flag" if kind == "flag" else "not flag or other"
            lines += [f"if {test}:", f"    x{k} = {value}", "else:", f"    x{k} = {other}"]
        names.append(f"x{k}")
    results = [draw(expression(tuple(names), 2, False)) for _ in range(2)]
    # A new value must differ from element to element: this one does, whatever the expression is.
    values = ", ".join(f"grad * 0.5 + {result}" for result in results)
    body = "\n".join(f"    {line}" for line in (*lines, f"return {values}"))
    return f"def update(param, grad, state, *, lr, rate, flag: bool, other: bool):\n{body}\n"


GENERATED = ([1.0, -2.0, 0.5, 0.0, -1.5], [0.5, 1.0, -2.0, 0.0, 3.0], [2.0, -1.0, 0.25, 4.0, 0.0])


def agrees(folder, text, dtype, tolerance, backends):
    """Raise unless a rule does the same on every backend, under every choice of flags."""
    rule = rule_of(folder, text)
    for flag, other in itertools.product((True, False), repeat=2):
        options = {"lr": 0.25, "rate": 1.5, "flag": flag, "other": other}
        wanted = stepped(rule, options, dtype, "eager", GENERATED)
        for backend in backends:
            found = stepped(rule, options, dtype, backend, GENERATED)
            for name, value in wanted.items():
                torch.testing.assert_close(
                    found[name],
                    value,
                    msg=lambda m, b=backend, n=name: f"{b}, {n}: {m}\n{text}",
                    **tolerance,
                )


@given(text=program())
def test_generated_rules_mean_the_same_on_every_backend(tmp_path_factory, text):
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("generated")
    # Values stay below 1e4, and float64 keeps them to 1e-12.
    agrees(folder, text, torch.float64, {"rtol": 1e-11, "atol": 1e-9}, ("cpu", "gpu"))


@given(text=program())
@settings(max_examples=8)
def test_generated_rules_compile_in_every_precision(tmp_path_factory, text):
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("generated")
    agrees(folder, text, torch.float32, {"rtol": 1e-4, "atol": 2e-2}, ("cpu", "gpu"))


@given(text=program())
@settings(max_examples=300)
def test_generated_rules_are_admitted(tmp_path_factory, text):
    rule = rule_of(tmp_path_factory.mktemp("generated"), text)
    assert rule.readable


COMPILE = """
import sys, torch, triton
sys.path.insert(0, sys.argv[1])
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from descend.engine import gpu
from descend.engine.rule import Rule, Variant
import generated

for update in generated.RULES:
    rule = Rule(update)
    for on in (False, True):
        flags = tuple((flag, on) for flag in rule.arguments.flags)
        variant = Variant(rule, flags, (torch.float32,) * (2 + len(rule.states)))
        tables = {"chunks": "*i64", "pointers": "*i64", "rows": "*i64", "scalars": "*fp64"}
        source = ASTSource(
            fn=gpu._kernel(variant),
            signature={**tables, "BLOCK": "constexpr"},
            constexprs={"BLOCK": gpu.BLOCK},
        )
        done = triton.compile(source, target=GPUTarget("cuda", 80, 32))
        assert done.asm["cubin"]
print(len(generated.RULES))
"""


OF_NUMBERS = """
def update(param, grad, state, *, lr, rate, flag: bool, other: bool):
    large = lr > rate
    x = where(large, lr, 2.0)
    y = where(lr >= 0.5, param, rate)
    z = sign(-lr) * sqrt(maximum(rate, 0.1)) - absolute(minimum(0.25, lr))
    return param * x + z, where(large, y, grad) + where(grad < z, 0.1, where(large, 3, lr))
"""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers_among_themselves_mean_the_same_on_every_backend(tmp_path, dtype):
    pytest.importorskip("triton")
    tolerance = {"rtol": 1e-15 if dtype is torch.float64 else 1e-6, "atol": 0}
    agrees(tmp_path, OF_NUMBERS, dtype, tolerance, ("cpu", "gpu"))


def test_generated_rules_compile_for_a_real_gpu(tmp_path):
    """Triton's interpreter admits more than its compiler does."""
    pytest.importorskip("triton")
    texts = []

    @given(text=program())
    @settings(max_examples=12, database=None)
    def collect(text):
        texts.append(text)

    collect()
    texts.append(OF_NUMBERS)
    module = HEAD + "RULES = []\n" + "".join(f"{t}\nRULES.append(update)\n\n" for t in texts)
    (tmp_path / "generated.py").write_text(module)
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    environment = {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "TRITON_INTERPRET": "0"}
    done = python(script, tmp_path, environment=environment)
    assert int(done.stdout) == len(texts) >= 10


# What goes wrong all the same


SIMPLE = "def update(param, grad, *, lr):\n    return (param - lr * grad,)\n"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_what_a_compiler_refuses_names_the_rule(tmp_path, monkeypatch, name):
    rule = rule_of(tmp_path, SIMPLE)
    if name == "cpu":
        monkeypatch.setattr(cpu, "_source", lambda variant: "def kernel(at):\n    at.missing()\n")
        monkeypatch.setenv("DESCEND_CACHE", str(tmp_path))
    else:
        pytest.importorskip("triton")
        from triton.compiler.errors import CompilationError

        def refuse(*args, **options):
            raise CompilationError("x = ", None, "no such thing")

        class Refusing:
            def __getitem__(self, grid):
                return refuse

        monkeypatch.setattr(gpu, "_kernel", lambda variant: Refusing())
    place = rule.update.__code__.co_filename
    with pytest.raises(RuleError, match=r"update\(\) could not be compiled.*report this") as caught:
        stepped(rule, {"lr": 0.5}, backend=name, values=VALUES)
    assert str(caught.value).startswith(f"{place}:{rule.update.__code__.co_firstlineno}: ")
    assert caught.value.__cause__ is not None


SHOWN = """
import warnings
import torch
from descend.rules import Optimizer, Rule, sqrt

text = "def update(param, grad, *, lr):\\n    return (param - lr * grad ** 2,)\\n"
exec(text, globals())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    rule = Rule(update)
    for one in caught:
        print(one.category.__name__, one.message)

class Mine(Optimizer):
    rule = rule
    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr})

weight = torch.nn.Parameter(torch.ones(2))
mine = Mine([weight])
for _ in range(2):
    weight.grad = torch.full((2,), 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine.step()
print(weight.tolist(), mine.explain()[0]["backend"])
"""


def test_a_rule_without_a_source_steps_eagerly_and_says_so_once(tmp_path):
    done = python("-", input=SHOWN)
    warning, result = done.stdout.splitlines()
    assert warning == (
        "RuntimeWarning descend: the source of <string>:1: update() cannot be read, so it takes "
        "the slower eager path; put it into a file and import it from there"
    )
    assert result == "[-3.0, -3.0] eager"


def test_a_rule_without_a_source_must_return_all_values(recwarn):
    scope = {}
    exec("def update(param, grad, kept):\n    return param - grad", scope)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        rule = Rule(scope["update"])
    with pytest.raises(RuleError, match=r"must return a tuple of the new param, kept, and ret"):
        stepped(rule, {}, values=VALUES)
