"""The base of every optimizer: parameter groups, state, gradients, the step, saving and loading."""

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from inspect import cleandoc
from itertools import chain
from textwrap import fill
from typing import Any, ClassVar, TypeAlias, TypeVar, cast, overload

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from descend.engine.hyperparameters import Hyperparameter, Options, declared, validate
from descend.engine.plan import Clipping, Stepper
from descend.engine.rule import AnyRule, State
from descend.errors import HookError, HyperparameterError, ParameterError
from descend.optimizers.loading import described, loaded

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
"""What an optimizer optimizes: tensors, named tensors, or groups as dicts with "params"."""

Result = TypeVar("Result")

NO_CLIPPING = Clipping()

_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class Optimizer(torch.optim.Optimizer):
    """The base class of descend's optimizers; an instance of torch's, with none of its mathematics.

    A subclass sets `rule` and declares its hyperparameters in its constructor's signature.

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        defaults: the options of a group that does not set its own.
        clipping: what happens to the gradients on their way into the update.

    Attributes:
        param_groups: a list of dicts: "params" and the options. Change one at any time;
            the next step uses it.
        state: `{parameter: {name: tensor}}`.
        defaults: the options of a group that does not set its own.
        skipped_steps: how many steps were left out because of non-finite gradients.

    Raises:
        ParameterError: no parameters, one that is not a leaf tensor, or one named twice.
        HyperparameterError: a value outside its range, or a misspelt name.

    Example:
        >>> import torch, descend
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = descend.SGD([weight], lr=0.1)
        >>> weight.sum().backward()
        >>> optimizer.step()

    Source:
        The interface is torch.optim.Optimizer's: https://docs.pytorch.org/docs/stable/optim.html
    """

    rule: ClassVar[AnyRule]
    hyperparameters: ClassVar[dict[str, Hyperparameter]]

    # GradScaler reads this, and then sets `grad_scale` and `found_inf` for the time of a step.
    _step_supports_amp_scaling = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the hyperparameters off the constructor, and document them."""
        super().__init_subclass__(**kwargs)
        inherited = getattr(cls, "hyperparameters", {})
        cls.hyperparameters = {**inherited, **declared(cls.__init__)}
        if cls.__doc__ and "{hyperparameters}" in cls.__doc__:
            cls.__doc__ = cleandoc(cls.__doc__).replace("{hyperparameters}", _documentation(cls))

    def __init__(
        self, params: Params, defaults: dict[str, Any], clipping: Clipping = NO_CLIPPING
    ) -> None:
        torch._C._log_api_usage_once("python.optimizer")
        clip = {
            "clip_norm": clipping.norm,
            "clip_value": clipping.value,
            "skip_nonfinite": clipping.skip_nonfinite,
        }
        validate(type(self).__name__, self.hyperparameters, {**defaults, **clip}, "")
        self.defaults = defaults
        self.clipping = clipping
        self.skipped_steps = 0
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        for name in _HOOKS:
            setattr(self, name, OrderedDict())
        self._warned_capturable_if_run_uncaptured = True
        self._prepare()
        for group in _as_groups(type(self).__name__, params):
            self.add_param_group(group)

    def _prepare(self) -> None:
        """Make what is derived and never saved."""
        name = type(self).__name__
        in_groups = {k: v for k, v in self.hyperparameters.items() if k in self.defaults}
        several = type(self).rule_of is not Optimizer.rule_of
        self._stepper = Stepper(name, self.rule_of if several else self.rule, in_groups)
        self._step_profile_name = f"Optimizer.step#{name}.step"
        # For a subclass with a `step` of its own, which torch wraps with the hooks.
        self._patch_step_function()

    def rule_of(self, param: Tensor, options: Options) -> AnyRule:
        """The rule that updates a parameter: `rule`, unless a subclass has several.

        Args:
            param: the parameter.
            options: its group's.
        """
        return self.rule

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, now or in the middle of training.

        Args:
            param_group: "params" (tensors, `(name, tensor)` pairs, or one tensor) and any options
                that differ from the defaults. Other keys are kept as they are.

        Raises:
            ParameterError: a parameter that is not a leaf tensor, or that is there already.
            HyperparameterError: a value outside its range, or a misspelt name.
        """
        owner, index = type(self).__name__, len(self.param_groups)
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise ParameterError(
                f"{owner}: a parameter group must be a dict with the key 'params', "
                f"got {described(param_group)}"
            )
        options = {key: value for key, value in param_group.items() if key != "params"}
        self._validate(options, f"group {index}")
        names, tensors = _named(owner, index, param_group["params"])
        self._refuse_unfit(owner, index, tensors, param_group)
        if self.param_groups and bool(names) != ("param_names" in self.param_groups[0]):
            raise ParameterError(
                f"{owner}: group {index} has {'named' if names else 'unnamed'} parameters and the "
                f"groups before it have {'unnamed' if names else 'named'} ones; "
                "name all of them (named_parameters()) or none"
            )
        group = {**param_group, "params": tensors}
        if names:
            group["param_names"] = names
        for key, value in self.defaults.items():
            # A tensor is filled in place by a load and by some schedules: each group has its own.
            group.setdefault(key, value.clone() if self._shared(value) else value)
        self.param_groups.append(group)

    def _shared(self, value: Any) -> bool:
        """Whether another group holds this very tensor."""
        return isinstance(value, Tensor) and any(
            value is other for group in self.param_groups for other in group.values()
        )

    def _validate(self, options: dict[str, Any], where: str) -> None:
        """Refuse options that are out of range, or that do not go together."""
        owner = type(self).__name__
        complete = {**self.defaults, **options}
        validate(owner, self.hyperparameters, options, where)
        if complete.get("fused") and (complete.get("foreach") or complete.get("differentiable")):
            other = "foreach" if complete.get("foreach") else "differentiable"
            raise HyperparameterError(
                f"{owner}: fused=True and {other}=True in {where} do not go together; "
                "leave fused out: every step that can be is fused anyway"
            )
        self.rule.flags(complete)

    def _refuse_unfit(
        self, owner: str, index: int, tensors: list[Tensor], group: dict[str, Any]
    ) -> None:
        differentiable = group.get("differentiable", self.defaults.get("differentiable"))
        known = {
            id(param): f"group {g}, parameter {i}"
            for g, other in enumerate(self.param_groups)
            for i, param in enumerate(other["params"])
        }
        for i, param in enumerate(tensors):
            place = f"group {index}, parameter {i}"
            if not isinstance(param, Tensor):
                raise ParameterError(f"{owner}: {place} must be a tensor, got {described(param)}")
            if not differentiable and not (param.is_leaf or param.retains_grad):
                raise ParameterError(
                    f"{owner}: {place} is not a leaf tensor: it was computed from others, so no "
                    "gradient reaches it; pass the tensor it was computed from, or "
                    "tensor.detach().requires_grad_()"
                )
            if id(param) in known:
                raise ParameterError(
                    f"{owner}: {place} is {known[id(param)]} again; "
                    "a tensor belongs to one group, once"
                )
            known[id(param)] = place

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients.

        Args:
            set_to_none: drop them (True, saves memory), or fill them with zeros in place (False).
        """
        zeroed = []
        for group in self.param_groups:
            for param in group["params"]:
                grad = param.grad
                if grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                else:
                    if grad.grad_fn is not None:
                        grad.detach_()
                    else:
                        grad.requires_grad_(False)
                    zeroed.append(grad)
        for grad in zeroed:
            grad.zero_()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Result]) -> Result: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: recomputes the loss and its gradients, and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            DescendError: a gradient, a state or an option does not fit; nothing has changed then.
        """
        if _profiler_enabled():
            with torch.autograd.profiler.record_function(self._step_profile_name):
                loss = self._hooked_step(closure)
                self._optimizer_step_code()
                return loss
        if (
            _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
        ):
            return self._hooked_step(closure)
        return self._plain_step(closure)

    # Read by torch.optim: this step runs its own hooks, and must not be wrapped (microseconds).
    step.hooked = True  # type: ignore[attr-defined]

    def _hooked_step(self, closure: Callable[[], Any] | None) -> Any:
        args: tuple[Any, ...] = (self,) if closure is None else (self, closure)
        kwargs: dict[str, Any] = {}
        for hook in chain(
            _global_optimizer_pre_hooks.values(),
            list(self._optimizer_step_pre_hooks.values()),
        ):
            answer = hook(self, args, kwargs)
            if answer is not None:
                if not isinstance(answer, tuple) or len(answer) != 2:  # noqa: PLR2004 - a pair
                    raise HookError(
                        f"a step pre-hook must return None or (args, kwargs), got {answer!r}"
                    )
                args, kwargs = answer
        loss = self._plain_step(*args[1:], **kwargs)
        for post in chain(
            list(self._optimizer_step_post_hooks.values()),
            _global_optimizer_post_hooks.values(),
        ):
            post(self, args, kwargs)
        return loss

    def _plain_step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if (found is not None and float(found)) or not self._stepper.step(
            self.param_groups, self.state, self.clipping, None if scale is None else float(scale)
        ):
            self.skipped_steps += 1
        return loss

    def explain(self) -> list[dict[str, Any]]:
        """How the last step ran: which backend took which parameters, one entry per kernel call.

        Returns:
            `{"backend", "tensors", "elements", "groups"}` for each call; the eager backend, which
            goes tensor by tensor, counts as one. Empty before the first step.
        """
        return self._stepper.explain()

    def state_dict(self) -> dict[str, Any]:
        """The state as plain containers, as torch.optim has it.

        Returns:
            `{"state": {index: {name: tensor}}, "param_groups": [{..., "params": [index]}]}`;
            indices count the parameters over all groups. The state's tensors are the live ones;
            tensors among the options are copied.
        """
        for before in list(self._optimizer_state_dict_pre_hooks.values()):
            before(self)
        index = {id(param): i for i, param in enumerate(self._all())}
        groups, start = [], 0
        for group in self.param_groups:
            packed = {key: _detached(value) for key, value in group.items() if key != "params"}
            packed["params"] = list(range(start, start + len(group["params"])))
            start += len(group["params"])
            groups.append(packed)
        result: dict[str, Any] = {
            "state": {
                (index[id(key)] if isinstance(key, Tensor) else key): value
                for key, value in self.state.items()
            },
            "param_groups": groups,
        }
        for after in list(self._optimizer_state_dict_post_hooks.values()):
            changed = after(self, result)
            if changed is not None:
                result = changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state: descend's or torch.optim's of the same optimizer; all or nothing.

        Tensors are copied, keep their dtype, and move to their parameter's device. Options that
        say how a step runs (fused, foreach, capturable, differentiable) stay as they are.

        Args:
            state_dict: what `state_dict` returned.

        Raises:
            StateError: it is of another optimizer, or of other parameters; nothing has changed.
        """
        if isinstance(state_dict, dict):
            state_dict = dict(state_dict)
            for before in list(self._optimizer_load_state_dict_pre_hooks.values()):
                changed = before(self, state_dict)
                if changed is not None:
                    state_dict = changed
        options, state = loaded(
            type(self).__name__, self.rule_of, self.param_groups, self._validate, state_dict
        )
        for group, new in zip(self.param_groups, options, strict=True):
            for key, value in new.items():
                old = group.get(key)
                if isinstance(old, Tensor) and key in self.hyperparameters:
                    with torch.no_grad():
                        old.fill_(float(value))
                else:
                    group[key] = value
        self.state = state
        for after in list(self._optimizer_load_state_dict_post_hooks.values()):
            after(self)

    def _all(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: everything but what is derived from it."""
        kept = ("defaults", "state", "param_groups", "clipping", "skipped_steps", *_HOOKS)
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` gave."""
        self.__dict__.update({"clipping": Clipping(), "skipped_steps": 0, **state})
        for name in _HOOKS:
            self.__dict__.setdefault(name, OrderedDict())
        self._warned_capturable_if_run_uncaptured = True
        self._prepare()


def _never_traced(function: Any) -> None:
    """Let torch.compile run a function as it is, and all that it calls.

    `torch.compiler.disable` would do, but imports the whole compiler, for seconds, to say so.
    """
    function._torchdynamo_disable = True
    frames = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    else:  # before torch 2.8: not what it calls
        frames.skip_code(function.__code__)  # type: ignore[attr-defined]


_never_traced(Optimizer.step)
# Traced, it would guard on every value in the groups, and a new learning rate would recompile.
_never_traced(Optimizer.zero_grad)


def _as_groups(owner: str, params: object) -> list[dict[str, Any]]:
    if isinstance(params, Tensor):
        raise ParameterError(
            f"{owner}: params must be an iterable of tensors or dicts, got one tensor; "
            "put it into a list: [tensor]"
        )
    if isinstance(params, dict) or not isinstance(params, Iterable):
        raise ParameterError(
            f"{owner}: params must be an iterable of tensors or dicts, got {described(params)}"
        )
    entries = list(params)
    if not entries:
        raise ParameterError(
            f"{owner}: got no parameters; model.parameters() can be walked only once, "
            "and a model may have none"
        )
    if isinstance(entries[0], dict):
        return cast(list[dict[str, Any]], entries)
    return [{"params": entries}]


def _named(owner: str, index: int, params: object) -> tuple[list[str], list[Tensor]]:
    if isinstance(params, Tensor):
        return [], [params]
    if isinstance(params, (set, frozenset)):
        raise ParameterError(
            f"{owner}: the parameters of group {index} are a set, whose order changes from run to "
            "run; pass a list"
        )
    if not isinstance(params, Iterable):
        raise ParameterError(
            f"{owner}: the parameters of group {index} must be an iterable of tensors, "
            f"got {described(params)}"
        )
    entries = list(params)
    names = [entry[0] for entry in entries if isinstance(entry, tuple)]
    if names and len(names) != len(entries):
        raise ParameterError(
            f"{owner}: some parameters of group {index} have names and some have not; "
            "name all of them or none"
        )
    return names, [entry[1] for entry in entries] if names else entries


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, (list, dict)) else value


def _documentation(cls: type[Optimizer]) -> str:
    """The hyperparameters as the argument section of a docstring."""
    lines = []
    for hyper in declared(cls.__init__).values():
        text = f"{hyper.name}: {hyper.meaning}; {hyper.allowed}. Default: {hyper.default!r}."
        lines.append(fill(text, 96, initial_indent="    ", subsequent_indent="        "))
    return "\n".join(lines).lstrip()


__all__ = ["Optimizer", "Params", "State"]
