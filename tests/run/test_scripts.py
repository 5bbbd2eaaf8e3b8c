"""Loops as people write them, for whatever they train: each goes on bit for bit."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

import descend
from children import python
from descend.checkpoint import load, restore
from descend.errors import DescendError, ResumeWarning, RunError
from descend.schedules import cosine, warmup
from run.small import (
    STEPS,
    Parts,
    X,
    Y,
    assert_exact,
    end_of,
    loader,
    log_of,
    mse,
    plain_parts,
    process,
    surroundings,  # noqa: F401
)


def small_network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 1))


def momentum(model):
    return descend.SGD(model.parameters(), lr=0.05, momentum=0.9)


def usual_body(model, optimizer):
    def body(run, batch):
        optimizer.zero_grad()
        loss = mse(model, *batch)
        loss.backward()
        optimizer.step()
        run.log(loss=loss)

    return body


# What is trained


class Language(nn.Module):
    """A transformer with dropout, a causal mask, and the embedding as its last layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.body(self.embedding(tokens), mask=mask, is_causal=True))


def test_p44_a_transformer_with_dropout_tied_weights_and_a_warmup():
    tokens = torch.randint(0, 9, (14, 6), generator=torch.Generator().manual_seed(1))

    def make():
        torch.manual_seed(0)
        model = Language()
        optimizer = descend.AdamW(
            descend.param_groups_weight_decay(model, 0.1), lr=1e-2, clip_norm=1.0
        )
        schedule = descend.Scheduler(optimizer, lr=warmup(3) >> cosine(5))

        def body(run, batch):
            (text,) = batch
            loss = cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            run.log(loss=loss, lr=optimizer.param_groups[0]["lr"])

        objects = {"model": model, "optimizer": optimizer, "schedule": schedule}
        return Parts(objects, body, loader=DataLoader(TensorDataset(tokens), 4, shuffle=True))

    assert_exact(make, stride=2)


class Normed(nn.Module):
    """Spectral norms of both kinds, weight norm, orthogonality, and buffers of all kinds."""

    def __init__(self):
        super().__init__()
        self.spectral = parametrizations.spectral_norm(nn.Linear(3, 4))
        self.batch = nn.BatchNorm1d(4)
        self.weight = parametrizations.weight_norm(nn.Linear(4, 4))
        self.orthogonal = parametrizations.orthogonal(nn.Linear(4, 4))
        self.old = nn.utils.spectral_norm(nn.Linear(4, 1))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("unsaved", torch.ones(4), persistent=False)

    def forward(self, x):
        self.calls += self.training
        hidden = self.weight(torch.relu(self.batch(self.spectral(x))))
        return self.old(torch.relu(self.orthogonal(hidden * self.unsaved)))


def test_p44_parametrizations_norms_and_buffers():
    def make():
        torch.manual_seed(0)
        model = Normed()
        optimizer = descend.AdamW(model.parameters(), lr=1e-2)
        return Parts({"model": model, "optimizer": optimizer}, usual_body(model, optimizer))

    assert_exact(make, stride=2)


class Counted(nn.Linear):
    """Keeps a number and a tensor that are neither parameters nor buffers."""

    def __init__(self):
        super().__init__(3, 1)
        self.calls, self.mean = 0, torch.zeros(())

    def get_extra_state(self):
        return {"calls": self.calls, "mean": self.mean}

    def set_extra_state(self, state):
        self.calls, self.mean = state["calls"], state["mean"]

    def forward(self, x):
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean()
        return super().forward(x - self.mean) / self.calls


def test_p44_the_extra_state_of_a_module():
    def make():
        torch.manual_seed(0)
        model = Counted()
        optimizer = momentum(model)
        return Parts({"model": model, "optimizer": optimizer}, usual_body(model, optimizer))

    assert_exact(make)


def test_p44_an_ensemble_in_one_loop_with_bootstrapped_batches():
    def make():
        torch.manual_seed(0)
        models = [nn.Linear(3, 1) for _ in range(3)]
        optimizers = [momentum(model) for model in models]

        def body(run, batch):
            losses = {}
            for number, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
                rows = torch.randint(0, len(batch[0]), (len(batch[0]),))
                loss = mse(model, batch[0][rows], batch[1][rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[f"loss/{number}"] = loss
            run.log(**losses)

        objects = {f"model{number}": model for number, model in enumerate(models)}
        objects |= {f"optimizer{number}": one for number, one in enumerate(optimizers)}
        return Parts(objects, body)

    assert_exact(make)


class Sharpness(torch.optim.Optimizer):
    """SAM: a step uphill, a second backward pass there, and a step of another optimizer's."""

    def __init__(self, params, base, **options):
        super().__init__(params, options)
        self.base = base(self.param_groups, **options)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def climb(self):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["before"] = parameter.clone()
            parameter.add_(parameter.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.copy_(self.state[parameter]["before"])
        self.base.step()
        self.zero_grad()

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.base.param_groups = self.param_groups


def test_p44_two_backward_passes_for_a_step_and_an_optimizer_in_another():
    def make():
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = Sharpness(model.parameters(), descend.SGD, lr=0.05, momentum=0.9)

        def body(run, batch):
            loss = mse(model, *batch)
            loss.backward()
            optimizer.climb()
            mse(model, *batch).backward()
            optimizer.step()
            run.log(loss=loss)

        return Parts({"model": model, "optimizer": optimizer, "base": optimizer.base}, body)

    assert_exact(make)


# Where the data is from


def test_p44_a_second_loader_that_never_ends():
    other = DataLoader(TensorDataset(X, Y), 6, shuffle=True)

    def endless(batches):
        while True:
            yield from batches

    def make():
        torch.manual_seed(0)
        model, head = nn.Linear(3, 4), nn.Linear(4, 1)
        optimizer = descend.Adam([*model.parameters(), *head.parameters()], lr=1e-2)
        second = descend.ResumableLoader(other, seed=1)
        labelled = endless(second)

        def body(run, batch):
            x, y = next(labelled)
            views = [normalize(model(batch[0] + 0.1 * torch.randn(3))) for _ in range(2)]
            contrast = cross_entropy(views[0] @ views[1].T, torch.arange(len(batch[0])))
            loss = contrast + (head(model(x)) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss, first=x[0, 0])

        objects = {"model": model, "head": head, "optimizer": optimizer, "second": second}
        return Parts(objects, body)

    assert_exact(make)


def test_p43_a_second_loader_in_zip_gives_all_of_each_epoch(tmp_path):
    second = descend.ResumableLoader(loader(), seed=1)
    run = descend.Run(tmp_path, loader=loader(), second=second, epochs=3)
    counts = [sum(1 for _ in zip(batches, second, strict=False)) for batches in run.epochs()]
    assert counts == [4, 4, 4]


def test_p43_batch_by_batch_without_a_loop():
    second = descend.ResumableLoader(loader(), seed=1)
    for _ in range(9):
        assert len(next(iter(second), ())) == 2


def test_p43_a_loop_that_counts_to_the_last_batch_itself():
    second = descend.ResumableLoader(loader(), seed=1)
    for _ in range(3):
        number = 0
        for number, _ in enumerate(second, 1):
            if number == 4:
                break
        assert number == 4


class Sentences(Dataset):
    """Of two to nine words."""

    def __init__(self):
        draw = np.random.RandomState(1)
        self.texts = [draw.randint(1, 9, draw.randint(2, 10)).tolist() for _ in range(14)]

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return torch.tensor(self.texts[index]), sum(self.texts[index]) % 2


class Buckets(Sampler):
    """Batches of texts that are about as long, in an order that it draws."""

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return 4

    def __iter__(self):
        mixed = torch.randperm(len(self.lengths)).tolist()
        mixed.sort(key=lambda index: self.lengths[index] // 4)
        batches = [mixed[start : start + 4] for start in range(0, len(mixed), 4)]
        np.random.shuffle(batches)
        yield from batches


def without_some_words(samples):
    kept = [text[(torch.rand(len(text)) > 0.1) | (text == text[0])] for text, _ in samples]
    lengths = torch.tensor([len(text) for text in kept])
    return pad_sequence(kept, batch_first=True), lengths, torch.tensor([y for _, y in samples])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_p43_texts_in_buckets_with_words_left_out_when_they_are_padded(workers):
    def make():
        torch.manual_seed(0)
        texts = Sentences()
        embedding = nn.Embedding(9, 4, padding_idx=0)
        reader, head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)
        model = nn.ModuleList([embedding, reader, head])
        optimizer = descend.NAdam(model.parameters(), lr=1e-2)

        def body(run, batch):
            text, lengths, labels = batch
            packed = pack_padded_sequence(
                embedding(text), lengths, batch_first=True, enforce_sorted=False
            )
            loss = cross_entropy(head(reader(packed)[1][0][-1]), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss, width=text.shape[1])

        batches = DataLoader(
            texts,
            batch_sampler=Buckets([len(text) for text in texts.texts]),
            collate_fn=without_some_words,
            num_workers=workers,
        )
        return Parts({"model": model, "optimizer": optimizer}, body, loader=batches)

    assert_exact(make, stride=1 if workers == 0 else 3)


noise = np.random.default_rng(0)


class NoisyFromTheScript(Dataset):
    """Draws from a generator that is a variable of the script."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index] + float(noise.normal()), Y[index]


def test_p43_a_generator_in_a_variable_of_the_script():
    def make():
        noise.bit_generator.state = np.random.default_rng().bit_generator.state  # not seeded
        parts = plain_parts()
        parts.loader = DataLoader(NoisyFromTheScript(), 4, shuffle=True)
        return parts

    assert_exact(make, stride=2)


@pytest.mark.parametrize(
    ("make_generator", "draw"),
    [
        (lambda: torch.Generator().manual_seed(5), lambda g: torch.rand(4, 3, generator=g)),
        (lambda: np.random.default_rng(5), lambda g: torch.tensor(g.random((4, 3))).float()),
        (lambda: np.random.RandomState(5), lambda g: torch.tensor(g.randn(4, 3)).float()),
        (lambda: random.Random(5), lambda g: torch.full((4, 3), g.gauss(0, 1))),
    ],
    ids=["torch", "NumPy", "NumPy's old one", "Python"],
)
def test_p43_a_generator_that_is_handed_over(make_generator, draw):
    def make():
        parts = plain_parts()
        generator, train = make_generator(), parts.body
        parts.objects["noise"] = generator

        def body(run, batch):
            train(run, (batch[0] + draw(generator)[: len(batch[0])], batch[1]))

        parts.body = body
        return parts

    assert_exact(make)


# When gradients come and go


@pytest.mark.parametrize("set_to_none", [True, False])
def test_p43_the_step_at_the_beginning_of_the_next_body(set_to_none):
    def make():
        parts = plain_parts()
        model, optimizer = parts.objects["model"], parts.objects["optimizer"]

        def body(run, batch):
            if run.step > 1:
                optimizer.step()
                optimizer.zero_grad(set_to_none=set_to_none)
            loss = mse(model, *batch)
            loss.backward()
            run.log(loss=loss)

        parts.body = body
        return parts

    assert_exact(make)


def test_p43_a_penalty_after_the_step_that_the_next_one_uses():
    def make():
        parts = plain_parts()
        train = parts.body

        def body(run, batch):
            train(run, batch)
            (0.1 * parts.objects["model"].weight.square().sum()).backward()

        parts.body = body
        return parts

    assert_exact(make)


class Wrapped(torch.optim.Optimizer):
    """An optimizer around another that never was made as one, as Accelerate has it."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict):
        self.optimizer.load_state_dict(state_dict)

    def step(self, closure=None):
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


def test_p43_an_optimizer_around_another_and_an_accumulation():
    def make():
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = Wrapped(momentum(model))

        def body(run, batch):
            loss = mse(model, *batch)
            loss.backward()
            if run.step % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()
            run.log(loss=loss)

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


def waiting(folder, body, **options):
    """The gradients in the newest checkpoint of a run of one step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = momentum(model)
    run = descend.Run(folder, model=model, optimizer=optimizer, loader=loader(14), **options)
    for batch in run:
        body(model, optimizer, batch)
    saved = load(folder)["run"]["gradients"]["optimizer"]
    return [None if one is None else one["values"] for one in saved], model


def test_gradients_left_over_from_a_step_are_not_written(tmp_path):
    def body(model, optimizer, batch):
        mse(model, *batch).backward()
        optimizer.step()

    found, model = waiting(tmp_path, body)
    assert model.weight.grad.any()
    assert found == [None, None]


def test_zeros_are_not_written(tmp_path):
    def body(model, optimizer, batch):
        mse(model, *batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    found, model = waiting(tmp_path, body)
    assert torch.equal(model.weight.grad, torch.zeros(1, 3))
    assert found == [None, None]


def test_gradients_that_one_of_two_losses_added_to_are_written(tmp_path):
    def body(model, optimizer, batch):
        mse(model, *batch).backward()
        optimizer.step()
        model.bias.sum().backward()

    found, model = waiting(tmp_path, body)
    assert found[0] is None
    assert torch.equal(found[1], model.bias.grad)


def test_the_sign_of_a_zero_is_written(tmp_path):
    def body(model, optimizer, batch):
        model.weight.grad, model.bias.grad = torch.full((1, 3), -0.0), torch.full((1,), 0.0)

    found, _ = waiting(tmp_path, body)
    assert found[0].signbit().all()
    assert found[1] is None


# What happens once on the way


def fine_tuning(unfreeze):
    """A body that is frozen, a head that is not, and a way to unfreeze the body."""

    def make():
        model = small_network(nn.ReLU())
        descend.freeze(model[0])
        optimizer = descend.SGD(
            descend.param_groups(model, [("0.*", {"lr": 1e-3}), (..., {"lr": 0.05})]), lr=0.05
        )
        train = usual_body(model, optimizer)

        def body(run, batch):
            unfreeze(run, model[0])
            train(run, batch)

        return Parts({"model": model, "optimizer": optimizer}, body)

    return make


def test_p44_layers_that_are_unfrozen_from_a_step_on():
    assert_exact(fine_tuning(lambda run, layer: run.step >= 4 and descend.unfreeze(layer)))


def test_p44_layers_that_are_unfrozen_at_a_step():
    assert_exact(fine_tuning(lambda run, layer: run.step == 4 and descend.unfreeze(layer)))


def test_p44_statistics_that_are_frozen_at_a_step():
    def make():
        model = small_network(nn.BatchNorm1d(4))
        optimizer = momentum(model)
        train = usual_body(model, optimizer)

        def body(run, batch):
            if run.step == 4:
                model[1].eval()
            train(run, batch)

        return Parts({"model": model, "optimizer": optimizer}, body)

    assert_exact(make)


def begun(folder, build, change=lambda model: None):
    """A run that changes its model in step 2 and dies in step 3; and what it goes on with."""

    def start(die):
        model = build()
        optimizer = momentum(model)
        options = {"loader": loader(), "every_steps": 1, "epochs": 2}
        run = descend.Run(folder, model=model, optimizer=optimizer, **options)
        for batch in run:
            if run.step == 2:
                change(model)
            if run.step == die:
                break
            usual_body(model, optimizer)(run, batch)
        return model

    return start


def test_modes_that_the_script_has_changed_since_stay_as_they_are_there(tmp_path):
    """Whoever edits the script means it: what it freezes now is not unfrozen behind its back."""

    def frozen():
        model = small_network(nn.Dropout(0.1))
        model[2].requires_grad_(False)
        return model

    def freeze_first(model):
        model[0].requires_grad_(False)

    begun(tmp_path, lambda: small_network(nn.Dropout(0.1)), freeze_first)(3)
    words = "not what it began with: model.2.bias is frozen, model.2.weight is frozen"
    with pytest.warns(ResumeWarning, match=words):
        model = begun(tmp_path, frozen)(4)
    assert [one.requires_grad for one in model.parameters()] == [True, True, False, False]
    model = begun(tmp_path, frozen)(5)  # and now it is what the run began with
    assert [one.requires_grad for one in model.parameters()] == [True, True, False, False]


def test_modes_that_the_script_puts_back_itself_are_no_change(tmp_path):
    def change(model):
        model[1].eval()
        model[0].bias.requires_grad_(False)

    def changed():
        model = small_network(nn.Dropout(0.1))
        change(model)
        return model

    begun(tmp_path, lambda: small_network(nn.Dropout(0.1)), change)(3)
    for build in (changed, lambda: small_network(nn.Dropout(0.1))):
        model = begun(tmp_path, build)(4)
        assert [one.requires_grad for one in model.parameters()] == [True, False, True, True]
        assert [one.training for one in model] == [True, False, True]


def test_a_signal_in_a_validation_saves_the_modes_of_the_training(tmp_path):
    model = small_network(nn.Dropout(0.1))
    run = descend.Run(tmp_path, model=model, loader=loader(), epochs=2)
    before = signal.getsignal(signal.SIGTERM)

    def train():
        for batches in run.epochs():
            assert len(list(batches)) == 4
            model.eval()
            signal.raise_signal(signal.SIGTERM)
            run.check()

    with pytest.raises(SystemExit):
        train()
    signal.signal(signal.SIGTERM, before)
    assert load(tmp_path)["run"]["modes"]["now"]["model"]["evaluating"] == []


# Notebooks: cells that are run again in one process


def cell(folder, model, optimizer):
    return descend.Run(
        folder,
        model=model,
        optimizer=optimizer,
        loader=loader(),
        seed=3,
        epochs=2,
        every_steps=3,
        keep=99,
    )


def interrupt(run, body, step):
    """The loop, and in one body an exception that the notebook keeps."""

    def loop():
        for batch in run:
            body(run, batch)
            if run.step == step:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:
        loop()
    return kept


@pytest.mark.parametrize("anew", [True, False])
def test_p44_the_run_made_again_after_an_interrupt_with_a_new_model_or_the_old_one(tmp_path, anew):
    process(tmp_path / "whole", plain_parts, every_steps=3)
    parts = plain_parts()
    kept = interrupt(cell(tmp_path / "mine", **parts.objects), parts.body, 5)
    parts = plain_parts() if anew else parts
    run = cell(tmp_path / "mine", **parts.objects)
    assert run.step == 4
    for batch in run:
        parts.body(run, batch)
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")
    del kept


def test_p44_ctrl_c_and_the_loops_cell_alone_again(tmp_path):
    process(tmp_path / "whole", plain_parts, every_steps=3)
    parts = plain_parts()
    run = cell(tmp_path / "mine", **parts.objects)

    def loop():
        for batch in run:
            parts.body(run, batch)
            if run.step in asked:
                asked.remove(run.step)
                signal.raise_signal(signal.SIGINT)

    asked = [2, 5]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            loop()
    loop()
    assert run.step == STEPS
    assert end_of(tmp_path / "mine") == end_of(tmp_path / "whole")


def test_the_run_of_an_earlier_cell_is_refused_once_there_is_a_newer_one(tmp_path):
    parts = plain_parts()
    older = cell(tmp_path, **parts.objects)
    interrupt(older, parts.body, 5)
    newer = cell(tmp_path, **plain_parts().objects)
    before = log_of(tmp_path)
    with pytest.raises(RunError, match=r"another Run|a newer"):
        list(older)
    assert log_of(tmp_path) == before
    assert newer.step == 4


# What a mistake is told


def test_a_misspelt_argument_is_named_with_the_right_one(tmp_path):
    with pytest.raises(DescendError, match=r"\bepochs\b"):
        descend.Run(tmp_path, loader=loader(), epoch=5)


def test_a_lazy_layer_is_told_to_be_called_once(tmp_path):
    run = descend.Run(tmp_path, loader=loader(), model=nn.LazyLinear(1))
    with pytest.raises(DescendError, match=r"LazyLinear|call the model|a batch"):
        next(iter(run))


# Processes of their own


@pytest.mark.slow
def test_p44_a_compiled_model_and_its_weights_in_the_plain_one(tmp_path):
    torch.manual_seed(0)
    plain = small_network()

    def make():
        net = small_network(nn.ReLU(), nn.Dropout(0.2))
        model = torch.compile(net, backend="eager")
        optimizer = momentum(model)
        return Parts({"model": net, "optimizer": optimizer}, usual_body(model, optimizer))

    assert_exact(make, stride=4)
    process(tmp_path, make)
    plain = small_network(nn.ReLU(), nn.Dropout(0.2))
    restore(tmp_path, model=plain)
    assert all(torch.isfinite(value).all() for value in plain.state_dict().values())


WITH_WORKERS = """
import sys, torch, descend
from torch.utils.data import DataLoader, Dataset

class Ones(Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, index):
        return torch.ones(3)

loader = DataLoader(Ones(), 4, num_workers=1, persistent_workers={persistent})
run = descend.Run(sys.argv[1], model=torch.nn.Linear(3, 1), loader=loader, epochs=2)

def main():
    for batches in run.epochs():
        for batch in batches:
            {body}

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("persistent", "body", "status"),
    [(True, "pass", 0), (False, "raise ValueError('mine')", 1)],
    ids=["persistent workers", "an error in a function"],
)
def test_a_program_with_workers_ends_when_it_is_through(tmp_path, persistent, body, status):
    script = WITH_WORKERS.format(persistent=persistent, body=body)
    done = python("-c", script, tmp_path, status=status, timeout=20)
    assert "Alarm clock" not in done.stderr


PACKAGE = {
    "__init__.py": "",
    "data.py": "import torch\n\n\ndef data():\n    return torch.randn(24, 3)\n",
    "train.py": """
import argparse, os, signal, torch, descend
from torch.utils.data import DataLoader, TensorDataset
from .data import data

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--die", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = descend.SGD(model.parameters(), lr=0.05)
    loader = DataLoader(TensorDataset(data()), 4, shuffle=True)
    run = descend.Run(
        arguments.folder, model=model, optimizer=optimizer, loader=loader, every_steps=2
    )
    for (x,) in run:
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        if run.step == arguments.die:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    main()
""",
}


@pytest.mark.slow
def test_f2_a_module_of_a_package_under_python_m_is_killed_and_goes_on(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    for name, text in PACKAGE.items():
        (package / name).write_text(text)

    def start(folder, *arguments):
        command = [sys.executable, "-m", "package.train", folder, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=False).returncode

    assert start("whole") == 0
    assert start("killed", "--die", "4") == -signal.SIGKILL
    assert start("killed") == 0
    assert end_of(Path(tmp_path) / "killed") == end_of(Path(tmp_path) / "whole")
