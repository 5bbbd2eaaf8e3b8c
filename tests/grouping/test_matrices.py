"""Groups for optimizers of matrices: which parameter is whose."""

import pytest
import torch
from torch import nn

import descend
from descend.errors import ParameterError

from .test_grouping import MLP, ConvNet, Custom, LanguageModel


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 6)
        self.head = nn.Linear(6, 9)


class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6))


def hidden(model, **options):
    """The names of the hidden matrices; each parameter is in exactly one group."""
    groups = descend.param_groups_matrices(model, **options)
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert all(group["params"] for group in groups)
    return [name for group in groups if "adamw" not in group for name, _ in group["params"]]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (MLP(), ["fc1.weight", "fc2.weight"]),
        (ConvNet(), ["conv.weight", "layer1.0.0.weight", "layer1.1.0.weight", "layer2.0.0.weight"]),
        (Recurrent(), ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]),
        (nn.LSTM(4, 6), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.Linear(4, 2), []),
        (nn.Sequential(nn.Linear(4, 2)), []),
        # a column as the output layer is that all the same, and one inside is no matrix
        (nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)), ["0.weight"]),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(1, 4), nn.Linear(4, 4)),
         ["0.weight"]),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3)), ["0.weight"]),
        (Custom(), ["weight", "biased", "attention.in_proj_weight"]),
    ],
)  # fmt: skip
def test_hidden_matrices_are_told_by_structure(model, expected):
    assert hidden(model) == expected


def test_a_tied_output_layer_and_a_table_of_positions_are_adamws():
    names = hidden(LanguageModel())
    assert len(names) == 3 * 4
    assert all(name.startswith("encoder.layers.") and "norm" not in name for name in names)


def test_selectors_say_what_the_rule_cannot_see():
    assert hidden(HeadFirst()) == ["head.weight", "body.0.weight"]
    options = {"matrices": "body.*.weight", "others": "head.*"}
    assert hidden(HeadFirst(), **options) == ["body.0.weight", "body.1.weight"]
    assert hidden(HeadFirst(), others=nn.Linear) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"matrices": "tail.*"}, r"matrices \('tail.*'\) picks no parameter"),
        ({"others": "tail.*"}, "picks no parameter"),
        ({"matrices": "head.*"}, r"matrices picks 'head.bias', but it has the shape \(3,\)"),
        ({"matrices": "head.weight", "others": "head.*"}, "'head.weight', but `others` picks it"),
    ],
)
def test_selectors_that_cannot_be_are_refused(options, told):
    with pytest.raises(ParameterError, match=f"^param_groups_matrices: .*{told}"):
        descend.param_groups_matrices(HeadFirst(), **options)


def test_groups_of_other_builders_are_split():
    model = MLP()
    groups = descend.param_groups_matrices(
        model, groups=descend.param_groups_weight_decay(model, 0.1)
    )
    shown = [
        (group["weight_decay"], "adamw" in group, [name for name, _ in group["params"]])
        for group in groups
    ]
    assert shown[0] == (0.1, False, ["fc1.weight", "fc2.weight"])
    assert shown[1] == (0.1, True, ["fc3.weight"])
    assert shown[2][:2] == (0.0, True)


def test_muon_takes_the_groups():
    torch.manual_seed(0)
    model = MLP()
    optimizer = descend.Muon(descend.param_groups_matrices(model), lr=0.02)
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    kinds = {
        name: "momentum_buffer" in optimizer.state[param]
        for name, param in model.named_parameters()
    }
    assert [name for name, muon in kinds.items() if muon] == ["fc1.weight", "fc2.weight"]
    assert not kinds["fc3.weight"]
