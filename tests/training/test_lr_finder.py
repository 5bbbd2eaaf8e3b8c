"""`descend.lr_find`: what it finds, and that it leaves everything as it was."""

import copy
import math
import os
import random
import signal
import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy as entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import descend
from checkpoint.bits import assert_same
from descend.errors import OutputError, TrainerError, TrainerWarning
from descend.training import RangeTest
from descend.training.range_test import ShortRun

GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(240, 4, generator=GENERATOR)
Y = (X.sum(1) > 0).long()
SHORT = {"num_training": 40, "min_lr": 1e-5}


class Noisy(Dataset):
    """Noise from all global generators, and from three of its own."""

    def __init__(self):
        self.own = torch.Generator().manual_seed(5), np.random.default_rng(6), random.Random(7)

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        own, numpy, python = self.own
        drawn = torch.randn(4) + torch.randn(4, generator=own) + numpy.normal() + python.random()
        return (X[index] + 0.1 * (drawn + np.random.rand() + random.random())).float(), Y[index]


class Network(nn.Module):
    """Dropout, the statistics of BatchNorm, a generator and a counter of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)
        )
        self.own = torch.Generator().manual_seed(8)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layers(x + 0.01 * torch.randn(4, generator=self.own))


def adamw(parameters, lr):
    return descend.AdamW(parameters, lr=lr)


def sgd(parameters, lr):
    return descend.SGD(parameters, lr=lr)


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def loader(data=None, batch_size=12, **options):
    data = TensorDataset(X, Y) if data is None else data
    return DataLoader(data, batch_size, **{"shuffle": True, **options})


class Training:
    """A training under way, and everything that a finder could disturb in it."""

    def __init__(self, folder, **options):
        torch.manual_seed(0)
        self.folder, self.data = folder, Noisy()
        self.loader = loader(self.data, generator=torch.Generator().manual_seed(3), **options)
        self.model, self.loss = Network(), nn.CrossEntropyLoss(weight=torch.ones(2))
        self.model.layers[1].eval()
        self.model.layers[0].bias.requires_grad_(False)
        learning = [one for one in self.model.parameters() if one.requires_grad]
        self.optimizer = descend.AdamW(learning, lr=0.01)
        self.scheduler = descend.lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=50)
        self.hook = self.model.layers[0].register_forward_hook(lambda *_: None)
        self.model.layers[4].weight.register_hook(lambda gradient: gradient)
        self.reading = iter(self.loader)
        for _ in range(3):
            x, y = next(self.reading)
            self.loss(self.model(x), y).backward()
            self.optimizer.step()
            self.scheduler.step()
        (folder / "notes.txt").write_text("as it was")

    def everything(self):
        modules = dict(self.model.named_modules())
        parameters = dict(self.model.named_parameters())
        return {
            "model": copy.deepcopy(self.model.state_dict()),
            "gradients": {n: copy.deepcopy(p.grad) for n, p in parameters.items()},
            "gradients' places": {n: id(p.grad) for n, p in parameters.items()},
            "places": {n: (id(p), p.data_ptr(), p._version) for n, p in parameters.items()},
            "frozen": {n: p.requires_grad for n, p in parameters.items()},
            "modes": {n: m.training for n, m in modules.items()},
            "hooks": {n: str((m._forward_hooks, m._forward_pre_hooks)) for n, m in modules.items()},
            "hooks of tensors": {n: str(p._backward_hooks) for n, p in parameters.items()},
            "calls": self.model.calls,
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "scheduler": copy.deepcopy(self.scheduler.state_dict()),
            "generators": [random.getstate(), np.random.get_state(legacy=False),
                           torch.get_rng_state(), self.model.own.get_state(),
                           self.loader.generator.get_state(), self.data.own[0].get_state(),
                           self.data.own[1].bit_generator.state, self.data.own[2].getstate()],
            "grad mode": torch.is_grad_enabled(),
            "files": {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()},
            "threads": torch.get_num_threads(),
            "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        }  # fmt: skip

    def goes_on(self):
        """What the rest of the epoch and the next one would give."""
        return [[one.clone() for one in batch] for _ in range(2) for batch in
                (self.reading if _ == 0 else self.loader)]  # fmt: skip

    def find(self, **options):
        return descend.lr_find(
            self.model, self.loader, self.loss,
            lambda parameters, lr: descend.AdamW(
                [one for one in parameters if one.requires_grad], lr=lr),
            **{**SHORT, **options},
        )  # fmt: skip


def interrupt(step):
    """A progress that presses Ctrl-C in a step."""

    def on_step(text, done, total):
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step


def fail(step):
    def on_step(text, done, total):
        if done == step:
            raise ZeroDivisionError

    return on_step


ENDINGS = {
    "through": (None, None),
    "an error at first": (fail(1), ZeroDivisionError),
    "an error in the second order": (fail(55), ZeroDivisionError),
    "an error in a short run": (fail(175), ZeroDivisionError),
    "Ctrl-C": (interrupt(60), KeyboardInterrupt),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("workers", [0, 1])
def test_h2_p60_everything_is_bit_identical_afterwards(tmp_path, monkeypatch, ending, workers):
    monkeypatch.chdir(tmp_path)
    on_step, error = ENDINGS[ending]
    training, undisturbed = Training(tmp_path, num_workers=workers), Training(tmp_path)
    before = training.everything()
    if error is None:
        assert 1e-5 < training.find().suggestion() < 1
    else:
        with pytest.raises(error):
            training.find(on_step=on_step)
    assert_same(training.everything(), before)
    if workers == 0:  # where the batches follow from the generators alone
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        batches = training.goes_on()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        assert_same(undisturbed.goes_on(), batches)


def test_p60_an_error_in_model_loss_or_data_leaves_all_whole(tmp_path):
    class Breaks(Noisy):
        def __getitem__(self, index):
            if index == 77:
                raise LookupError("no sample 77")
            return super().__getitem__(index)

    training = Training(tmp_path)
    before = training.everything()
    training.loader = loader(Breaks(), generator=training.loader.generator)
    with pytest.raises(LookupError):
        training.find()
    assert_same(training.everything(), before)


def test_p61_a_range_over_three_orders_confirmed_by_short_runs():
    found = descend.lr_find(plain(), loader(), entropy, adamw)
    assert len(found.sweeps) == 3
    assert len({tuple(sweep) for sweep in found.sweeps}) == 3
    low, high = found.range
    assert low < found.suggestion() < high
    assert high / low > 3
    tried = [run.lr for run in found.tried]
    steepest = found.suggestion("steepest")
    assert tried == pytest.approx([steepest / 3, steepest, steepest * 3])
    assert found.suggestion() in tried
    assert found.notes == []
    for word in ("lr ", "between", "steepest descent", "valley", "short runs"):
        assert word in str(found)


def test_p61_ten_batches_are_enough():
    found = descend.lr_find(plain(), loader(batch_size=24), entropy, adamw)
    assert found.range[0] < found.suggestion() < found.range[1]


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [(adamw, 1e-3, 0.3), (sgd, 0.03, 9), (lambda p, lr: descend.Lion(p, lr=lr), 1e-4, 0.1)],
)
def test_a_training_at_the_suggestion_learns(make, low, high):
    model = plain()
    lr = descend.lr_find(model, loader(), entropy, make).suggestion()
    assert low < lr < high
    optimizer = make(list(model.parameters()), lr)
    for _ in range(5):
        for x, y in loader():
            optimizer.zero_grad()
            loss = entropy(model(x), y)
            loss.backward()
            optimizer.step()
    assert entropy(model(X), Y) < 0.35


def test_the_same_comes_out_again_whatever_the_generators_and_the_workers_are():
    model = Network()
    first = descend.lr_find(model, loader(Noisy()), entropy, adamw, **SHORT)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    again = descend.lr_find(model, loader(Noisy()), entropy, adamw, **SHORT)
    workers = descend.lr_find(model, loader(Noisy(), num_workers=2), entropy, adamw, **SHORT)
    other = descend.lr_find(model, loader(Noisy()), entropy, adamw, seed=1, **SHORT)
    assert first == again == workers
    assert first != other


def lrs_seen(make, model=None, **options):
    """The learning rates of the groups in each step of the first sweep."""
    seen = []

    def recording(parameters, lr):
        optimizer = make(parameters, lr)
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: seen.append([
                [float(group[name]) for name in ("lr", "adamw_lr") if group.get(name) is not None]
                for group in optimizer.param_groups
            ])
        )  # fmt: skip
        return optimizer

    found = descend.lr_find(model or plain(), loader(), entropy, recording, **{**SHORT, **options})
    return found, seen[: len(found.sweeps[0])]


def test_ratios_of_groups_are_kept():
    def make(parameters, lr):
        return descend.SGD([
            {"params": parameters[:2], "lr": 0.1 * lr},
            {"params": parameters[2:3]},
            {"params": parameters[3:], "lr": torch.tensor(4 * lr)},
        ], lr=lr)  # fmt: skip

    found, seen = lrs_seen(make)
    assert len(seen) > 20
    for lr, groups in zip(found.lrs, seen, strict=False):
        assert [one for (one,) in groups] == pytest.approx([0.1 * lr, lr, 4 * lr])


@pytest.mark.parametrize("second", [None, 0.02])
def test_muons_matrices_and_its_adamw_move_together(second):
    def make(parameters, lr):
        return descend.Muon(parameters, lr=lr, adamw_lr=None if second is None else second * lr)

    found, seen = lrs_seen(make)
    for lr, ((first, *rest),) in zip(found.lrs, seen, strict=False):
        assert first == pytest.approx(lr)
        assert rest == ([] if second is None else [pytest.approx(second * lr)])


def test_a_rate_that_does_not_follow_lr_stays():
    def make(parameters, lr):
        return descend.SGD([{"params": parameters[:2], "lr": 1e-4}, {"params": parameters[2:]}], lr)

    found, seen = lrs_seen(make)
    assert {groups[0][0] for groups in seen} == {1e-4}
    assert seen[-1][1][0] == pytest.approx(found.lrs[len(seen) - 1])


def test_linear_rates():
    found, seen = lrs_seen(sgd, mode="linear", min_lr=0.01, max_lr=0.4)
    assert np.diff([groups[0][0] for groups in seen]) == pytest.approx(0.01)
    assert 0.01 <= found.suggestion() <= 0.4


@pytest.mark.parametrize(
    "make", [lambda p, lr: torch.optim.LBFGS(p, lr=lr), lambda p, lr: descend.LBFGS(p, lr=lr)]
)
def test_an_optimizer_that_asks_for_the_loss_several_times(make):
    calls = []

    def counting(outputs, targets):
        calls.append(1)
        return entropy(outputs, targets)

    found = descend.lr_find(plain(), loader(), counting, make, **SHORT)
    assert len(calls) > 2 * sum(map(len, found.sweeps))


def test_a_nan_ends_a_sweep():
    def loss(outputs, targets):
        value = entropy(outputs, targets)
        return value * (math.nan if outputs.abs().max() > 15 else 1)

    found = descend.lr_find(plain(), loader(), loss, adamw, **SHORT)
    assert all(math.isinf(sweep[-1]) for sweep in found.sweeps)
    assert all(len(sweep) < 40 for sweep in found.sweeps)
    assert np.isfinite(found.results["loss"]).all()
    assert 1e-5 < found.suggestion() < 1


def test_a_divergence_ends_a_sweep_and_a_threshold_of_none_lets_it_go_on():
    ended = descend.lr_find(plain(), loader(), entropy, sgd, max_lr=1e4, **SHORT)
    whole = descend.lr_find(
        plain(),
        loader(),
        entropy,
        sgd,
        max_lr=1e4,
        early_stop_threshold=None,
        **SHORT,
    )
    assert max(map(len, ended.sweeps)) < 40 == max(map(len, whole.sweeps))
    assert ended.suggestion() == pytest.approx(whole.suggestion(), rel=5)


def level(outputs, targets):
    return 0 * outputs.sum() + 2


def noise(outputs, targets):
    return 0 * outputs.sum() + 1 + 0.1 * torch.randn(())


@pytest.mark.parametrize("loss", [level, noise])
def test_a_loss_that_falls_nowhere_is_said_in_words(loss):
    found = descend.lr_find(plain(), loader(), loss, adamw)
    assert found.tried == ()
    for ask in (found.suggestion, lambda: found.range):
        with pytest.raises(TrainerError, match="the loss falls at no lr from 1e-07 to 10"):
            ask()
    assert str(found).startswith("no suggestion: the loss falls at no lr")
    assert found.plot().axes[0].get_xlabel() == "lr"


def test_a_loss_that_is_never_finite_is_said_in_words():
    found = descend.lr_find(plain(), loader(), lambda out, _: out.sum() * math.nan, adamw)
    with pytest.raises(TrainerError, match="the loss was no finite number"):
        found.suggestion()
    found.plot()


def test_losses_below_zero():
    found = descend.lr_find(plain(), loader(), lambda out, y: entropy(out, y) - 5, adamw, **SHORT)
    usual = descend.lr_find(plain(), loader(), entropy, adamw, **SHORT)
    assert found.suggestion() == pytest.approx(usual.suggestion(), rel=3)


def test_few_batches_are_warned_of():
    with pytest.warns(TrainerWarning, match="an epoch has 2 batches.*with at least 10"):
        found = descend.lr_find(plain(), loader(batch_size=120), entropy, adamw)
    assert len(found.notes) == 1
    assert found.notes[0] in str(found)
    assert 1e-4 < found.suggestion() < 1


def test_a_model_in_evaluation_mode_is_swept_in_training_mode():
    model, modes = plain(), []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    with torch.no_grad():
        descend.lr_find(model.eval(), loader(), entropy, adamw, **SHORT)
    assert set(modes) == {True}
    assert not model.training


def test_a_loss_with_a_state_is_copied():
    class Counting(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, outputs, targets):
            self.calls += 1
            return super().forward(outputs, targets)

    class Model(nn.Sequential):
        def own_loss(self, outputs, targets):
            self.last = outputs
            return entropy(outputs, targets) + 1e-4 * self[0].weight.square().sum()

    loss, model = Counting(), Model(*plain())
    descend.lr_find(plain(), loader(), loss, adamw, **SHORT)
    assert loss.calls == 0
    assert descend.lr_find(model, loader(), model.own_loss, adamw, **SHORT).suggestion() > 0
    assert not hasattr(model, "last")


def test_a_loss_that_holds_the_model_itself_is_refused():
    model = plain()
    before = copy.deepcopy(model.state_dict())

    def loss(outputs, targets):
        return entropy(outputs, targets) + model[0].weight.square().sum()

    with pytest.raises(TrainerError, match="the loss uses the model itself"):
        descend.lr_find(model, loader(), loss, adamw)
    assert all(one.grad is None and one._backward_hooks is None for one in model.parameters())
    assert_same(model.state_dict(), before)


def test_p60_a_generator_that_the_loss_draws_from_stands_where_it_stood():
    own, state = np.random.default_rng(5), np.random.default_rng(5).bit_generator.state

    def smoothed(outputs, targets):
        return entropy(outputs, targets, label_smoothing=0.1 * own.random())

    first = descend.lr_find(plain(), loader(), smoothed, adamw, **SHORT)
    assert own.bit_generator.state == state
    own.random()
    assert descend.lr_find(plain(), loader(), smoothed, adamw, **SHORT) == first


class Stream(IterableDataset):
    def __init__(self, shuffled=True):
        self.shuffled = shuffled

    def __iter__(self):
        order = torch.randperm(len(X)) if self.shuffled else range(len(X))
        return ((X[index], Y[index]) for index in order)


class Opened(Stream):
    def __init__(self, path):
        super().__init__()
        self.file = open(path)  # noqa: SIM115


def test_streams_are_read_as_copies(tmp_path):
    stream = DataLoader(Stream(), batch_size=12)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = descend.lr_find(plain(), stream, entropy, adamw, **SHORT)
    assert len({tuple(sweep) for sweep in found.sweeps}) == 3
    torch.set_rng_state(state)
    assert found == descend.lr_find(plain(), stream, entropy, adamw, **SHORT)
    batches = [(X[at : at + 12], Y[at : at + 12]) for at in range(0, 240, 12)]
    assert descend.lr_find(plain(), batches, entropy, adamw, **SHORT).suggestion() > 0
    (tmp_path / "lines").write_text("1")
    opened = Opened(tmp_path / "lines")
    with pytest.raises(TrainerError, match=r"DataLoader can only be read as a copy.*open files in"):
        descend.lr_find(plain(), DataLoader(opened, batch_size=12), entropy, adamw)
    opened.file.close()
    with pytest.raises(TrainerError, match="can only be read as a copy"):
        descend.lr_find(plain(), (batch for batch in batches), entropy, adamw)


def test_the_loader_of_a_run_stays_where_it_is():
    resumable = descend.ResumableLoader(loader())
    next(iter(resumable))
    assert descend.lr_find(plain(), resumable, entropy, adamw, **SHORT).suggestion() > 0
    assert resumable.position == 1


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.lock = threading.Lock()


ERRORS = {
    "min_lr must be": {"min_lr": 0},
    "max_lr must be": {"max_lr": "1"},
    "min_lr must be less than max_lr, got 0.1 and 0.1": {"min_lr": 0.1, "max_lr": 0.1},
    "num_training must be a whole number of at least 20": {"num_training": 10},
    "mode must be 'exponential' or 'linear', got 'log'": {"mode": "log"},
    "early_stop_threshold must be": {"early_stop_threshold": 1},
    "seed must be": {"seed": -1},
    "model must be a torch.nn.Module, and is a str": {"model": "a"},
    "loss must be a function": {"loss": 1},
    "make_optimizer must be a function": {"make_optimizer": sgd([torch.ones(1)], 1)},
    "makes the same lr, 0.001, whatever": {"make_optimizer": lambda p, lr: descend.AdamW(p)},
    "must be a multiple of lr, and that of group 0": {
        "make_optimizer": lambda p, lr: descend.AdamW(p, lr=lr + 1)
    },
    "must return an optimizer, and returned a NoneType": {"make_optimizer": lambda p, lr: None},
    "of the parameters that it is given": {
        "make_optimizer": lambda p, lr: sgd(plain().parameters(), lr)
    },
    "cannot be copied.*lock": {"model": Locked()},
    "the loader must give pairs": {"loader": loader(TensorDataset(X))},
    "the loss must return a tensor of one number": {"loss": lambda out, y: out},
    "the loss must return": {"loss": lambda out, y: out.detach().sum()},
}


@pytest.mark.parametrize("words", ERRORS)
def test_bad_inputs(words):
    given = {
        "model": plain(), "loader": loader(), "loss": entropy, "make_optimizer": adamw
    }  # fmt: skip
    with pytest.raises(TrainerError, match=words):
        descend.lr_find(**{**given, **ERRORS[words]})


def test_a_weight_that_a_hook_makes_does_not_stand_in_the_way():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Linear(4, 2))
    layer(X)
    assert descend.lr_find(layer, loader(), entropy, adamw, **SHORT).suggestion() > 0


def test_the_picture(tmp_path):
    found = descend.lr_find(plain(), loader(), entropy, adamw, **SHORT)
    figure = found.plot(path=tmp_path / "lr.png")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr", "loss")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"suggestion: {found.suggestion():.3g}" in labels
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert len(found.plot(suggest=False).legends[0].get_texts()) == 2
    with pytest.raises(OutputError, match="PNG or an SVG"):
        found.plot(path="lr.gif")


def test_a_steepest_descent_and_a_valley_by_hand():
    lrs = [10.0 ** (step / 10 - 6) for step in range(60)]
    losses = [2 - 1 / (1 + math.exp(40 - step)) if step < 52 else 4.0 for step in range(60)]
    found = RangeTest(lrs, [losses] * 3)
    assert found.suggestion("steepest") == pytest.approx(lrs[40], rel=0.3)
    assert found.range[0] < lrs[40] < found.range[1] < lrs[54]
    assert lrs[10] < found.suggestion("valley") < lrs[40]
    runs = [ShortRun(lrs[35], 1.5), ShortRun(lrs[40], 1.2), ShortRun(lrs[45], 1.199)]
    assert RangeTest(lrs, [losses] * 3, runs).suggestion() == lrs[40]  # as low, and smaller
    with pytest.raises(TrainerError, match="method must be"):
        found.suggestion("steep")


def test_progress_is_told():
    told = []
    descend.lr_find(
        plain(),
        loader(),
        entropy,
        adamw,
        on_step=lambda *it: told.append(it),
        **SHORT,
    )
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {total for _, _, total in told} == {240}
    assert told[0][0] == "order 1 of 3"
    assert told[-1][0].startswith("short run at lr")


def test_without_cuda_nothing_asks_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_rng_state", partial(pytest.fail, "asked for CUDA"))
    assert descend.lr_find(plain(), loader(), entropy, adamw, **SHORT).suggestion() > 0
