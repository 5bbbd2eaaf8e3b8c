"""L-BFGS when something goes wrong: closures that raise, Ctrl-C, what is not finite."""

import math
import signal
import sys

import pytest
import torch

from descend import LBFGS
from optimizers.minimizing import SEARCHES, START, Run, assert_state_is, rosenbrock


class _FailedError(Exception):
    """Of the user's closure."""


def _run(search, iterations):
    return Run(
        LBFGS,
        rosenbrock,
        lr=0.5,
        max_iter=iterations,
        max_eval=1000,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn=search,
    )


def _accepted(search, iterations):
    """Parameter and memory after every iteration of one step, from runs that nothing disturbs."""
    found = [(START, {})]
    for count in range(1, iterations + 1):
        run = _run(search, count).steps(1)
        found.append((run.param.detach().clone(), dict(run.state)))
    return found


def _iterations_of(run, accepted):
    """How many iterations parameter and memory are of; raises unless both are of the same."""
    state = dict(run.optimizer.state.get(run.param, {}))
    param, known = accepted[state.get("n_iter", 0)]
    assert torch.equal(run.param.detach(), param)
    if not known:
        assert "d" not in state
        return 0
    assert_state_is(state, known)
    return state["n_iter"]


@SEARCHES
@pytest.mark.parametrize("error", [_FailedError, KeyboardInterrupt])
def test_a_closure_that_raises_leaves_the_last_accepted_point(search, error):
    iterations = 5
    accepted = _accepted(search, iterations)
    evaluations = len(_run(search, iterations).steps(1).losses)
    reached = []
    for failing in range(evaluations):
        run = _run(search, iterations)

        def closure(run=run, failing=failing):
            loss = run.closure()
            if len(run.losses) > failing:
                raise error
            return loss

        with pytest.raises(error):
            run.optimizer.step(closure)
        reached.append(_iterations_of(run, accepted))
        # And it goes on from there.
        before = rosenbrock(run.param).item()
        run.optimizer.param_groups[0].update(max_iter=40, line_search_fn="strong_wolfe")
        run.steps(2)
        assert rosenbrock(run.param).item() < 1e-3 * before
    assert reached == sorted(reached)
    assert set(reached) == set(range(iterations))


@SEARCHES
def test_ctrl_c_at_any_line(search):
    """A signal at every line of the optimizer that runs, one run for each."""
    iterations = 3
    accepted = _accepted(search, iterations)
    files = ("lbfgs.py", "flat.py", "line_search.py", "curvature.py", "interrupts.py")

    def press_at(chosen):
        run, seen, interrupted = _run(search, iterations), [0], False

        def line(frame, event, argument):
            if event == "line":
                seen[0] += 1
                if seen[0] == chosen:
                    signal.raise_signal(signal.SIGINT)
            return line

        def call(frame, event, argument):
            return line if frame.f_code.co_filename.endswith(files) else None

        before = sys.gettrace()
        sys.settrace(call)
        try:
            run.steps(1)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert torch.is_grad_enabled()
        return run, seen[0], interrupted

    run, lines, interrupted = press_at(0)
    assert not interrupted
    assert _iterations_of(run, accepted) == iterations
    reached = set()
    for chosen in range(1, lines + 1):
        run, _, interrupted = press_at(chosen)
        assert interrupted
        reached.add(_iterations_of(run, accepted))
    assert reached == set(range(iterations + 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient", "both"])
def test_a_search_comes_back_from_where_nothing_is_finite(bad, what):
    """The first trial is far away."""

    def function(x):
        far = x.detach().abs().max() > 1.5
        x = x * 1.0
        if far and what != "loss":
            x.register_hook(lambda grad: grad * bad)
        return rosenbrock(x) + (bad if far and what != "gradient" else 0)

    run = Run(LBFGS, function, lr=1e4, line_search_fn="strong_wolfe").steps(1)
    assert run.param.isfinite().all()
    assert rosenbrock(run.param) < rosenbrock(START)
    run.optimizer.param_groups[0]["lr"] = 1.0
    run.steps(15)
    torch.testing.assert_close(run.param.detach(), torch.ones(10).double(), rtol=1e-5, atol=1e-5)


def test_torch_ends_where_nothing_is_finite():
    """Which is why the test above asks for more than parity."""

    def function(x):
        return rosenbrock(x) if x.detach().abs().max() <= 1.5 else x.sum() * math.nan

    run = Run(torch.optim.LBFGS, function, lr=1e4, line_search_fn="strong_wolfe").steps(1)
    assert run.param.isnan().any() or run.param.abs().max() > 1e4


def test_a_search_among_nothing_but_nan_ends_and_stays():
    def function(x):
        return rosenbrock(x) if torch.equal(x.detach(), START) else x.sum() * math.nan

    run = Run(LBFGS, function, max_eval=30, line_search_fn="strong_wolfe").steps(1)
    assert torch.equal(run.param.detach(), START)
    assert len(run.losses) <= 31
    assert all(vector.isfinite().all() for vector in (run.state["d"], run.state["prev_flat_grad"]))


@SEARCHES
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_left_out_and_counted(search, bad):
    run = Run(LBFGS, rosenbrock, lr=0.1, line_search_fn=search).steps(2)
    before, state = run.param.detach().clone(), dict(run.state)
    run.function = lambda x: rosenbrock(x) * bad
    returned = run.optimizer.step(run.closure)
    assert not returned.isfinite()
    assert run.optimizer.skipped_steps == 1
    assert torch.equal(run.param.detach(), before)
    assert run.state["func_evals"] == state["func_evals"] + 1
    assert all(run.state[key] is value for key, value in state.items() if key != "func_evals")
    run.function = rosenbrock
    run.steps(1)
    assert run.optimizer.skipped_steps == 1
    assert not torch.equal(run.param.detach(), before)


def test_without_a_search_a_bad_point_ends_the_step():
    """The point is accepted, so it stays; memory and parameters are finite."""

    def function(x):
        return x.sum() * math.nan if x.detach().abs().max() > 2 else -rosenbrock(x)

    run = Run(LBFGS, function, lr=100.0).steps(3)
    assert len(run.losses) == 4
    assert run.param.isfinite().all()
    assert run.state["n_iter"] == 1
    assert run.state["prev_flat_grad"].isfinite().all()
    assert run.optimizer.skipped_steps == 2
