"""Every bad input, the exception it raises, and the exact words; a refused call changes nothing."""

import math

import pytest
import torch

import descend
from descend.errors import (
    ConflictError,
    GradientError,
    HyperparameterError,
    ParameterError,
    ParameterKeyError,
    ParameterTypeError,
    ShapeError,
    StateError,
    StateKeyError,
)


def _one():
    return torch.nn.Parameter(torch.ones(3))


def _made(name, *args, **options):
    return lambda: getattr(descend, name)([_one()], *args, **options)


def _of(params):
    """An SGD of whatever `params()` gives."""
    return lambda: descend.SGD(params(), lr=0.1)


def _twice():
    param = _one()
    return [param, param]


def _in_two_groups():
    param = _one()
    return [{"params": [param]}, {"params": [param]}]


def _expanded():
    param = torch.nn.Parameter(torch.zeros(1).expand(5))
    param.grad = torch.ones(5)
    descend.SGD([param]).step()


def _stepped(name, change, **options):
    """Step once, change something, step again."""

    def call():
        param = _one()
        optimizer = getattr(descend, name)([param], **options)
        param.grad = torch.ones(3)
        optimizer.step()
        change(optimizer, param)
        optimizer.step()

    return call


def _set(**values):
    return lambda optimizer, param: optimizer.param_groups[0].update(values)


def _shrink(optimizer, param):
    param.grad = None
    param.data = torch.ones(2)
    param.grad = torch.ones(2)


def _resize_keeping_the_gradient(optimizer, param):
    param.data = torch.ones(2)


def _make_sparse(optimizer, param):
    param.grad = torch.eye(3)[0].to_sparse()


def _add(**group):
    return lambda optimizer, param: optimizer.add_param_group(group)


def _load(change=lambda saved: saved, source="Adam", target="Adam", shape=3):
    def call():
        param = _one()
        optimizer = getattr(descend, source)([param])
        param.grad = torch.ones(3)
        optimizer.step()
        saved = optimizer.state_dict()
        getattr(descend, target)([torch.nn.Parameter(torch.ones(shape))]).load_state_dict(
            change(saved)
        )

    return call


BAD = {
    "lr negative": (
        _made("SGD", lr=-1.0),
        HyperparameterError,
        (
            "SGD: lr=-1.0 is not allowed: lr must be a finite number of at least 0, or a tensor of "
            "one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr nan": (
        _made("Adam", lr=math.nan),
        HyperparameterError,
        (
            "Adam: lr=nan is not allowed: lr must be a finite number of at least 0, or a tensor of "
            "one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr infinite": (
        _made("AdamW", lr=math.inf),
        HyperparameterError,
        (
            "AdamW: lr=inf is not allowed: lr must be a finite number of at least 0, or a tensor "
            "of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr none": (
        _made("RMSprop", lr=None),
        HyperparameterError,
        (
            "RMSprop: lr=None is not allowed: lr must be a finite number of at least 0, or a "
            "tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr string": (
        _made("Adagrad", lr="0.1"),
        HyperparameterError,
        (
            "Adagrad: lr='0.1' is not allowed: lr must be a finite number of at least 0, or a "
            "tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr bool": (
        _made("SGD", lr=True),
        HyperparameterError,
        (
            "SGD: lr=True is not allowed: lr must be a finite number of at least 0, or a tensor of "
            "one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr tensor of two": (
        _made("SGD", lr=torch.tensor([0.1, 0.2])),
        HyperparameterError,
        (
            "SGD: lr=a tensor of shape (2,) is not allowed: lr must be a finite number of at least "
            "0, or a tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "lr tensor negative": (
        _made("SGD", lr=torch.tensor(-0.5)),
        HyperparameterError,
        (
            "SGD: lr=tensor(-0.5) is not allowed: lr must be a finite number of at least 0, or a "
            "tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "momentum negative": (
        _made("SGD", momentum=-0.9),
        HyperparameterError,
        ("SGD: momentum=-0.9 is not allowed: momentum must be a finite number of at least 0"),
    ),
    "dampening nan": (
        _made("SGD", momentum=0.9, dampening=math.nan),
        HyperparameterError,
        ("SGD: dampening=nan is not allowed: dampening must be a finite number"),
    ),
    "weight decay negative": (
        _made("SGD", weight_decay=-0.1),
        HyperparameterError,
        (
            "SGD: weight_decay=-0.1 is not allowed: weight_decay must be a finite number "
            "of at least 0"
        ),
    ),
    "nesterov without momentum": (
        _made("SGD", nesterov=True),
        HyperparameterError,
        (
            "SGD: nesterov=True with momentum=0 and dampening=0 is not allowed: it needs a "
            "momentum above 0 and dampening=0"
        ),
    ),
    "nesterov with dampening": (
        _made("SGD", momentum=0.9, dampening=0.1, nesterov=True),
        HyperparameterError,
        (
            "SGD: nesterov=True with momentum=0.9 and dampening=0.1 is not allowed: it needs a "
            "momentum above 0 and dampening=0"
        ),
    ),
    "nesterov a number": (
        _made("SGD", nesterov=1),
        HyperparameterError,
        ("SGD: nesterov=1 is not allowed: nesterov must be True or False"),
    ),
    "betas too large": (
        _made("Adam", betas=(2, 3)),
        HyperparameterError,
        (
            "Adam: betas=(2, 3) is not allowed: betas must be 2 finite numbers, each at least 0 "
            "and below 1"
        ),
    ),
    "betas one": (
        _made("Adam", betas=(0.9, 1.0)),
        HyperparameterError,
        (
            "Adam: betas=(0.9, 1.0) is not allowed: betas must be 2 finite numbers, each at least"
            " 0 and below 1"
        ),
    ),
    "betas negative": (
        _made("AdamW", betas=(-0.1, 0.9)),
        HyperparameterError,
        (
            "AdamW: betas=(-0.1, 0.9) is not allowed: betas must be 2 finite numbers, each at "
            "least 0 and below 1"
        ),
    ),
    "betas of three": (
        _made("AdamW", betas=(0.9, 0.9, 0.9)),
        HyperparameterError,
        (
            "AdamW: betas=(0.9, 0.9, 0.9) is not allowed: betas must be 2 finite numbers, each at"
            " least 0 and below 1"
        ),
    ),
    "betas a number": (
        _made("Adam", betas=0.9),
        HyperparameterError,
        (
            "Adam: betas=0.9 is not allowed: betas must be 2 finite numbers, each at least 0 and "
            "below 1"
        ),
    ),
    "eps negative": (
        _made("Adam", eps=-1e-8),
        HyperparameterError,
        ("Adam: eps=-1e-08 is not allowed: eps must be a finite number of at least 0"),
    ),
    "alpha negative": (
        _made("RMSprop", alpha=-0.1),
        HyperparameterError,
        ("RMSprop: alpha=-0.1 is not allowed: alpha must be a finite number of at least 0"),
    ),
    "rmsprop momentum negative": (
        _made("RMSprop", momentum=-0.1),
        HyperparameterError,
        ("RMSprop: momentum=-0.1 is not allowed: momentum must be a finite number of at least 0"),
    ),
    "rho above one": (
        _made("Adadelta", rho=1.1),
        HyperparameterError,
        ("Adadelta: rho=1.1 is not allowed: rho must be a finite number from 0 to 1"),
    ),
    "rho negative": (
        _made("Adadelta", rho=-0.1),
        HyperparameterError,
        ("Adadelta: rho=-0.1 is not allowed: rho must be a finite number from 0 to 1"),
    ),
    "adadelta eps negative": (
        _made("Adadelta", eps=-1.0),
        HyperparameterError,
        ("Adadelta: eps=-1.0 is not allowed: eps must be a finite number of at least 0"),
    ),
    "adamax betas": (
        _made("Adamax", betas=(0.9, 1.0)),
        HyperparameterError,
        (
            "Adamax: betas=(0.9, 1.0) is not allowed: betas must be 2 finite numbers, each at "
            "least 0 and below 1"
        ),
    ),
    "nadam betas": (
        _made("NAdam", betas=(1.0, 0.0)),
        HyperparameterError,
        (
            "NAdam: betas=(1.0, 0.0) is not allowed: betas must be 2 finite numbers, each at "
            "least 0 and below 1"
        ),
    ),
    "momentum decay negative": (
        _made("NAdam", momentum_decay=-0.2),
        HyperparameterError,
        (
            "NAdam: momentum_decay=-0.2 is not allowed: momentum_decay must be a finite number "
            "of at least 0"
        ),
    ),
    "radam betas": (
        _made("RAdam", betas=(1.0, 0.0)),
        HyperparameterError,
        (
            "RAdam: betas=(1.0, 0.0) is not allowed: betas must be 2 finite numbers, each at "
            "least 0 and below 1"
        ),
    ),
    "radam weight decay negative": (
        _made("RAdam", weight_decay=-1),
        HyperparameterError,
        (
            "RAdam: weight_decay=-1 is not allowed: weight_decay must be a finite number "
            "of at least 0"
        ),
    ),
    "asgd weight decay negative": (
        _made("ASGD", weight_decay=-0.5),
        HyperparameterError,
        (
            "ASGD: weight_decay=-0.5 is not allowed: weight_decay must be a finite number "
            "of at least 0"
        ),
    ),
    "lambd negative": (
        _made("ASGD", lambd=-1.0),
        HyperparameterError,
        ("ASGD: lambd=-1.0 is not allowed: lambd must be a finite number of at least 0"),
    ),
    "asgd alpha negative": (
        _made("ASGD", alpha=-0.5),
        HyperparameterError,
        ("ASGD: alpha=-0.5 is not allowed: alpha must be a finite number of at least 0"),
    ),
    "t0 nan": (
        _made("ASGD", t0=math.nan),
        HyperparameterError,
        ("ASGD: t0=nan is not allowed: t0 must be a number, which may be infinite"),
    ),
    "etas in the wrong order": (
        _made("Rprop", etas=(1.0, 0.5)),
        HyperparameterError,
        (
            "Rprop: etas=(1.0, 0.5) is not allowed: etas must be a pair: a finite number above 0 "
            "and below 1; then a finite number above 1"
        ),
    ),
    "etas a number": (
        _made("Rprop", etas=0.5),
        HyperparameterError,
        (
            "Rprop: etas=0.5 is not allowed: etas must be a pair: a finite number above 0 and "
            "below 1; then a finite number above 1"
        ),
    ),
    "etas of three": (
        _made("Rprop", etas=(0.5, 1.2, 2.0)),
        HyperparameterError,
        (
            "Rprop: etas=(0.5, 1.2, 2.0) is not allowed: etas must be a pair: a finite number "
            "above 0 and below 1; then a finite number above 1"
        ),
    ),
    "second eta one": (
        _made("Rprop", etas=(0.5, 1.0)),
        HyperparameterError,
        (
            "Rprop: etas=(0.5, 1.0) is not allowed: etas must be a pair: a finite number above 0 "
            "and below 1; then a finite number above 1"
        ),
    ),
    "step sizes in the wrong order": (
        _made("Rprop", step_sizes=(1.0, 0.1)),
        HyperparameterError,
        (
            "Rprop: step_sizes=(1.0, 0.1) is not allowed: the first, the smallest step, must be "
            "no larger than the second"
        ),
    ),
    "step sizes negative": (
        _made("Rprop", step_sizes=(-1.0, 0.1)),
        HyperparameterError,
        (
            "Rprop: step_sizes=(-1.0, 0.1) is not allowed: step_sizes must be 2 numbers, "
            "each at least 0, which may be infinite"
        ),
    ),
    "rprop lr negative": (
        _made("Rprop", lr=-0.1),
        HyperparameterError,
        (
            "Rprop: lr=-0.1 is not allowed: lr must be a finite number of at least 0, or a tensor "
            "of one such number"
        ),
    ),
    "lion betas": (
        _made("Lion", betas=(0.9, 1.0)),
        HyperparameterError,
        (
            "Lion: betas=(0.9, 1.0) is not allowed: betas must be 2 finite numbers, each at "
            "least 0 and below 1"
        ),
    ),
    "lr decay negative": (
        _made("Adagrad", lr_decay=-0.1),
        HyperparameterError,
        ("Adagrad: lr_decay=-0.1 is not allowed: lr_decay must be a finite number of at least 0"),
    ),
    "initial accumulator negative": (
        _made("Adagrad", initial_accumulator_value=-1.0),
        HyperparameterError,
        (
            "Adagrad: initial_accumulator_value=-1.0 is not allowed: initial_accumulator_value "
            "must be a finite number of at least 0"
        ),
    ),
    "clip norm zero": (
        _made("SGD", clip_norm=0.0),
        HyperparameterError,
        (
            "SGD: clip_norm=0.0 is not allowed: "
            "clip_norm must be a number above 0, which may be infinite, or None"
        ),
    ),
    "clip norm nan": (
        _made("SGD", clip_norm=math.nan),
        HyperparameterError,
        (
            "SGD: clip_norm=nan is not allowed: "
            "clip_norm must be a number above 0, which may be infinite, or None"
        ),
    ),
    "clip value negative": (
        _made("SGD", clip_value=-1),
        HyperparameterError,
        (
            "SGD: clip_value=-1 is not allowed: "
            "clip_value must be a number above 0, which may be infinite, or None"
        ),
    ),
    "skip nonfinite none": (
        _made("SGD", skip_nonfinite=None),
        HyperparameterError,
        ("SGD: skip_nonfinite=None is not allowed: skip_nonfinite must be True or False"),
    ),
    "fused and foreach": (
        _made("Adam", fused=True, foreach=True),
        ConflictError,
        (
            "Adam: fused=True and foreach=True in group 0 do not go together; leave fused out: "
            "every step that can be is fused anyway"
        ),
    ),
    "fused and differentiable": (
        _made("Adam", fused=True, differentiable=True),
        ConflictError,
        (
            "Adam: fused=True and differentiable=True in group 0 do not go together; leave fused "
            "out: every step that can be is fused anyway"
        ),
    ),
    "group key misspelt": (
        _of(lambda: [{"params": [_one()], "weight_deacy": 0.1}]),
        HyperparameterError,
        (
            "SGD: there is no 'weight_deacy' in group 0; did you mean weight_decay? (known: lr, "
            "momentum, dampening, weight_decay, nesterov, maximize, foreach, differentiable, "
            "fused, capturable, clip_norm, clip_value, skip_nonfinite, "
            "cautious, cautious_weight_decay)"
        ),
    ),
    "group lr negative": (
        _of(lambda: [{"params": [_one()]}, {"params": [_one()], "lr": -1.0}]),
        HyperparameterError,
        (
            "SGD: lr=-1.0 in group 1 is not allowed: lr must be a finite number of at least 0, or "
            "a tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "written lr negative": (
        _stepped("SGD", _set(lr=-1.0)),
        HyperparameterError,
        (
            "SGD: lr=-1.0 in group 0 is not allowed: lr must be a finite number of at least 0, or "
            "a tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "written betas": (
        _stepped("Adam", _set(betas=(2, 3))),
        HyperparameterError,
        (
            "Adam: betas=(2, 3) in group 0 is not allowed: betas must be 2 finite numbers, each "
            "at least 0 and below 1"
        ),
    ),
    "added lr negative": (
        _stepped("Adam", _add(params=[torch.nn.Parameter(torch.ones(2))], lr=-1.0)),
        HyperparameterError,
        (
            "Adam: lr=-1.0 in group 1 is not allowed: lr must be a finite number of at least 0, or "
            "a tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
    "added key misspelt": (
        _stepped("Adam", _add(params=[torch.nn.Parameter(torch.ones(2))], beta=(0.9, 0.9))),
        HyperparameterError,
        (
            "Adam: there is no 'beta' in group 1; did you mean betas? (known: lr, betas, eps, "
            "weight_decay, amsgrad, foreach, maximize, capturable, differentiable, fused, "
            "decoupled_weight_decay, clip_norm, clip_value, skip_nonfinite, "
            "cautious, cautious_weight_decay)"
        ),
    ),
    "no parameters": (
        _of(list),
        ParameterError,
        (
            "SGD: got no parameters; model.parameters() can be walked only once, and a model may "
            "have none"
        ),
    ),
    "empty generator": (
        _of(lambda: iter(())),
        ParameterError,
        (
            "SGD: got no parameters; model.parameters() can be walked only once, and a model may "
            "have none"
        ),
    ),
    "one tensor": (
        _of(_one),
        ParameterTypeError,
        (
            "SGD: params must be an iterable of tensors or dicts, got one tensor; put it into a "
            "list: [tensor]"
        ),
    ),
    "a dict": (
        _of(lambda: {"params": [_one()]}),
        ParameterTypeError,
        ("SGD: params must be an iterable of tensors or dicts, got a dict with the keys 'params'"),
    ),
    "a number": (
        _of(lambda: 3),
        ParameterTypeError,
        ("SGD: params must be an iterable of tensors or dicts, got 3 (int)"),
    ),
    "a list of numbers": (
        _of(lambda: [1.0]),
        ParameterTypeError,
        ("SGD: group 0, parameter 0 must be a tensor, got 1.0 (float)"),
    ),
    "a module": (
        _of(lambda: torch.nn.Linear(1, 1)),
        ParameterTypeError,
        (
            "SGD: params must be an iterable of tensors or dicts, got Linear(in_features=1, "
            "out_features=1, bias=True) (Linear)"
        ),
    ),
    "a set in a group": (
        _of(lambda: [{"params": {_one()}}]),
        ParameterTypeError,
        (
            "SGD: the parameters of group 0 are a set, whose order changes from run to run; pass "
            "a list"
        ),
    ),
    "a group without params": (
        _of(lambda: [{"lr": 0.1}]),
        ParameterKeyError,
        ("SGD: a parameter group must have the key 'params', got a dict with the keys 'lr'"),
    ),
    "a parameter after groups": (
        _of(lambda: [{"params": [_one()]}, _one()]),
        ParameterTypeError,
        ("SGD: a parameter group must be a dict with the key 'params', got a tensor of shape (3,)"),
    ),
    "group of none": (
        _of(lambda: [{"params": None}]),
        ParameterTypeError,
        ("SGD: the parameters of group 0 must be an iterable of tensors, got None (NoneType)"),
    ),
    "not a leaf": (
        _of(lambda: [_one() * 2]),
        ParameterError,
        (
            "SGD: group 0, parameter 0 is not a leaf tensor: it was computed from others, so no "
            "gradient reaches it; pass the tensor it was computed from, or "
            "tensor.detach().requires_grad_()"
        ),
    ),
    "twice in a group": (
        _of(_twice),
        ParameterError,
        (
            "SGD: group 0, parameter 1 is group 0, parameter 0 again; a tensor belongs to one "
            "group, once"
        ),
    ),
    "in two groups": (
        _of(_in_two_groups),
        ParameterError,
        (
            "SGD: group 1, parameter 0 is group 0, parameter 0 again; a tensor belongs to one "
            "group, once"
        ),
    ),
    "some named": (
        _of(lambda: [("a", _one()), _one()]),
        ParameterError,
        ("SGD: some parameters of group 0 have names and some have not; name all of them or none"),
    ),
    "named beside unnamed": (
        _of(lambda: [{"params": [("a", _one())]}, {"params": [_one()]}]),
        ParameterError,
        (
            "SGD: group 1 has unnamed parameters and the groups before it have named ones; name "
            "all of them (named_parameters()) or none"
        ),
    ),
    "expanded parameter": (
        _expanded,
        ParameterError,
        (
            "SGD, group 0, parameter 0: several elements of the parameter share one memory "
            "location (an expanded tensor), so it cannot be updated; pass parameter.clone() "
            "instead"
        ),
    ),
    "sparse to adam": (
        _stepped("Adam", _make_sparse),
        GradientError,
        (
            "Adam, group 0, parameter 0: the gradient is sparse, and this optimizer takes dense "
            "gradients only; use SGD, Adagrad or SparseAdam, or build the layer with sparse=False"
        ),
    ),
    "sparse to rmsprop": (
        _stepped("RMSprop", _make_sparse),
        GradientError,
        (
            "RMSprop, group 0, parameter 0: the gradient is sparse, and this optimizer takes "
            "dense gradients only; use SGD, Adagrad or SparseAdam, or build the layer with "
            "sparse=False"
        ),
    ),
    "gradient of an old shape": (
        _stepped("SGD", _resize_keeping_the_gradient),
        GradientError,
        (
            "SGD, group 0, parameter 0: the gradient has shape (3,) but the parameter has shape "
            "(2,); it was computed before the parameter changed: call zero_grad() and backward() "
            "again"
        ),
    ),
    "state of an old shape": (
        _stepped("Adam", _shrink),
        StateError,
        (
            "Adam, group 0, parameter 0: its state 'exp_avg' has shape (3,) but the parameter has"
            " shape (2,); to start it anew: del optimizer.state[parameter]"
        ),
    ),
    "load none": (
        _load(lambda saved: None),
        StateKeyError,
        (
            "Adam: a state must be a dict with 'state' (a dict) and 'param_groups' (a list), got "
            "None (NoneType); pass what state_dict() returned"
        ),
    ),
    "load an empty dict": (
        _load(lambda saved: {}),
        StateKeyError,
        (
            "Adam: a state must be a dict with 'state' (a dict) and 'param_groups' (a list), got "
            "a dict with the keys (none); pass what state_dict() returned"
        ),
    ),
    "load no groups": (
        _load(lambda saved: {"state": {}}),
        StateKeyError,
        (
            "Adam: a state must be a dict with 'state' (a dict) and 'param_groups' (a list), got "
            "a dict with the keys 'state'; pass what state_dict() returned"
        ),
    ),
    "load empty groups": (
        _load(lambda saved: {**saved, "param_groups": []}),
        StateError,
        (
            "Adam: the state has 0 groups, this optimizer has 1 group of 1 parameters; build it "
            "from the same parameters in the same groups, or pass strict=False to load what matches"
        ),
    ),
    "load group without params": (
        _load(lambda saved: {**saved, "param_groups": [{"lr": 0.1}]}),
        StateKeyError,
        ("Adam: group 0 of the state has no 'params'; pass what state_dict() returned"),
    ),
    "load another shape": (
        _load(shape=4),
        ShapeError,
        (
            "Adam: 'exp_avg' of parameter 0 in the state is a tensor of shape (3,), but the "
            "parameter has shape (4,); the parameters were in another order, or the model was "
            "another one"
        ),
    ),
    "load adam into sgd": (
        _load(target="SGD"),
        StateError,
        (
            "SGD: the state was saved by Adam or AdamW: its groups lack momentum, dampening, "
            "nesterov; load it into that optimizer, or pass what SGD.state_dict() returned"
        ),
    ),
    "load sgd into adam": (
        _load(lambda saved: {**saved, "state": {0: {"momentum_buffer": torch.ones(3)}}}),
        StateError,
        (
            "Adam: the state of parameter 0 has 'momentum_buffer', but Adam keeps 'exp_avg', "
            "'exp_avg_sq', 'max_exp_avg_sq', 'step'; it was saved by SGD: load it into that one"
        ),
    ),
    "load half a state": (
        _load(lambda saved: {**saved, "state": {0: {"step": 3.0}}}),
        StateError,
        (
            "Adam: the state of parameter 0 has 'step', but lacks 'exp_avg', 'exp_avg_sq'; it is "
            "damaged, or was saved by another optimizer"
        ),
    ),
    "load a step that is text": (
        _load(lambda saved: {**saved, "state": {0: {**saved["state"][0], "step": "three"}}}),
        StateError,
        ("Adam: 'step' of parameter 0 in the state is 'three' (str), but it must be a number"),
    ),
    "load a bad lr": (
        _load(lambda saved: {**saved, "param_groups": [{**saved["param_groups"][0], "lr": -1.0}]}),
        HyperparameterError,
        (
            "Adam: lr=-1.0 in group 0 of the state is not allowed: lr must be a finite number of "
            "at least 0, or a tensor of one such number; to climb the gradient, pass maximize=True"
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
    assert type(caught.value) is kind


@pytest.mark.parametrize("gradient", [True, False])
def test_a_negative_lr_that_is_written_into_a_group_is_refused(gradient):
    """torch climbs."""
    first, second = _one(), _one()
    optimizer = descend.SGD([{"params": [first]}, {"params": [second]}], lr=0.1)
    first.grad, second.grad = torch.ones_like(first) if gradient else None, torch.ones_like(second)
    before = second.detach().clone()
    optimizer.param_groups[0]["lr"] = -0.01
    with pytest.raises(ValueError, match=r"lr=-0\.01 in group 0 is not allowed"):
        optimizer.step()
    assert torch.equal(second, before)
