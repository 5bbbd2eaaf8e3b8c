"""Who takes part in which case, and what a step is for each."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from descend.bench import (
    SHORT,
    UNMEASURED,
    WORKLOADS,
    Case,
    Workload,
    cases,
    contenders,
    packages,
    parameters,
)
from descend.bench.contenders import CLIP_NORM, SCALE, falling, find_case, stepping
from descend.bench.packages import PACKAGES
from descend.bench.workloads import Backward
from descend.errors import OptimizerFileError
from descend.optimizers import CATALOGUE

SMALL = Workload("small", "three tensors", ((3, 4), (4,), (2, 2, 3)))


def test_every_optimizer_of_the_catalogue_that_steps_densely_is_a_case(catalogue):
    assert list(cases()) == ["sgd", "sgd-momentum", "adamw", "adamw-clip", "rmsprop", "unheard"]


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("adamw", ["descend", "torch default", "torch foreach", "torch fused"]),
        ("rmsprop", ["descend", "torch default", "torch foreach"]),
        ("unheard", ["descend"]),
    ],
)
def test_torch_takes_part_with_what_it_has(catalogue, case, names):
    assert [contender.name for contender in contenders(cases()[case])] == names


def test_each_contender_gets_the_options_and_its_own_flag(catalogue):
    model = [torch.nn.Parameter(torch.ones(2))]
    made = {one.name: one.make(model) for one in contenders(cases()["sgd-momentum"])}
    assert all(optimizer.defaults["momentum"] == 0.9 for optimizer in made.values())
    assert made["torch default"].defaults["foreach"] is None
    assert made["torch default"].defaults["fused"] is None
    assert made["torch foreach"].defaults["foreach"] is True
    assert made["torch fused"].defaults["fused"] is True


def test_descend_clips_in_its_step_and_torch_before_it(catalogue):
    ours, *theirs = contenders(cases()["adamw-clip"])
    model = [torch.nn.Parameter(torch.ones(2))]
    assert ours.make(model).clip_norm == CLIP_NORM
    assert not ours.clips_before
    assert theirs
    for contender in theirs:
        model[0].grad = torch.full((2,), 10.0)
        contender.step_of(contender.make(model), model)()
        assert model[0].grad.norm().item() == pytest.approx(CLIP_NORM)


def test_an_unclipped_step_is_the_optimizers_own(catalogue):
    contender = contenders(Case("sgd", catalogue["sgd"]))[0]
    optimizer = contender.make([torch.nn.Parameter(torch.ones(2))])
    assert contender.step_of(optimizer, []) == optimizer.step


def test_only_the_steps_are_timed_and_each_meets_new_gradient_tensors():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    backward, now, seen = Backward([parameter]), 0, []

    def clock():
        nonlocal now
        now += 5  # reading the clock takes time too, after it was read
        return now

    def step():
        nonlocal now
        now += 100
        seen.append(parameter.grad)

    def before():
        nonlocal now
        now += 1000
        backward()

    assert stepping(step, before, clock)(3) == 3 * 105
    assert len({id(grad) for grad in seen}) == 3
    first, second, third = (grad.data_ptr() for grad in seen)
    assert first == third != second


def test_each_side_has_the_schedule_of_its_own_library(monkeypatch):
    from descend import lr_scheduler

    made = []
    for library in (lr_scheduler, torch.optim.lr_scheduler):
        kind = library.LambdaLR
        monkeypatch.setattr(
            library, "LambdaLR", lambda *given, kind=kind: made.append(kind) or kind(*given)
        )
        made.append(kind)
    ours, theirs, *_ = contenders(cases()["sgd"])
    model = parameters(WORKLOADS["mlp"])
    for contender in (ours, theirs):
        contender.step_of(contender.make(model), model, scheduled=True)
    assert made[:2] == made[2:]


def test_backward_leaves_gradients_where_the_loss_depends_on_the_parameters():
    model = parameters(WORKLOADS["mlp"])
    before = [one.grad.clone() for one in model]
    backward = Backward(model)
    backward([0, 3])
    assert [i for i, one in enumerate(model) if one.grad is not None] == [0, 3]
    backward()
    assert all(map(torch.equal, before, [one.grad for one in model]))


@pytest.mark.parametrize("name", ["descend", "torch default", "torch foreach", "torch fused"])
def test_what_people_run_is_a_step_and_a_schedules_with_another_lr_every_time(name):
    (contender,) = [one for one in contenders(cases()["adamw-clip"]) if one.name == name]
    model = parameters(WORKLOADS["mlp"])
    optimizer = contender.make(model)
    run = contender.step_of(optimizer, model, scheduled=True)
    before = [one.detach().clone() for one in model]
    lrs = [optimizer.param_groups[0]["lr"]]
    for _ in range(3):
        run()
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs == pytest.approx([1e-3 * falling(step) for step in range(4)])
    assert len(set(lrs)) == 4
    assert not any(map(torch.equal, before, model))


@pytest.mark.parametrize(
    ("name", "tensors", "count"),
    [
        ("mlp", 6, 5_670),
        ("convnet", 450, 2_496_000),
        ("transformer", 160, 12_626_688),
        ("wide", 3, 42_000_384),
    ],
)
def test_the_workloads_have_the_promised_sizes(name, tensors, count):
    assert (WORKLOADS[name].tensors, WORKLOADS[name].parameters) == (tensors, count)
    assert WORKLOADS[name].nbytes == 4 * count


def test_parameters_have_their_shapes_and_gradients_far_from_zero():
    workload = WORKLOADS["transformer"]
    model = parameters(workload)
    assert [tuple(one.shape) for one in model] == list(workload.shapes)
    for one in model:
        assert one.is_leaf
        assert one.is_contiguous()
        assert 0.5 <= one.grad.abs().min() <= one.grad.abs().max() <= 1.5
        assert one.grad.view(-1)[0] > 0 > one.grad.view(-1)[1]


def test_the_real_catalogue_is_measured_but_for_what_is_said_not_to_be():
    assert set(cases()) == set(CATALOGUE) - set(UNMEASURED) | {"sgd-momentum", "adamw-clip"}
    assert set(UNMEASURED) <= set(CATALOGUE)
    assert set(SHORT) <= set(cases())


def test_torch_has_no_fused_form_of_seven():
    unfused = [
        case.name
        for case in cases().values()
        if case.elementwise and not {"torch fused"} & {one.name for one in contenders(case)}
    ]
    assert sorted(name for name in unfused if hasattr(torch.optim, CATALOGUE[name].__name__)) == [
        "adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "rprop"
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(PACKAGES) & set(CATALOGUE)))
def test_what_is_published_takes_the_steps_that_descend_takes(name):
    pytest.importorskip(PACKAGES[name][0])
    case = cases()[name]
    ours, theirs = contenders(case)
    assert theirs.name == "published"
    # The package of SOAP leaves out the first step of vectors, as of matrices.
    shapes = [one for one in SMALL.shapes if len(one) > 1 or name != "soap"]
    models = [parameters(replace(SMALL, shapes=tuple(shapes))) for _ in range(2)]
    starts = [one.detach().clone() for one in models[0]]
    for contender, model in zip((ours, theirs), models, strict=True):
        step = contender.step_of(contender.make(model), model, scheduled=True)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            for one in model:  # schedulefree divides gradients where they are
                one.grad = torch.randn(one.shape, generator=generator)
            step()
    for one, other, start in zip(*models, starts, strict=True):
        # Roundings and where eps is added differ; a kind of step of its own would by far more.
        assert not torch.equal(one, start)
        torch.testing.assert_close(one - start, other - start, rtol=0.02, atol=2e-7)


def test_a_package_is_imported_only_where_it_is_measured(monkeypatch):
    monkeypatch.setattr(packages, "import_module", lambda name: pytest.fail(f"import of {name}"))
    monkeypatch.setattr(packages, "find_spec", lambda _: "there")
    assert [one.name for one in contenders(cases()["lion"])] == ["descend", "published"]


def test_what_steps_only_while_it_trains_is_told_to(monkeypatch):
    class Free(torch.optim.SGD):
        trains = False

        def train(self):
            self.trains = True

    monkeypatch.setattr(packages, "PACKAGES", {"lion": ("free", "Free", {"momentum": 0.5})})
    monkeypatch.setattr(packages, "import_module", lambda _: SimpleNamespace(Free=Free))
    made = packages.make("lion", parameters(SMALL), lr=0.25)
    assert made.trains
    assert (made.defaults["lr"], made.defaults["momentum"]) == (0.25, 0.5)


def test_adafactor_is_measured_and_not_elementwise():
    assert not cases()["adafactor"].elementwise
    names = [contender.name for contender in contenders(cases()["adafactor"])]
    assert names == ["descend", "torch default", "torch foreach"]


def test_a_rule_of_the_users_own_stands_beside_adamw(own_rule):
    case = find_case(f"{own_rule}:MyRule")
    assert (case.name, case.own, case.elementwise) == (f"{own_rule}:MyRule", True, True)
    ours, scale = contenders(case)
    assert (ours.name, scale.name) == ("descend", SCALE)
    model = [torch.nn.Parameter(torch.ones(2))]
    assert type(ours.make(model)).__name__ == "MyRule"
    assert isinstance(scale.make(model), torch.optim.AdamW)
    assert scale.make(model).defaults["fused"] is True


def test_a_rule_without_lr_has_no_schedule(own_rule):
    text = own_rule.read_text().replace("lr: LearningRate = 1e-3", "").replace('{"lr": lr}', "{}")
    own_rule.write_text(text.replace('options["lr"]', "1e-3"))
    ours = contenders(find_case(f"{own_rule}:MyRule"))[0]
    model = parameters(WORKLOADS["mlp"])
    optimizer = ours.make(model)
    assert ours.step_of(optimizer, model, scheduled=True) == optimizer.step
    optimizer.step()


def test_no_case_and_no_file_is_refused():
    with pytest.raises(OptimizerFileError, match=r"^adamm is not a Python file"):
        find_case("adamm")
