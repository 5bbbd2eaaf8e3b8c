"""Spaces: how they are read, what their names are of, and what Optuna is asked for."""

import pytest

from descend.errors import DescendError, SearchError
from descend.search.space import Space, read_space

TASK = {"width": 32, "dropout": 0.1, "kind": "relu"}


class Ask:
    """Stands for Optuna's trial: the lowest value, or the last choice."""

    def __init__(self):
        self.asked = {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return choices[-1]

    def suggest_int(self, name, low, high, step, log):
        self.asked[name] = (low, high, step, log)
        return low

    suggest_float = suggest_int


def asked(*texts, arguments=TASK, scheduled=True):
    space, ask = Space(read_space(*texts), arguments, scheduled), Ask()
    space.suggest(ask)
    return ask.asked


def test_each_form_is_read():
    texts = ["lr=log(1e-5, 1e-1) width=int(8,64)", "dropout=float(0,0.5,0.1)"]
    assert asked(*texts) == {
        "lr": (1e-5, 0.1, None, True),
        "width": (8, 64, 1, False),
        "dropout": (0.0, 0.5, 0.1, False),
    }
    assert asked("width=int(8,64,log) kind=choice(relu, gelu)") == {
        "width": (8, 64, 1, True),
        "kind": ("relu", "gelu"),
    }
    assert asked("width=log(8,64)") == {"width": (8, 64, 1, True)}  # whole numbers, as it is one
    assert asked("batch_size=int(8,64,8)") == {"batch_size": (8, 64, 8, False)}


def test_one_value_is_fixed_and_not_asked_for():
    space = Space(read_space("optimizer=sgd momentum=0.9 lr=log(1e-4,1) width=16"), TASK)
    assert [one.name for one in space.free] == ["lr"]
    options = space.options({"lr": 0.1})
    assert options["optimizer"] == "sgd"
    assert options["settings"] == {"momentum": 0.9}
    assert options["arguments"] == {"width": 16}


def test_a_hyperparameter_is_asked_for_only_where_the_optimizer_has_it():
    texts = "optimizer=choice(sgd,adamw) momentum=float(0,0.9) beta2=float(0.9,0.99)"
    assert list(asked(texts)) == ["optimizer", "beta2"]
    texts = "momentum=float(0,0.9) beta2=float(0.9,0.99) optimizer=choice(adamw,sgd)"
    assert list(asked(texts)) == ["optimizer", "momentum"]  # the optimizer is chosen first


def test_a_beta_stands_beside_the_optimizers_own_other_one():
    space = Space(read_space("beta1=float(0.8,0.95)"), {})
    assert space.options({"beta1": 0.85})["settings"] == {"betas": (0.85, 0.999)}


def test_the_defaults_are_those_of_a_training_without_a_search():
    texts = "lr=log(1e-4,1) width=int(8,64) dropout=float(0.2,0.5) warmup=float(0,0.2)"
    space = Space(read_space(texts, "optimizer=choice(lion,adamw) weight_decay=log(1e-4,1)"), TASK)
    assert space.defaults == {
        "optimizer": "adamw",
        "lr": 0.001,
        "width": 32,
        "warmup": 0.02,
        "weight_decay": 0.01,
    }  # fmt: skip - a dropout of 0.1 is not in the space


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widht=int(8,64)", "did you mean width?"),
        ("momentum=float(0,0.9)", "neither the task nor adamw has such a name"),
        ("warmup=float(0,0.8) decay=float(0,0.5)", "0.8 and 0.5 of the length"),
        ("warmup=float(0,2)", "a fraction of the length, must be"),
        ("lr=lg(1,2)", "did you mean log?"),
        ("lr=log(1e-3)", "two numbers, the least and the greatest"),
        ("lr=log(1,1e-3)", "the least must stand first"),
        ("lr=log(0,1)", "above 0"),
        ("lr=float(0,1)", "lr must be"),
        ("width=int(8,64.5)", "two whole numbers"),
        ("width=float(8,64)", "give width=int(8,64)"),
        ("width=int(8,64,100)", "the step must be above 0"),
        ("kind=choice(relu,relu)", "twice"),
        ("kind=choice(relu,)", "between the commas"),
        ("lr=log(1e-4,1e-1) lr=0.1", "given twice"),
        ("lr", "it must be NAME=VALUES"),
        ("lr=log(1e-4,1e-1", "it must be NAME=VALUES"),
        ("", "it is empty"),
        ("optimizer=choice(adamw,lio)", "did you mean lion?"),
        ("optimizer=sgd momentum=float(-1,0.9)", "momentum of sgd must be"),
        ("beta1=float(0.8,1)", "beta1 of adamw must be"),
    ],
)
def test_a_space_that_cannot_be_is_told_in_one_line(text, said):
    with pytest.raises(DescendError, match="--space") as caught:
        Space(read_space(text), TASK)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_of_two_things_is_refused():
    with pytest.raises(SearchError, match="an argument of the task and of sgd too"):
        Space(read_space("optimizer=sgd momentum=float(0,0.9)"), {"momentum": 0.1})


def test_the_parts_of_a_schedule_that_is_given_cannot_be_searched():
    with pytest.raises(SearchError, match="--schedule fixes the schedule"):
        Space(read_space("warmup=float(0,0.2)"), {}, scheduled=False)
