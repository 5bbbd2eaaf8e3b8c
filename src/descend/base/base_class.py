"""The base of every optimizer: parameter groups, state, gradients, the step, saving and loading."""

import copy
import functools
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload
from weakref import proxy

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
    required,
)
from torch.utils._pytree import tree_map_only

from descend.base import declaration, hooks, origin, saved_state
from descend.base.all_or_nothing import all_or_nothing, filled, tensors_of
from descend.base.load_report import LoadReport
from descend.base.matching import Slot, matched
from descend.base.parameters import (
    Params,
    as_groups,
    described,
    names_and_tensors,
    refuse_unfit,
)
from descend.base.shares import refuse_own_norm, refuse_pieces, refuse_shares
from descend.base.untraced import never_traced
from descend.engine.cautious import applied
from descend.engine.hyperparameters import Hyperparameter, Options, declared, validate
from descend.engine.plan import Clipping, Stepper, is_zero
from descend.engine.rule import AnyRule, State, WholeRule
from descend.errors import (
    ConflictError,
    HyperparameterError,
    ParameterError,
    ParameterKeyError,
    ParameterTypeError,
)
from descend.spelling import shown_signature, spelled

if TYPE_CHECKING:
    from typing_extensions import Self

Result = TypeVar("Result")
Loaded = tuple[list[dict[str, Any]], defaultdict[Any, Any], LoadReport]

_DERIVED = frozenset(("_stepper", "_schedules", "_zero_grad_profile_name"))
"""Attributes that are made anew for a copy of an optimizer."""


class Optimizer(torch.optim.Optimizer):
    r"""The base class of descend's optimizers: an instance of torch's, none of its mathematics.

    A subclass sets `rule` and declares its hyperparameters in its constructor's signature; or it
    has a `step` of its own, as a subclass of torch's has.

    The state follows the parameters: after `model.to(device)` or `model.double()` the next step
    just works. But an optimizer updates the very tensors that it was given. Where a model gets new
    Parameter objects (`load_state_dict(assign=True)`, a layer replaced), make a new optimizer:
    the old one has nothing to train, and `explain()` is empty after its step.

    Most optimizers whose rule is elementwise take two options of caution, each in any group:

    .. math::
        \text{cautious: } u' &= u \, \phi / \max(\operatorname{mean}(\phi), 10^{-3}), \quad
        \phi = 1 \text{ where } u g > 0, \text{ else } 0 \\
        \text{cautious\_weight\_decay: } \theta_t &= \theta_{t-1} - u' -
        \gamma \lambda \theta_{t-1} \text{ where } u' \theta_{t-1} \ge 0,
        \text{ else } \theta_{t-1} - u'

    with :math:`u` the optimizer's own step, lr included and decoupled decay left out, :math:`g` the
    gradient of the loss (clipped, negated to climb, without decay), :math:`\gamma` lr (the tensor's
    own, in LAMB and StableAdamW), :math:`\lambda` weight_decay; the mean is that of the tensor. The
    first moves only what goes down the gradient now, and that by as much more: one more pass over
    memory. The second takes the place of the optimizer's decay, coupled or not, in the same pass.

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        defaults: the options of a group that does not set its own; or the `locals()` of a
            subclass's constructor, of which the hyperparameters that it declares are taken.

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
        The interface is torch.optim.Optimizer's: https://docs.pytorch.org/docs/stable/optim.html.
        Caution: K. Liang et al., "Cautious optimizers: improving training with one line of code",
        2024, https://arxiv.org/abs/2411.16085 (the scale is that of the authors' code); L. Chen et
        al., "Cautious weight decay", 2025, https://arxiv.org/abs/2510.12402.
    """

    rule: ClassVar[AnyRule]
    hyperparameters: ClassVar[dict[str, Hyperparameter]]
    # A group holds its options in torch's order: that of the signature, but for these.
    last_in_groups: ClassVar[str] = ""
    # What torch's optimizer of the same name has not, with its default: groups, printed or saved,
    # are torch's as long as such an option is not used.
    left_out: ClassVar[dict[str, Any]] = {}

    # GradScaler reads this; where it is set, it leaves the unscaling to the step, and sets
    # `grad_scale` and `found_inf` for its time. As in torch, only where `fused=True` was asked for:
    # between backward pass and step, trainers clip and count what must be unscaled by then.
    _step_supports_amp_scaling = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the hyperparameters off the constructor, and document them."""
        super().__init_subclass__(**kwargs)
        inherited = getattr(cls, "hyperparameters", {})
        cls.hyperparameters = {**inherited, **declared(cls.__init__)}
        names = (
            declaration.beyond_torch(cls) if cls.__module__.startswith("descend.") else cls.left_out
        )
        cls.left_out = {name: cls.hyperparameters[name].default for name in names}
        if "__init__" in vars(cls):
            cls.__init__ = spelled(cls.__init__)  # type: ignore[method-assign]
            cls.__signature__ = shown_signature(cls.__init__)  # type: ignore[attr-defined]
        cls.__doc__ = declaration.documented(cls)

    @spelled
    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        torch._C._log_api_usage_once("python.optimizer")
        options = declaration.options(self, defaults)
        validate(type(self).__name__, self.hyperparameters, options, "")
        self.clipping = declaration.clipping(options)
        self.defaults = {
            key: value
            for key, value in options.items()
            if key not in origin.NEVER_IN_GROUPS and not self._leaves_out(key, value)
        }
        self.skipped_steps = 0
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        if options.get("fused") and type(self).step is Optimizer.step:
            self._step_supports_amp_scaling = True
        self._prepare()
        for group in as_groups(type(self).__name__, params):
            self.add_param_group(group)

    def _prepare(self) -> None:
        """Make what is derived and never saved, and hooks where there are none."""
        for name in hooks.KINDS:
            self.__dict__.setdefault(name, OrderedDict())
        self._warned_capturable_if_run_uncaptured = True
        single = hasattr(self, "rule") and type(self).rule_of is Optimizer.rule_of
        me = proxy(self)  # its method would hold the optimizer, which is freed when it is deleted
        by_param = lambda param, options: me.rule_of(param, options)  # noqa: E731, PLW0108
        rule = self.rule if single else by_param
        self._stepper = Stepper(type(self).__name__, rule, self._declared_in_groups())
        # For a subclass with a `step` of its own, which gets the hooks around it.
        self._patch_step_function()

    def _declared_in_groups(self) -> dict[str, Hyperparameter]:
        known = self.defaults.keys() | self.left_out
        return {name: one for name, one in self.hyperparameters.items() if name in known}

    def rule_of(self, param: Tensor, options: Options) -> AnyRule:
        """The rule that updates a parameter: `rule`, unless a subclass has several.

        Args:
            param: the parameter.
            options: its group's.
        """
        if not hasattr(self, "rule"):
            raise NotImplementedError(
                f"{type(self).__name__} has neither a rule nor a step of its own; set "
                "`rule = Rule(...)` in the class, or define `step(self, closure=None)`"
            )
        return self.rule

    @never_traced
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, now or in the middle of training.

        Args:
            param_group: "params" (tensors, `(name, tensor)` pairs, or one tensor) and any options
                that differ from the defaults. Other keys are kept as they are. The dict is copied:
                to change an option later, write it into `param_groups[-1]`.

        Raises:
            ParameterError: a parameter that is not a leaf tensor, or that is there already.
            HyperparameterError: a value outside its range, or a misspelt name.
        """
        owner, index = type(self).__name__, len(self.param_groups)
        if not isinstance(param_group, dict):
            raise ParameterTypeError(
                f"{owner}: a parameter group must be a dict with the key 'params', "
                f"got {described(param_group)}"
            )
        if "params" not in param_group:
            raise ParameterKeyError(
                f"{owner}: a parameter group must have the key 'params', "
                f"got {described(param_group)}"
            )
        options = {key: value for key, value in param_group.items() if key != "params"}
        self._validate(options, f"group {index}")
        names, tensors = names_and_tensors(owner, index, param_group)
        self._refuse_unfit(tensors, param_group)
        if self.param_groups and bool(names) != ("param_names" in self.param_groups[0]):
            raise ParameterError(
                f"{owner}: group {index} has {'named' if names else 'unnamed'} parameters and the "
                f"groups before it have {'unnamed' if names else 'named'} ones; "
                "name all of them (named_parameters()) or none"
            )
        defaults = {
            # A tensor is filled in place by a load and by some schedules: each group has its own.
            key: value.clone() if self._shared(value) else value
            for key, value in self.defaults.items()
            if key not in param_group
        }
        # A copy: torch's own group is the dict that was given, so that the next optimizer that is
        # given it takes this one's options for its own.
        new = {**param_group, "params": tensors}
        if names:
            new["param_names"] = names
        shown = {key for group in self.param_groups for key in group if key in self.left_out}
        defaults |= {key: self.left_out[key] for key in shown if key not in new | defaults}
        self.param_groups.append({**new, **defaults})

    def options_of(self, group: dict[str, Any]) -> dict[str, Any]:
        """All options of a group: what it holds, and the defaults of what it leaves out.

        Options that torch's optimizer of the same name has not (`weight_decay` of Rprop, Muon's
        `adamw_lr`) are in a group only where they are not at their defaults.

        Args:
            group: one of `param_groups`.

        Example:
            >>> import torch, descend
            >>> optimizer = descend.Rprop([torch.nn.Parameter(torch.ones(3))])
            >>> (group,) = optimizer.param_groups
            >>> "weight_decay" in group, optimizer.options_of(group)["weight_decay"]
            (False, 0)
        """
        return {**self.left_out, **group}

    def _leaves_out(self, key: str, value: Any) -> bool:
        """Whether a group need not hold this option; a tensor it holds, as somebody may fill it."""
        return key in self.left_out and not tensors_of(value) and value == self.left_out[key]

    def _shared(self, value: Any) -> bool:
        """Whether another group holds this very tensor."""
        return isinstance(value, Tensor) and any(
            value is other for group in self.param_groups for other in group.values()
        )

    def _validate(self, options: dict[str, Any], where: str) -> None:
        """Refuse options that are out of range, or that do not go together."""
        owner = type(self).__name__
        complete = self.options_of({**self.defaults, **options})
        validate(owner, self.hyperparameters, options, where)
        unset = [key for key, value in complete.items() if value is required]
        if unset:
            raise HyperparameterError(
                f"{owner}: {unset[0]} is not set in {where}, and has no default; give each group "
                "one, or the optimizer a default"
            )
        if complete.get("fused") and (complete.get("foreach") or complete.get("differentiable")):
            other = "foreach" if complete.get("foreach") else "differentiable"
            raise ConflictError(
                f"{owner}: fused=True and {other}=True in {where} do not go together; "
                "leave fused out: every step that can be is fused anyway"
            )
        if hasattr(self, "rule"):
            self.rule.check(complete)
            cautious = applied(self.rule, complete)
            if cautious is not self.rule:
                cautious.check(complete)

    def _refuse_unfit(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        owner = type(self).__name__
        computed = group.get("differentiable", self.defaults.get("differentiable", False))
        refuse_unfit(owner, tensors, self.param_groups, computed)
        refuse_own_norm(owner, tensors, self.clipping.norm, self.clipping.skip_nonfinite)
        rule = getattr(self, "rule", None)
        if rule is not None:
            rule = applied(rule, self.options_of({**self.defaults, **group}))
        measures = getattr(rule, "measures", ())
        if any("total" in measure.kinds.values() for measure in measures):
            refuse_shares(owner, tensors)
        elif isinstance(rule, WholeRule) or measures:
            refuse_pieces(owner, tensors)

    @never_traced
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients.

        Args:
            set_to_none: drop them (True, saves memory), or fill them with zeros in place (False).
        """
        with hooks.labelled(self._zero_grad_profile_name):
            if set_to_none:
                for param in self._all():
                    param.grad = None
                return
            grads = [param.grad for param in self._all() if param.grad is not None]
            for grad in grads:
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
            for grad in grads:
                grad.zero_()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Result]) -> Result: ...

    @never_traced
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Update every parameter that has a gradient.

        Args:
            *args: the closure, or nothing.
            **kwargs: `closure`, which recomputes the loss and its gradients, and returns the loss.

        Returns:
            The closure's loss, or None.

        Raises:
            DescendError: a gradient, a state or an option does not fit; nothing has changed then.
        """
        if (
            _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _profiler_enabled()
        ):
            return hooks.around(self, type(self)._plain_step, ((self, *args), kwargs))
        return self._plain_step(*args, **kwargs)

    # Read by torch.optim: this step runs its own hooks, and must not be wrapped (microseconds).
    step.hooked = True  # type: ignore[attr-defined]

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """Put the hooks, and a label for the profiler, around a subclass's own step.

        Args:
            func: the step.
        """

        @functools.wraps(func)
        def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
            return hooks.around(self, func, ((self, *args), kwargs))

        return step

    def _plain_step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step without hooks; what a subclass with another kind of step overrides."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if (not self.state or self._stepper.ahead) and self._only_makes_state():
            lr = self.defaults.get("lr", required)
            own = {} if lr is required else {"lr": lr}
            groups = [{**group, **own} for group in self.param_groups]
            self._stepper.init_state(groups, self.state, self._with_gradients())
            return loss
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if (found is not None and float(found)) or not self._stepper.step(
            self.param_groups, self.state, self.clipping, None if scale is None else float(scale)
        ):
            self.skipped_steps += 1
        return loss

    # The signature for `help`, and for whoever looks for a closure.
    step.__signature__ = inspect.signature(_plain_step)  # type: ignore[attr-defined]

    def _with_gradients(self) -> list[Tensor]:
        return [param for param in self._all() if param.grad is not None]

    def _only_makes_state(self) -> bool:
        """Whether nothing but new state would come of a step: at lr 0, with zero gradients.

        torch.distributed.checkpoint takes such a step to see the state of an optimizer that has
        taken none. Counted, it would change the first real one.
        """
        for group in self.param_groups:
            if not _switched_off(group.get("lr")):
                return False
        params = self._with_gradients()
        return (
            bool(params)
            and all(self._stepper.untouched(param, self.state.get(param)) for param in params)
            and all(is_zero(param.grad) for param in params)
        )

    @never_traced
    def init_state(self) -> None:
        """Make the state of every parameter that requires a gradient and has none, without a step.

        A step makes it otherwise, when a parameter has its first gradient. Made ahead it can be
        loaded into, laid out over devices, or measured; the first step is the first all the same.
        torch.distributed.checkpoint asks for no more than `get_optimizer_state_dict` does by
        itself: call this before it where some parameters have a state already and others not, or
        before freezing those whose saved state is to be loaded.

        Raises:
            DescendError: an option or a parameter does not fit; nothing has changed then.
            NotImplementedError: of a subclass whose state only its own `step` knows.

        Example:
            >>> import torch, descend
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> optimizer = descend.AdamW([weight])
            >>> optimizer.init_state()
            >>> sorted(optimizer.state[weight])
            ['exp_avg', 'exp_avg_sq', 'step']
        """
        if self._ruleless:
            raise NotImplementedError(
                f"{type(self).__name__} makes its state in a step of its own; define "
                "init_state(self) beside it"
            )
        params = [param for param in self._all() if param.requires_grad]
        self._stepper.init_state(self.param_groups, self.state, params)

    def explain(self) -> list[dict[str, Any]]:
        """How the last step ran: which backend took which parameters, one entry per kernel call.

        Returns:
            `{"backend", "tensors", "elements", "groups"}` for each call; the eager backend, which
            goes tensor by tensor, counts as one. Empty before the first step.
        """
        return self._stepper.explain()

    @never_traced
    def state_dict(self) -> dict[str, Any]:
        """The state as plain containers, as torch.optim has it.

        Returns:
            `{"state": {index: {name: tensor}}, "param_groups": [{..., "params": [index]}]}`;
            indices count the parameters over all groups. The state's tensors are the live ones;
            tensors among the options are copied.
        """
        for before in list(self._optimizer_state_dict_pre_hooks.values()):
            before(self)
        index: dict[int, int] = {}
        for i, param in enumerate(self._all()):
            index.setdefault(id(param), i)  # the first, where groups are repeated
        groups = []
        for group in self.param_groups:
            packed = {
                key: tree_map_only(Tensor, _snapshot, value)
                for key, value in group.items()
                if key != "params"
            }
            packed["params"] = [index[id(param)] for param in group["params"]]
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

    # Torch's returns nothing, and is always strict.
    @never_traced
    def load_state_dict(  # type: ignore[override]
        self, state_dict: dict[str, Any], strict: bool = True
    ) -> LoadReport:
        """Take over a state: descend's or torch.optim's of the same optimizer; all or nothing.

        Parameters are matched by name where both sides know names, else by position. Tensors are
        copied, keep their dtype, and move to their parameter's device. Options that say how a step
        runs (fused, foreach, capturable, differentiable) stay as they are; a tensor among the
        options (lr) is filled in place.

        Args:
            state_dict: what `state_dict` returned.
            strict: refuse a state that has other parameters, or has them in other groups. False:
                take over the state of those that match, by name or position and by shape, and
                leave the others as they are; a group takes over options only if it shares
                parameters with one saved group, and that with no other.

        Returns:
            Which parameters matched, were missed, and were left unused, and why.

        Raises:
            StateError: it is of another optimizer, or (strict) of other parameters; nothing has
                changed. Adam, AdamW, RAdam and SparseAdam keep the same state, and take each
                other's.
            HyperparameterError: it holds an option that is out of range; nothing has changed.

        Example:
            >>> import torch, descend
            >>> body, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
            >>> saved = descend.AdamW(body.named_parameters(prefix="body"), lr=0.5).state_dict()
            >>> both = torch.nn.ModuleDict({"body": body, "head": head})
            >>> optimizer = descend.AdamW(both.named_parameters(), lr=0.1)
            >>> print(optimizer.load_state_dict(saved, strict=False))
            state of 2 parameters loaded: body.weight, body.bias
            missed: head.weight (not in the state), head.bias (not in the state)
            unused: none
            options loaded into: group 0
        """
        if isinstance(state_dict, dict):
            state_dict = dict(state_dict)
            for before in list(self._optimizer_load_state_dict_pre_hooks.values()):
                changed = before(self, state_dict)
                if changed is not None:
                    state_dict = changed
        options, state, report = self._loaded(state_dict, strict)
        with all_or_nothing(self):
            for group, new in zip(self.param_groups, options, strict=True):
                for key, value in new.items():
                    if key not in group and self._leaves_out(key, value):
                        continue
                    known = key in self.hyperparameters
                    group[key] = filled(group.get(key), value) if known else value
            # As in torch: a subclass may have its own ideas about what it takes over.
            self.__setstate__({"state": state, "param_groups": self.param_groups})
            for after in list(self._optimizer_load_state_dict_post_hooks.values()):
                after(self)
        return report

    def _loaded(self, state_dict: object, strict: bool) -> Loaded:
        """The new options of each group, the new state, and the report; nothing changes yet."""
        owner, groups = type(self).__name__, self.param_groups
        saved, entries = saved_state.parts(owner, state_dict)
        origin.refuse_other(self, saved)
        pairs, shared = matched(owner, groups, saved, strict)
        options: list[dict[str, Any]] = [{} for _ in groups]
        for index, source in shared.items():
            new = saved_state.options(groups[index], saved[source], strict, self.left_out)
            self._validate({**groups[index], **new}, f"group {source} of the state")
            options[index] = new

        def load(one: Slot, entry: object, place: str) -> Any:
            complete = self.options_of({**groups[one.group], **options[one.group]})
            return self._load_entry(one.key, complete, entry, place)

        state, report = saved_state.loaded(owner, pairs, entries, self.state, strict, load)
        return options, state, replace(report, groups=shared)

    def _load_entry(self, param: Tensor, options: Options, entry: object, place: str) -> Any:
        """A checked copy of the saved state of one parameter."""
        if self._ruleless:
            return _moved(copy.deepcopy(entry), param.device, ("step",))
        rule = self.rule_of(param, options)
        return saved_state.entry(type(self).__name__, rule, options, param, place, entry)

    @never_traced
    def to(self, device: torch.device | str | int) -> "Self":
        """Move the state to a device; parameters, gradients and options stay where they are.

        Rarely needed: the state follows its parameter at the next step by itself. It makes room on
        a GPU while nothing is trained there (`optimizer.to("cpu")`), or moves in time. Step counts
        stay on the CPU, where the step reads them, unless the group is `capturable`.

        Args:
            device: where to.

        Returns:
            The optimizer.

        Example:
            >>> import torch, descend
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> optimizer = descend.SGD([weight], lr=0.1, momentum=0.9)
            >>> weight.sum().backward()
            >>> optimizer.step()
            >>> optimizer.to("meta").state[weight]["momentum_buffer"].device
            device(type='meta')
        """
        target = torch.device(device)
        moved = {}
        for group in self.param_groups:
            for param in group["params"]:
                if self.state.get(param):
                    counts: tuple[str, ...] = ()
                    if not group.get("capturable"):
                        options = self.options_of(group)
                        counts = (
                            ("step",) if self._ruleless else self.rule_of(param, options).counts
                        )
                    moved[param] = _moved(self.state[param], target, counts)
        for param, state in moved.items():
            self.state[param].update(state)
        return self

    @property
    def _ruleless(self) -> bool:
        """Whether this is a subclass with nothing but a `step` of its own."""
        return type(self).rule_of is Optimizer.rule_of and not hasattr(self, "rule")

    def _all(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def __getstate__(self) -> dict[str, Any]:
        """The attributes that a copy or a pickle holds: all but those derived from them.

        A `step` that a scheduler has wrapped is left out: the wrapper is bound to this optimizer.
        """
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in _DERIVED and not callable(getattr(type(self), name, None))
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` gave, or torch's: "defaults", "state", "param_groups"."""
        self.__dict__.update(state)
        self.__dict__.setdefault("clipping", Clipping())
        self.__dict__.setdefault("skipped_steps", 0)
        self._prepare()
        hooks.reserve_numbers(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle; hooks too, unlike torch.

        Raises:
            HookError: a hook cannot be pickled, such as a lambda.
        """
        hooks.refuse_unpicklable(self)
        return super().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Self":
        """A copy with hooks, whether they could be pickled or not."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return new

    def __copy__(self) -> "Self":
        """A second optimizer of the same groups and state, with the same hooks."""
        new = type(self).__new__(type(self))
        state = self.__getstate__()
        new.__setstate__({**state, **{name: state[name].copy() for name in hooks.KINDS}})
        return new


def _switched_off(rate: Any) -> bool:
    """Whether an lr is 0; of a tensor whose number is not at hand this is not asked."""
    if isinstance(rate, Tensor):
        return type(rate) is Tensor and rate.device.type == "cpu" and is_zero(rate)
    return rate is not None and is_zero(rate)


def _snapshot(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _moved(state: Any, device: torch.device, kept: tuple[str, ...]) -> Any:
    """A parameter's state on a device, but for some entries."""
    if not isinstance(state, dict):
        return state
    return {
        name: value
        if name in kept
        else tree_map_only(Tensor, lambda tensor: tensor.to(device), value)
        for name, value in state.items()
    }


__all__ = ["Optimizer", "Params", "State"]
