"""L-BFGS: a direction from how the gradient changed over the last steps."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.base.base_class import Loaded
from descend.base.load_report import LoadReport
from descend.base.matching import paired, slots
from descend.base.parameters import described
from descend.base.shares import refuse_shares
from descend.engine import hyperparameters as hp
from descend.engine.eager import EagerBatch
from descend.engine.interrupts import deferred
from descend.errors import ClosureError, HyperparameterError
from descend.optimizers.lbfgs.curvature import direction, largest, largest_moving, learned
from descend.optimizers.lbfgs.flat import Flat, Shares
from descend.optimizers.lbfgs.line_search import Trial, strong_wolfe
from descend.optimizers.lbfgs.torch_state import MEMORY, arranged, check, follow, loaded_memory
from descend.rules import Choice, Optimizer, Options, Params, Range, State


class LBFGS(Optimizer):
    r"""L-BFGS: a direction from how the gradient changed over the last steps.

    .. math::
        d_k &= -H_k \nabla f(\theta_k), \qquad \theta_{k+1} = \theta_k + t_k d_k \\
        H_{k+1} &= V_k^\top H_k V_k + \rho_k s_k s_k^\top,
        \quad V_k = I - \rho_k y_k s_k^\top, \quad \rho_k = 1 / (y_k^\top s_k) \\
        s_k &= t_k d_k, \quad y_k = \nabla f(\theta_{k+1}) - \nabla f(\theta_k)

    where only the last `history_size` pairs :math:`(s, y)` count, before which :math:`H` is
    :math:`y^\top s / (y^\top y)` of the last pair times the identity. The length :math:`t` is lr
    (in the very first iteration at most lr over the sum of the gradient's magnitudes), or what a
    line search finds that starts there.

    A step needs a closure, which clears the gradients, computes the loss, calls `backward` and
    returns the loss: one step is up to `max_iter` iterations, each of which asks for it again.

    Several groups: each keeps its own lr. With :math:`r` the group's lr over the largest lr, the
    method works on :math:`z` where :math:`\theta = \sqrt r z`; so the initial matrix is scaled by
    :math:`r`, the line search goes downhill, and a group with lr 0 stays where it is. All other
    options must be the same in all groups. Tolerances are in units of the parameters.

    All or nothing: a closure that raises, or Ctrl-C, leaves the parameters at the last point that
    an iteration accepted, and the state of that point. A trial of the line search whose loss or
    gradient is not finite counts as infinitely high. Where the point that a step starts from is
    not finite, there is no direction: the step is left out, and counted in `skipped_steps`.

    {arguments}

    Raises:
        HyperparameterError: a value outside its range, or one that differs between groups.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> optimizer = descend.LBFGS([weight], line_search_fn="strong_wolfe")
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (weight * weight).sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item()
        25.0
        >>> closure().item() < 1e-10
        True

    Source:
        J. Nocedal and S. Wright, "Numerical optimization", 2nd edition, 2006, algorithms 7.4 and
        7.5; when to stop, and how long the first step is, are those of M. Schmidt's minFunc,
        https://www.cs.ubc.ca/~schmidtm/Software/minFunc.html, as torch has them.
    """

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1,
        max_iter: Annotated[int, Range(1, whole=True), "most iterations of one call of step"] = 20,
        max_eval: Annotated[
            int | None,
            Range(1, whole=True, optional=True),
            "most calls of the closure in one call of step, checked after each iteration; "
            "None: 5/4 of max_iter",
        ] = None,
        tolerance_grad: Annotated[
            float, Range(infinite=True), "a step ends when no element of the gradient is larger"
        ] = 1e-7,
        tolerance_change: Annotated[
            float,
            Range(infinite=True),
            "a step ends when an iteration changes the loss, or every parameter, by no more",
        ] = 1e-9,
        history_size: Annotated[
            int,
            Range(1, whole=True),
            "how many iterations to remember, at two vectors of all parameters each",
        ] = 100,
        line_search_fn: Annotated[
            str | None,
            Choice((None, "strong_wolfe")),
            "how to find the step length: strong_wolfe searches, None takes lr",
        ] = None,
        *,
        maximize: hp.Maximize = False,
    ) -> None:
        if max_eval is None and isinstance(max_iter, int):
            max_eval = max_iter * 5 // 4
        super().__init__(params, locals())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; in the middle of training the memory starts anew.

        What was remembered of the gradient says nothing about the new parameters.

        Args:
            param_group: see `Optimizer.add_param_group`; of the options only the lr may differ
                from the other groups'.

        Raises:
            DescendError: see there.
        """
        super().add_param_group(param_group)
        params = self._all()
        state = self.state.get(params[0]) if params else None
        if state:
            for name in MEMORY:
                state.pop(name, None)
            state["n_iter"] = 0

    def init_state(self) -> None:
        """Make the counts; what is remembered of the gradients comes with the steps."""
        params = self._all()
        if params and not self.state.get(params[0]):
            self.state[params[0]] = {"func_evals": 0, "n_iter": 0}

    def _refuse_unfit(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        super()._refuse_unfit(tensors, group)
        refuse_shares(type(self).__name__, tensors)
        self._check_common([*self.param_groups, {**self.defaults, **group}])

    def _check_common(self, groups: list[dict[str, Any]]) -> None:
        for index, group in enumerate(groups):
            mine, first = self.options_of(group), self.options_of(groups[0])
            for name in self.hyperparameters:
                if name != "lr" and mine[name] != first[name]:
                    raise HyperparameterError(
                        f"{type(self).__name__}: {name}={mine[name]!r} in group {index} and "
                        f"{name}={first[name]!r} in group 0: {name} belongs to the step as a "
                        "whole; give it to the constructor, or the same to all groups"
                    )

    def _plain_step(self, closure: Callable[[], Any] | None = None) -> Any:
        owner = type(self).__name__
        if not callable(closure):
            raise ClosureError(
                f"{owner}: step got {described(closure)}, but it needs a closure, because it asks "
                "for the loss several times: optimizer.step(closure), where closure() clears the "
                "gradients, computes the loss, calls backward() and returns the loss"
            )
        for index, group in enumerate(self.param_groups):
            hp.validate(owner, self._declared_in_groups(), group, f"group {index}")
        self._check_common(self.param_groups)
        if not self._all():
            return _evaluated(closure)
        flat, options = self._flat(), self.options_of(self.param_groups[0])
        state = self.state.get(flat.params[0], {})
        check(owner, state, flat)
        objective = _Objective(owner, closure, flat, options, state.get("func_evals", 0))
        recording = torch.is_grad_enabled()
        try:
            with torch.no_grad():
                return self._minimize(objective)
        except BaseException:
            # Ctrl-C at the very end of the block comes before the block has switched back.
            torch.set_grad_enabled(recording)
            raise

    def _minimize(self, objective: "_Objective") -> Any:
        """One call of step: iterations until one of the limits is reached; the first loss."""
        flat, options = objective.flat, objective.options
        tolerance, small = options["tolerance_grad"], options["tolerance_change"]
        rate, shares = flat.shares(self.param_groups)
        answer, loss, grad = objective()
        state = self.state[flat.params[0]]
        state.update(func_evals=objective.counted, n_iter=state.get("n_iter", 0))
        follow(state, flat)
        if largest_moving(grad, shares) <= tolerance:
            return answer
        if not _finite(loss, grad):
            self.skipped_steps += 1
            return answer
        for iteration in range(1, options["max_iter"] + 1):
            memory = learned(state, grad, shares, options["history_size"])
            along = direction(grad, memory, shares)
            length = rate if state["n_iter"] else _first(rate, grad, shares)
            start = Trial(0.0, loss, float(grad.dot(along)), grad)
            after = {
                "n_iter": state["n_iter"] + 1,
                "d": along,
                "t": length,
                **memory,
                "prev_flat_grad": grad,
                "prev_loss": loss,
            }
            if not start.slope <= -small:
                # The length is 0 and not lr, as in torch, whose next step then remembers a
                # movement that never was.
                state.update(after, t=0.0)
                break
            if options["line_search_fn"] and length:
                end = _searched(objective, start, along, length, state, after)
                length, loss, grad = end.length, end.loss, end.grad
            else:
                with deferred():
                    flat.move(length, along)
                    state.update(after, func_evals=objective.counted)
                if iteration < options["max_iter"]:
                    _, loss, grad = objective()
            if (
                objective.evaluations >= objective.limit
                or largest_moving(grad, shares) <= tolerance
                or length * largest(along) <= small
                or abs(loss - start.loss) < small
                or not _finite(loss, grad)
            ):
                break
        state["func_evals"] = objective.counted
        return answer

    def _flat(self) -> Flat:
        return Flat(type(self).__name__, self.param_groups)

    def _load_entry(self, param: Tensor, options: Options, entry: object, place: str) -> Any:
        return loaded_memory(type(self).__name__, place, entry, self._flat())

    def _loaded(self, state_dict: Any, strict: bool) -> Loaded:
        """The loaded memory belongs to the first parameter, with all of them in this order."""
        options, state, report = super()._loaded(state_dict, strict)
        params = self._all()
        found = [param for param in params if state.get(param) is not self.state.get(param)]
        memories = [state.pop(param, None) for param in found]
        pairs = paired(slots(self.param_groups), slots(state_dict["param_groups"]))
        both = [(mine, other) for mine, other in pairs if mine and other]
        if len(both) < len(pairs):  # a memory of other parameters says nothing about these
            state.update({param: self.state[param] for param in found if param in self.state})
            why = "its state is that of all parameters together, and some do not match"
            missed = {**report.missed, **dict.fromkeys(report.matched, why)}
            unused = {**{other.label: why for _, other in both}, **report.unused}
            return options, state, LoadReport((), missed, unused, report.groups)
        both.sort(key=lambda pair: pair[1].position)
        places = [mine.position for mine, _ in both]
        lengths = self._flat().sizes
        for memory in filter(None, memories):
            state[params[0]] = arranged(memory, [lengths[place] for place in places], places)
        return options, state, report

    def explain(self) -> list[dict[str, Any]]:
        """How the last step ran: with torch operations, on all parameters together.

        Returns:
            One record, `{"backend", "tensors", "elements", "groups"}`; none before the first step.
        """
        params = self._all()
        if not any("func_evals" in self.state.get(param, {}) for param in params[:1]):
            return []
        return [
            {
                "backend": EagerBatch.backend,
                "tensors": len(params),
                "elements": sum(param.numel() for param in params),
                "groups": len(self.param_groups),
            }
        ]


class _Objective:
    """The function that a step minimizes: calls the closure, and counts the calls."""

    def __init__(
        self, owner: str, closure: Callable[[], Any], flat: Flat, options: Options, before: int
    ) -> None:
        self.owner = owner
        self.flat = flat
        self.options = options
        self.evaluations = 0
        limit = options["max_eval"]
        self.limit = options["max_iter"] * 5 // 4 if limit is None else limit
        self._closure, self._before = closure, before

    @property
    def counted(self) -> int:
        """The calls of this step and of all before."""
        return self._before + self.evaluations

    def __call__(self) -> tuple[Any, float, Tensor]:
        """The closure's answer, the loss and the gradient; the last two negated to climb."""
        answer = _evaluated(self._closure)
        value = answer.detach() if isinstance(answer, Tensor) else answer
        try:
            loss = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ClosureError(
                f"{self.owner}: the closure returned {described(answer)}, but it must return the "
                "loss, one number"
            ) from None
        grad = self.flat.gradient()
        self.evaluations += 1
        return (answer, -loss, grad.neg_()) if self.options["maximize"] else (answer, loss, grad)


def _evaluated(closure: Callable[[], Any]) -> Any:
    with torch.enable_grad():
        return closure()


def _searched(
    objective: _Objective,
    start: Trial,
    along: Tensor,
    length: float,
    state: State,
    after: dict[str, Any],
) -> Trial:
    """Search for a step length, take it and note it in the state; or change nothing."""
    flat = objective.flat
    points = flat.points()

    def evaluate(length: float) -> Trial:
        flat.place(points)
        flat.move(length, along)
        _, loss, grad = objective()
        return Trial(length, loss, float(grad.dot(along)), grad)

    taken = False
    try:
        end = strong_wolfe(
            evaluate,
            start,
            length,
            reach=largest(along),
            shortest=objective.options["tolerance_change"],
            rounds=objective.limit - objective.evaluations,
        )
        with deferred():
            flat.place(points)
            flat.move(end.length, along)
            state.update(after, t=end.length, func_evals=objective.counted)
            taken = True
    except BaseException:
        if not taken:
            # Ctrl-C may have come while autograd was switched.
            with deferred(), torch.no_grad():
                flat.place(points)
        raise
    return end


def _finite(loss: float, grad: Tensor) -> bool:
    return math.isfinite(loss) and math.isfinite(largest(grad))


def _first(rate: float, grad: Tensor, shares: Shares) -> float:
    """The length of the very first step: it moves the parameters by at most lr in all."""
    total = sum(math.sqrt(share) * grad[span].abs().sum() for span, share in shares)
    # In torch's order and dtype, so that both begin with the very same step.
    return min(rate, float(1 / total * rate))
