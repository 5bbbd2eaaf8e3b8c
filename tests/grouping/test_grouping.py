"""The builders of parameter groups: which parameter lands where, and that nothing is lost."""

import copy
import pickle
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import descend
from descend.errors import DescendError, HyperparameterError, ParameterError
from optimizers.cases import give_gradients


class MLP(nn.Module):
    """Without Sequential or ModuleList: its children are its layers."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm = nn.Linear(4, 5), nn.LayerNorm(5)
        self.fc2, self.fc3 = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.norm(self.fc1(x))))))


class ConvNet(nn.Module):
    """A stem, stages of blocks, a head: the shape of a ResNet."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(self._block(), self._block())
        self.layer2 = nn.Sequential(self._block())
        self.fc = nn.Linear(4, 2)

    @staticmethod
    def _block():
        return nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x):
        x = self.layer2(self.layer1(torch.relu(self.bn(self.conv(x)))))
        return self.fc(x.mean((2, 3)))


class LanguageModel(nn.Module):
    """Embeddings, a position table, encoder blocks, a final norm, a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 6, 8))
        self.embedding = nn.Embedding(11, 8)
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 3, nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, 11)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens) + self.position))


class ScaleNorm(nn.LayerNorm):
    """A norm of the user's own, with a scale of more dimensions than torch's."""

    def __init__(self):
        super().__init__(3)
        self.weight = nn.Parameter(torch.ones(3, 1, 1))


class Custom(nn.Module):
    """Bare parameters, odd shapes, odd names."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.gate = nn.Parameter(torch.ones(()))
        self.layer_scale = nn.Parameter(torch.ones(4))
        self.relative_position_bias_table = nn.Parameter(torch.ones(5, 2))
        self.biased = nn.Parameter(torch.ones(2, 2))
        self.norm = ScaleNorm()
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)


MODELS = {
    "mlp": MLP,
    "convnet": ConvNet,
    "language model": LanguageModel,
    "custom": Custom,
    "sequential": lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)),
}
BUILDERS = {
    "rules": lambda model: descend.param_groups(
        model, [("*.weight", {"lr": 0.5}), (lambda name, param: param.ndim > 0, {}), (..., {})]
    ),
    "weight decay": lambda model: descend.param_groups_weight_decay(model, 0.1),
    "layer decay": lambda model: descend.param_groups_layer_decay(model, 0.1, 0.5),
    "both": lambda model: descend.param_groups_layer_decay(
        model, 0.1, 0.5, groups=descend.param_groups_weight_decay(model, 0.1)
    ),
    "both, the other way round": lambda model: descend.param_groups_weight_decay(
        model, 0.1, groups=descend.param_groups_layer_decay(model, 0.1, 0.5)
    ),
    "all three": lambda model: descend.param_groups_layer_decay(
        model,
        0.1,
        0.5,
        groups=descend.param_groups_weight_decay(
            model, 0.1, groups=descend.param_groups(model, [("*.weight", {"lr": 1.0}), (..., {})])
        ),
    ),
}


def names(group):
    return [name for name, _ in group["params"]]


def by_name(groups, key):
    return {name: group[key] for group in groups for name in names(group)}


def assert_partition(model, groups):
    """Plain dicts that hold every parameter once, under its own name, in groups that hold some."""
    assert type(groups) is list
    assert all(type(group) is dict and type(group["params"]) is list for group in groups)
    assert all(group["params"] for group in groups)
    pairs = [pair for group in groups for pair in group["params"]]
    expected = list(model.named_parameters())
    assert sorted(name for name, _ in pairs) == sorted(name for name, _ in expected)
    assert {name: id(param) for name, param in pairs} == {n: id(p) for n, p in expected}


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_in_one_group_frozen_or_not(model, builder):
    model = MODELS[model]()
    groups = BUILDERS[builder](model)
    assert_partition(model, groups)
    shape = [(names(group), {k: v for k, v in group.items() if k != "params"}) for group in groups]
    for index, param in enumerate(model.parameters()):
        param.requires_grad_(index % 2 == 0)
    frozen = BUILDERS[builder](model)
    assert shape == [
        (names(group), {k: v for k, v in group.items() if k != "params"}) for group in frozen
    ]


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("model", MODELS)
def test_torch_takes_the_groups_as_descend_does(model, builder):
    """Named, printed, scheduled, stepped, saved: with the same result."""
    torch.manual_seed(0)
    mine = MODELS[model]()
    theirs = copy.deepcopy(mine)
    trained = []
    for network, library in ((mine, descend), (theirs, torch.optim)):
        optimizer = library.AdamW(BUILDERS[builder](network), lr=0.01)
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=2),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
            ],
            milestones=[2],
        )
        for seed in range(4):
            give_gradients(list(network.parameters()), seed)
            optimizer.step()
            schedule.step()
        trained.append((optimizer, schedule))
    (my_optimizer, my_schedule), (their_optimizer, their_schedule) = trained
    assert my_schedule.get_last_lr() == their_schedule.get_last_lr()
    for line in str(their_optimizer).splitlines():
        assert line in str(my_optimizer).splitlines()
    for my_group, their_group in zip(
        my_optimizer.param_groups, their_optimizer.param_groups, strict=True
    ):
        assert my_group["param_names"] == their_group["param_names"]
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    their_optimizer.load_state_dict(my_optimizer.state_dict())
    my_optimizer.load_state_dict(their_optimizer.state_dict())


PATTERNS = st.one_of(
    st.sampled_from(["*.weight", "*.bias", "*1*", "encoder.*", "layer?.0.*", "*norm*", "*"]),
    st.sampled_from([nn.Linear, nn.LayerNorm, nn.BatchNorm2d, nn.Embedding]),
    st.integers(0, 4).map(lambda n: lambda name, param: param.ndim == n),
    st.integers(0, 30).map(lambda n: lambda name, param: len(name) > n),
)


@given(
    st.sampled_from(sorted(MODELS)),
    st.lists(st.one_of(PATTERNS, st.lists(PATTERNS, min_size=1, max_size=3)), max_size=5),
    st.integers(0, 5),
)
def test_rules_partition_the_parameters_first_match_first(model, selectors, rest):
    """Whatever the rules: a partition in which everything is where its first match is, or a no."""
    model = MODELS[model]()
    rules = [(selector, {"at": index}) for index, selector in enumerate(selectors)]
    rules.insert(rest, (..., {"at": "rest"}))
    try:
        groups = descend.param_groups(model, rules)
    except ParameterError:
        # Only for a rule that has nothing: one of its selectors picks nothing at all, or the rules
        # before it have everything that it picks.
        claimed = [_claims(model, selector) for selector in selectors]
        ones = [one for selector in selectors for one in _several(selector)]
        assert any(not _one_claims(model, one) for one in ones) or any(
            ids <= set().union(*claimed[:index]) for index, ids in enumerate(claimed)
        )
        return
    assert_partition(model, groups)
    at = by_name(groups, "at")
    for name, param in model.named_parameters():
        first = [i for i, one in enumerate(selectors) if id(param) in _claims(model, one)]
        assert at[name] == (first[0] if first else "rest")


def _several(selector):
    return selector if isinstance(selector, list) else [selector]


def _claims(model, selector):
    return set().union(*(_one_claims(model, one) for one in _several(selector)))


def _expression(pattern):
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _one_claims(model, selector):
    """The definition of a selector, by walking the modules rather than the names."""
    claimed = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own, param in module.named_parameters(recurse=False):
            name = f"{prefix}.{own}" if prefix else own
            if isinstance(selector, str):
                hit = re.fullmatch(_expression(selector), name)
            elif isinstance(selector, type):
                hit = isinstance(module, selector)
            else:
                hit = selector(name, param)
            if hit:
                claimed.add(id(param))
    return claimed


def test_the_rest_may_stand_anywhere_and_be_nothing():
    model = MLP()
    first = descend.param_groups(model, [(..., {}), ("fc3.*", {"lr": 0.1})])
    last = descend.param_groups(model, [("fc3.*", {"lr": 0.1}), (..., {})])
    assert [names(group) for group in first] == [names(group) for group in reversed(last)]
    assert names(last[0]) == ["fc3.weight", "fc3.bias"]
    assert len(descend.param_groups(model, [(model, {}), (..., {})])) == 1


def test_a_list_of_selectors_and_an_iterator_make_one_group():
    model = MLP()
    (group, _) = descend.param_groups(
        model, [(["fc1.*", model.norm, model.fc3.bias, (model.fc3.weight,)], {}), (..., {})]
    )
    assert names(group) == [
        "fc1.weight", "fc1.bias", "norm.weight", "norm.bias", "fc3.weight", "fc3.bias",
    ]  # fmt: skip
    (group, _) = descend.param_groups(model, [(model.fc1.parameters(), {"lr": 1.0}), (..., {})])
    assert names(group) == ["fc1.weight", "fc1.bias"]


def test_a_tied_parameter_goes_by_any_of_its_names_and_is_there_once():
    model = LanguageModel()
    for selector in ("head.*", "embedding.*", model.head, nn.Embedding, nn.Linear):
        groups = descend.param_groups(model, [(selector, {"lr": 1.0}), (..., {"lr": 2.0})])
        assert_partition(model, groups)
        assert by_name(groups, "lr")["embedding.weight"] == 1.0
    with pytest.raises(ParameterError) as error:
        descend.param_groups(model, [(model.embedding, {}), (model.head, {}), (..., {})])
    assert str(error.value) == (
        "param_groups: parameter 'embedding.weight' is named by rule 0 and by rule 1; a parameter "
        "belongs to one group, so name it once"
    )


NOT_DECAYED = {
    "mlp": {"fc1.bias", "norm.weight", "norm.bias", "fc2.bias", "fc3.bias"},
    "convnet": {
        *("conv.bias", "bn.weight", "bn.bias", "fc.bias"),
        *("layer1.0.1.weight", "layer1.0.1.bias", "layer1.1.1.weight", "layer1.1.1.bias"),
        *("layer2.0.1.weight", "layer2.0.1.bias"),
    },
    "custom": {
        "gate", "layer_scale", "relative_position_bias_table", "norm.weight", "norm.bias",
        "attention.in_proj_bias", "attention.bias_k", "attention.bias_v",
        "attention.out_proj.bias",
    },
    "sequential": {"0.bias", "1.weight", "1.bias", "2.bias"},
}  # fmt: skip
NOT_DECAYED["language model"] = {
    name
    for name in dict(LanguageModel().named_parameters())
    if "norm" in name or name.endswith("bias")
}


@pytest.mark.parametrize("model", MODELS)
def test_no_decay_for_biases_and_norms(model):
    groups = descend.param_groups_weight_decay(MODELS[model](), 0.1)
    decay = by_name(groups, "weight_decay")
    assert {name for name, value in decay.items() if value == 0} == NOT_DECAYED[model]
    assert set(decay.values()) == {0.0, 0.1}


@pytest.mark.parametrize(
    "norm",
    [
        nn.LayerNorm(4),
        nn.RMSNorm(4),
        nn.GroupNorm(2, 4),
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4, affine=True),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm3d(4, affine=True),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_norm_of_torch_is_known_by_its_type(norm):
    for name, param in list(norm.named_parameters()):
        setattr(norm, name, nn.Parameter(param.detach().reshape(2, 2)))
    norm.weight_of_mine = nn.Parameter(torch.ones(2, 2))
    (group,) = descend.param_groups_weight_decay(norm, 0.1)
    assert group["weight_decay"] == 0


def test_what_else_is_not_decayed():
    model = LanguageModel()
    decay = by_name(
        descend.param_groups_weight_decay(model, 0.1, no_decay=[nn.Embedding, "position"]),
        "weight_decay",
    )
    assert {n for n, value in decay.items() if value == 0} == NOT_DECAYED["language model"] | {
        "embedding.weight",
        "position",
    }
    # The head's weight is the embedding's.
    decay = by_name(
        descend.param_groups_weight_decay(model, 0.1, no_decay="head.weight"), "weight_decay"
    )
    assert decay["embedding.weight"] == 0


def test_a_groups_own_weight_decay_goes_first():
    model = MLP()
    groups = descend.param_groups(
        model, [("fc3.*", {"weight_decay": 0.5, "lr": 1.0}), (..., {"betas": (0.8, 0.9)})]
    )
    before = copy.deepcopy(groups)
    split = descend.param_groups_weight_decay(model, 0.1, groups=groups)
    assert [(group["weight_decay"], names(group)) for group in split] == [
        (0.5, ["fc3.weight"]),
        (0.0, ["fc3.bias"]),
        (0.1, ["fc1.weight", "fc2.weight"]),
        (0.0, ["fc1.bias", "norm.weight", "norm.bias", "fc2.bias"]),
    ]
    assert [group.get("lr") for group in split] == [1.0, 1.0, None, None]
    assert [group.get("betas") for group in split] == [None, None, (0.8, 0.9), (0.8, 0.9)]
    assert str(groups) == str(before)


def test_groups_of_the_users_own_gain_their_names():
    """Unnamed tensors, a single tensor, an iterator; only some of the model."""
    model = MLP()
    groups = [{"params": model.fc1.weight, "lr": 1.0}, {"params": model.fc3.parameters()}]
    split = descend.param_groups_weight_decay(model, 0.1, groups=groups)
    assert [names(group) for group in split] == [["fc1.weight"], ["fc3.weight"], ["fc3.bias"]]


LAYERS = {
    "mlp": ["fc1 norm", "fc2", "fc3"],
    "convnet": ["conv bn", "layer1.0", "layer1.1", "layer2.0", "fc"],
    "language model": [
        "position embedding", "encoder.layers.0", "encoder.layers.1",
        "encoder.layers.2 encoder.norm head",
    ],
    "sequential": ["0 1", "2"],
    "custom": ["weight gate layer_scale relative biased", "norm", "attention"],
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_lr_decays_from_the_output_to_the_input(model):
    """A norm goes with the layer before it; a tied head has left only its bias at the output."""
    groups = descend.param_groups_layer_decay(MODELS[model](), 0.8, 0.5)
    layers = LAYERS[model]
    assert [group["lr"] for group in groups] == [
        0.8 * 0.5**distance for distance in reversed(range(len(layers)))
    ]
    for group, prefixes in zip(groups, layers, strict=True):
        assert all(name.startswith(tuple(prefixes.split())) for name in names(group))


SHARED = nn.Linear(2, 2)
LEAVES = st.sampled_from(
    [lambda: nn.Linear(2, 2), lambda: nn.LayerNorm(2), lambda: nn.Embedding(3, 2), lambda: SHARED]
).map(lambda make: make())
TREES = st.recursive(
    st.one_of(LEAVES, st.builds(nn.ReLU)),
    lambda inner: st.builds(
        lambda kind, children: kind(children),
        st.sampled_from(
            [
                nn.ModuleList,
                lambda children: nn.Sequential(*children),
                lambda children: nn.ModuleDict({f"m{i}": one for i, one in enumerate(children)}),
            ]
        ),
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


@given(st.builds(lambda a, b, c: nn.ModuleDict({"a": a, "b": b, "c": c}), LEAVES, TREES, TREES))
def test_any_tree_of_modules_gets_its_layers(model):
    """A partition; lr never falls from one registered parameter to the next, and ends at lr."""
    try:
        groups = descend.param_groups_layer_decay(model, 1.0, 0.5)
    except ParameterError as error:
        assert "only one layer" in str(error)  # noqa: PT017 - most trees are no error
        return
    assert_partition(model, groups)
    lr = by_name(groups, "lr")
    in_order = [lr[name] for name, _ in model.named_parameters()]
    assert in_order == sorted(in_order)
    assert sorted(set(in_order)) == [0.5**n for n in reversed(range(len(groups)))]
    assert len(groups) > 1


class Between(nn.Module):
    """Two stacks, something heavy and something light between them, stacks inside of blocks."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([self._block(), self._block()])
        self.down_norm = nn.LayerNorm(3)
        self.bridge = nn.Linear(3, 3)
        self.bridge_norm = nn.LayerNorm(3)
        self.up = nn.ModuleList([self._block(), nn.ReLU(), self._block()])
        self.final_norm = nn.LayerNorm(3)

    @staticmethod
    def _block():
        return nn.ModuleDict({"ffn": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))})


def test_what_stands_between_stacks_is_a_layer_if_it_has_a_matrix():
    groups = descend.param_groups_layer_decay(Between(), 1.0, 0.5)
    assert [sorted({name.split(".ffn")[0] for name in names(group)}) for group in groups] == [
        ["down.0"],
        ["down.1"],
        ["bridge.bias", "bridge.weight", "bridge_norm.bias", "bridge_norm.weight",
         "down_norm.bias", "down_norm.weight"],
        ["up.0"],
        ["final_norm.bias", "final_norm.weight", "up.2"],
    ]  # fmt: skip


def test_a_block_used_twice_is_one_layer():
    block = nn.Linear(3, 3)
    model = nn.Sequential(nn.Linear(3, 3), block, nn.Sequential(block), nn.Linear(3, 1))
    groups = descend.param_groups_layer_decay(model, 1.0, 0.5)
    assert by_name(groups, "lr") == {
        "0.weight": 0.25, "0.bias": 0.25, "1.weight": 0.5, "1.bias": 0.5,
        "3.weight": 1.0, "3.bias": 1.0,
    }  # fmt: skip


def test_layers_given_by_hand():
    model = LanguageModel()
    blocks = list(model.encoder.layers)
    for layers in (
        [
            ["position", "embedding.*"],
            *(f"encoder.layers.{i}.*" for i in range(3)),
            ["encoder.norm.*", "head.bias"],
        ],
        [[model.position, model.embedding], *blocks, ...],
    ):
        groups = descend.param_groups_layer_decay(model, 0.8, 0.5, layers=layers)
        assert_partition(model, groups)
        lr = by_name(groups, "lr")
        assert lr["position"] == lr["embedding.weight"] == 0.05
        assert lr["encoder.layers.0.linear1.weight"] == 0.1
        assert lr["encoder.layers.2.norm1.bias"] == 0.4
        assert lr["encoder.norm.weight"] == lr["head.bias"] == 0.8
    # A rest of nothing is no layer: the last block is then the output.
    mlp = MLP()
    layers = [[mlp.fc1, mlp.norm], mlp.fc2, mlp.fc3, ...]
    assert by_name(descend.param_groups_layer_decay(mlp, 1.0, 0.5, layers=layers), "lr") == by_name(
        descend.param_groups_layer_decay(mlp, 1.0, 0.5), "lr"
    )


@pytest.mark.parametrize("lr", [0.8, torch.tensor(0.8)])
def test_layer_decay_starts_from_a_groups_own_lr(lr):
    model = MLP()
    groups = descend.param_groups(model, [("*.bias", {"lr": lr}), (..., {})])
    split = descend.param_groups_layer_decay(model, 0.4, 0.5, groups=groups)
    assert [names(group)[0] for group in split] == [
        "fc1.bias", "fc2.bias", "fc3.bias", "fc1.weight", "fc2.weight", "fc3.weight",
    ]  # fmt: skip
    assert [float(group["lr"]) for group in split] == pytest.approx([0.2, 0.4, 0.8, 0.1, 0.2, 0.4])
    assert all(type(group["lr"]) is type(lr) for group in split[:3])


def test_no_two_groups_share_an_lr_tensor():
    """A schedule fills an lr tensor in place: a shared one would be decayed once for each group."""
    model = MLP()
    lr = torch.tensor(0.8)
    for groups in (
        descend.param_groups_layer_decay(model, lr, 0.5),
        descend.param_groups_weight_decay(
            model, 0.1, groups=[{"params": model.parameters(), "lr": lr}]
        ),
    ):
        tensors = [group["lr"] for group in groups]
        assert len({id(tensor) for tensor in (*tensors, lr)}) == len(tensors) + 1
        before = [tensor.item() for tensor in tensors]
        optimizer = descend.AdamW(groups)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        give_gradients(list(model.parameters()), 1)
        optimizer.step()
        schedule.step()
        after = [group["lr"].item() for group in optimizer.param_groups]
        assert after == pytest.approx([0.5 * value for value in before])


def test_groups_can_be_copied_and_pickled():
    groups = BUILDERS["all three"](LanguageModel())
    for copied in (copy.deepcopy(groups), pickle.loads(pickle.dumps(groups))):
        assert [names(group) for group in copied] == [names(group) for group in groups]


MODEL = MLP()
BAD = {
    "no parameters": (
        lambda: descend.param_groups_weight_decay(nn.ReLU(), 0.1),
        "param_groups_weight_decay: the model has no parameters",
    ),
    "a weight decay below 0": (
        lambda: descend.param_groups_weight_decay(MLP(), -1.0),
        "param_groups_weight_decay: weight_decay=-1.0 is not allowed: weight_decay must be a "
        "finite number of at least 0",
    ),
    "a group's weight decay below 0": (
        lambda: descend.param_groups_weight_decay(
            MODEL, 0.1, groups=[{"params": MODEL.parameters(), "weight_decay": -2.0}]
        ),
        "param_groups_weight_decay: weight_decay=-2.0 in a group is not allowed: weight_decay must "
        "be a finite number of at least 0",
    ),
    "nothing to spare": (
        lambda: descend.param_groups_weight_decay(MLP(), 0.1, no_decay=["fc1.*", "embed.*"]),
        "param_groups_weight_decay: no_decay ('embed.*') picks no parameter; the model has "
        "fc1.weight, fc1.bias, norm.weight, norm.bias, fc2.weight, ...",
    ),
    "no type in the model": (
        lambda: descend.param_groups_weight_decay(MLP(), 0.1, no_decay=nn.Embedding),
        "param_groups_weight_decay: no_decay (Embedding) picks no parameter; the model has "
        "fc1.weight, fc1.bias, norm.weight, norm.bias, fc2.weight, ...",
    ),
    "a type that is no module": (
        lambda: descend.param_groups_weight_decay(MLP(), 0.1, no_decay=int),
        "param_groups_weight_decay: no_decay must be a name pattern, a module, a module type, a "
        "tensor, a predicate, or a list of these; got <class 'int'>",
    ),
    "an empty list": (
        lambda: descend.param_groups_weight_decay(MLP(), 0.1, no_decay=[]),
        "param_groups_weight_decay: no_decay picks no parameter; the model has "
        "fc1.weight, fc1.bias, norm.weight, norm.bias, fc2.weight, ...",
    ),
    "one group instead of a list": (
        lambda: descend.param_groups_weight_decay(MODEL, 0.1, groups=descend.unfreeze(MODEL)),
        'param_groups_weight_decay: group 0 must be a dict with "params", as param_groups returns '
        "it, got 'params'",
    ),
    "groups of another model": (
        lambda: descend.param_groups_layer_decay(
            MLP(), 0.1, groups=descend.param_groups_weight_decay(MLP(), 0.1)
        ),
        "param_groups_layer_decay: group 0 holds a tensor of shape (5, 4) that is no parameter of "
        "the model; build the groups from the same model",
    ),
    "a module of another model": (
        lambda: descend.param_groups(MLP(), [(MLP().fc1, {}), (..., {})]),
        "param_groups: rule 0 holds a tensor of shape (5, 4) that is no parameter of the model",
    ),
    "an lr below 0": (
        lambda: descend.param_groups_layer_decay(MLP(), -1.0),
        "param_groups_layer_decay: lr=-1.0 is not allowed: lr must be a finite number of at least "
        "0, or a tensor of one such number; to climb the gradient, pass maximize=True",
    ),
    **{
        f"a decay of {decay}": (
            lambda decay=decay: descend.param_groups_layer_decay(MLP(), 0.1, decay),
            f"param_groups_layer_decay: decay={decay!r} is not allowed: decay must be a finite "
            "number above 0 and at most 1; it is the factor from one layer to the one before it",
        )
        for decay in (0.0, -0.5, 1.5, 75, float("nan"), "0.5", None, True)
    },
    "one layer": (
        lambda: descend.param_groups_layer_decay(nn.Linear(2, 2), 0.1),
        "param_groups_layer_decay: the model shows only one layer, so no lr would decay; give "
        "`layers`, from the input to the output",
    ),
    "a layer left out": (
        lambda: descend.param_groups_layer_decay(MLP(), 0.1, layers=["fc1.*", "norm.*", "fc2.*"]),
        "param_groups_layer_decay: parameter 'fc3.weight' is picked by no layer; add one, or `...` "
        "for the rest",
    ),
    "a layer given twice": (
        lambda: descend.param_groups_layer_decay(MLP(), 0.1, layers=["fc*", "fc3.*", ...]),
        "param_groups_layer_decay: layer 1 ('fc3.*') is left with no parameter: 'fc3.weight' "
        "already belongs to layer 0 ('fc*'); the first match wins, so put the narrower layer first",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calls_say_what_is_wrong(case):
    call, message = BAD[case]
    with pytest.raises(DescendError) as error:
        call()
    assert str(error.value) == message
    assert isinstance(error.value, (HyperparameterError, ParameterError))


def _trained(model, optimizer, seed, steps=2):
    """Whether each parameter has moved, after some steps on real gradients."""
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=False)
        model(torch.randn(5, 3, 6, 6)).square().sum().backward()
        optimizer.step()
    return {name for name, param in model.named_parameters() if not param.equal(before[name])}


LIBRARIES = pytest.mark.parametrize("library", [descend, torch.optim], ids=["descend", "torch"])


@LIBRARIES
def test_gradual_unfreezing_by_adding_groups(library):
    torch.manual_seed(0)
    model = ConvNet()
    everything = set(dict(model.named_parameters()))
    assert {name for name, _ in descend.freeze(model)} == everything
    assert not any(param.requires_grad for param in model.parameters())
    optimizer = library.AdamW([descend.unfreeze(model, "fc.*", lr=1e-2)])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    head = {"fc.weight", "fc.bias"}
    assert _trained(model, optimizer, 1) == head
    optimizer.add_param_group(descend.unfreeze(model, model.layer2, lr=1e-3, weight_decay=0.5))
    assert _trained(model, optimizer, 2) == head | {n for n in everything if "layer2" in n}
    group = descend.unfreeze(model, lambda name, param: not param.requires_grad, lr=1e-4)
    optimizer.add_param_group(group)
    assert _trained(model, optimizer, 3) == everything
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-3, 1e-4]
    assert optimizer.param_groups[1]["weight_decay"] == 0.5
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 5e-3


@LIBRARIES
def test_an_optimizer_may_hold_what_is_frozen(library):
    """Frozen, it stays in spite of momentum, decay and old gradients; unfrozen, it goes on."""
    torch.manual_seed(0)
    model = ConvNet()
    everything = set(dict(model.named_parameters()))
    optimizer = library.SGD(descend.param_groups_weight_decay(model, 0.1), lr=0.01, momentum=0.9)
    assert _trained(model, optimizer, 1) == everything
    frozen = {name for name, _ in descend.freeze(model, ["conv.*", nn.BatchNorm2d])}
    assert {"conv.weight", "bn.weight", "layer1.0.1.bias"} <= frozen
    assert _trained(model, optimizer, 2) == everything - frozen
    descend.unfreeze(model, ["conv.*", "bn.*"])
    assert _trained(model, optimizer, 3) == everything - frozen | {
        "conv.weight", "conv.bias", "bn.weight", "bn.bias",
    }  # fmt: skip


def test_freezing_leaves_the_statistics_of_batch_norms_to_eval():
    model = ConvNet()
    descend.freeze(model)
    before = model.bn.running_mean.clone()
    model(torch.randn(5, 3, 6, 6))
    assert not model.bn.running_mean.equal(before)
    model.bn.eval()
    before = model.bn.running_mean.clone()
    model(torch.randn(5, 3, 6, 6))
    assert model.bn.running_mean.equal(before)


@pytest.mark.parametrize("function", [descend.freeze, descend.unfreeze])
def test_freezing_nothing_is_an_error_and_changes_nothing(function):
    model = MLP()
    model.fc2.requires_grad_(False)
    before = [param.requires_grad for param in model.parameters()]
    for selector in ("fc9.*", [], ["fc1.*", "fc9.*"], ["fc2.*", torch.ones(2)], 7):
        with pytest.raises(ParameterError, match=f"^{function.__name__}: the selector "):
            function(model, selector)
    with pytest.raises(ParameterError, match=f"^{function.__name__}: the model has no parameters"):
        function(nn.ReLU())
    assert [param.requires_grad for param in model.parameters()] == before


def test_unfreezing_integers_is_an_error_and_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 2), nn.Module())
    model[1].quantized = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
    descend.freeze(model)
    with pytest.raises(ParameterError) as error:
        descend.unfreeze(model)
    assert str(error.value) == (
        "unfreeze: parameter '1.quantized' is of dtype torch.int8 and can have no gradient; leave "
        "it out of the selector"
    )
    assert not model[0].weight.requires_grad
    assert names(descend.unfreeze(model, "0.*")) == ["0.weight", "0.bias"]
