"""The rows F1 to F4 and P40 to P44, for all optimizers, dtypes and numbers of workers.

A process is what builds everything anew, with other first values; its death is a fork's that
leaves at once, or a loop that is left where nothing is told of it. The product of all optimizers
and both dtypes runs without workers. With workers it runs for one optimizer of each kind only,
since starting them takes ten times as long as the steps, and the optimizer never sees them; the
full product is marked slow.
"""

import json
import os
import pickle
import random
import shutil
import signal
import sys
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import descend
from descend import checkpoint
from descend.base.load_report import LoadReport
from descend.checkpoint import digest
from descend.errors import CheckpointError, CheckpointWarning
from descend.optimizers import CATALOGUE

# Python 3.12 warns of forks beside threads, which is what workers are
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SAMPLES, BATCH, EPOCHS, STEPS = 14, 4, 2, 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALL = [(name, dtype) for name in CATALOGUE for dtype in DTYPES]
KINDS = {
    "adamw": "float32",  # elementwise
    "nadam": "bfloat16",  # counts on its own
    "adafactor": "float32",  # whole tensors
    "muon": "bfloat16",  # two rules
    "lbfgs": "float32",  # a closure, called several times a step
    "sparseadam": "float32",  # sparse gradients
}
all_of_them = pytest.mark.parametrize(("name", "dtype"), ALL)
one_of_each_kind = pytest.mark.parametrize(("name", "dtype"), list(KINDS.items()))
# Something to save for each, and few trials in a step
OPTIONS = {"sgd": {"momentum": 0.9}, "lbfgs": {"max_iter": 3}}
CHANGES = [(0, 2), (2, 1), (1, 0)]  # workers before and after
KILLED = 9


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Nothing here pulls a plug: waiting for the disk would be half of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Augmented(Dataset):
    """Noise in each sample, from all generators there are."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(SAMPLES, 3, generator=generator)
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        noise = torch.rand(3) + random.random() + np.random.rand() + self.rng.random()
        return (self.inputs[index] + 0.1 * noise).float(), self.inputs[index].sum()


class Words(torch.nn.Module):
    """A model with sparse gradients."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Embedding(12, 4, sparse=True)

    def forward(self, inputs):
        return self.body((inputs.abs() * 4).long().clamp(max=11)).sum((1, 2))[:, None]


class Network(torch.nn.Module):
    """Layers with buffers and random numbers of their own."""

    def __init__(self, outputs=1):
        super().__init__()
        self.body = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.dropout = torch.nn.Dropout(0.2)
        self.head = torch.nn.Linear(4, outputs)

    def forward(self, inputs):
        hidden = self.norm(self.body(inputs.to(self.body.weight.dtype)))
        return self.head(self.dropout(torch.tanh(hidden)))


class Parts:
    """What a script builds, with other first values in each process."""

    def __init__(self, name, dtype, start=0):
        torch.manual_seed(start)
        random.seed(start)
        np.random.seed(start)
        self.model = (Words() if name == "sparseadam" else Network()).to(DTYPES[dtype])
        self.optimizer = CATALOGUE[name](self.model.named_parameters(), **OPTIONS.get(name, {}))
        self.schedule = descend.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=20)

    @property
    def objects(self):
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}

    def states(self):
        return {name: thing.state_dict() for name, thing in self.objects.items()}

    def step(self, batch):
        """One step: the loss before it, and the lr that it was taken with."""
        inputs, targets = batch
        lr = self.optimizer.param_groups[0]["lr"]

        def closure():
            self.optimizer.zero_grad()
            loss = (self.model(inputs)[:, 0].float() - targets).square().mean()
            loss.backward()
            return loss

        loss = self.optimizer.step(closure)
        self.optimizer.zero_grad()
        self.schedule.step()
        return {"loss": loss.item(), "lr": float(lr)}


def loader(workers=0):
    return DataLoader(Augmented(), BATCH, shuffle=True, num_workers=workers)


def process(folder, name, dtype, *, die=None, workers=0, start=0, **options):
    """Train until the run is over, or until the batch of that step has come, and no further."""
    parts = Parts(name, dtype, start)
    run = descend.Run(
        folder,
        loader=loader(workers),
        seed=3,
        epochs=EPOCHS,
        **{"every_steps": 2, "keep": 99} | options,
        **parts.objects,
    )
    batches = []
    for batch in run:
        batches.append(digest({"batch": batch}))
        if run.step == die:
            break
        run.log(**parts.step(batch))
    return run, batches


def end_of(folder):
    """The state that a run ends with, the run's own among it, and its losses and lrs."""
    return digest(checkpoint.load(folder)), (folder / "metrics.jsonl").read_text()


@cache
def uninterrupted(name, dtype):
    """The end and the batches of a run that never stopped."""
    with TemporaryDirectory() as folder:
        _, batches = process(Path(folder) / "run", name, dtype)
        end = end_of(Path(folder) / "run")
    losses = [json.loads(line)["loss"] for line in end[1].splitlines()]
    assert len(losses) == len(set(batches)) == STEPS
    assert len({str(loss) for loss in losses}) > 1, "it does not train"
    return end, batches


def die_at_the_file_operation(number):
    """End this process, as a kill would, before it opens, renames or removes its n-th file."""
    left = number

    def hook(event, arguments):
        nonlocal left
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"):
            left -= 1
            if left == 0:
                os._exit(KILLED)

    sys.addaudithook(hook)  # for good


def killed(work):
    """Do some work in a process that does not survive it."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)  # one that hangs dies of it
            work()
        finally:
            os._exit(KILLED)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == KILLED


def flip_a_bit(path, tensor):
    """Flip one bit of a tensor in a checkpoint."""
    file = path / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    first, last = json.loads(content[8 : 8 + length])[tensor]["data_offsets"]
    content[8 + length + (first + last) // 2] ^= 0x10
    file.write_bytes(content)


def newest(folder):
    return checkpoint.locate(folder)


# F1


@all_of_them
def test_f1_save_load_and_go_on(name, dtype, tmp_path):
    batches = list(descend.ResumableLoader(loader(), seed=5))

    def trained(parts, chosen):
        return [parts.step(batch) for batch in chosen]

    whole = Parts(name, dtype)
    torch.manual_seed(7)
    expected = trained(whole, batches)

    first = Parts(name, dtype)
    torch.manual_seed(7)
    traces = trained(first, batches[:2])
    saved = {**first.states(), "random": torch.get_rng_state(), "epoch": 0, "loss": traces[-1]}
    checkpoint.save(tmp_path / "saved", saved)
    assert digest(checkpoint.load(tmp_path / "saved")) == digest(saved)

    second = Parts(name, dtype, start=1)
    loaded = checkpoint.load(tmp_path / "saved")
    checkpoint.restore(tmp_path / "saved", **second.objects)
    torch.set_rng_state(loaded["random"])
    assert (loaded["epoch"], loaded["loss"]) == (0, traces[-1])
    traces += trained(second, batches[2:])
    assert str(traces) == str(expected)  # text, so that a NaN equals itself
    assert digest(second.states()) == digest(whole.states())


# F2


@all_of_them
def test_f2_killed_in_the_middle_of_a_save_it_goes_on(name, dtype, tmp_path):
    # Another file operation of the save for each optimizer
    number = 1 + ALL.index((name, dtype)) % 16

    def dying():
        parts = Parts(name, dtype)
        run = descend.Run(
            tmp_path,
            loader=loader(),
            seed=3,
            epochs=EPOCHS,
            every_steps=2,
            background=number % 2 == 0,
            **parts.objects,
        )
        for batch in run:
            run.log(**parts.step(batch))
            if run.step == 4:
                die_at_the_file_operation(number)

    killed(dying)
    run, batches = process(tmp_path, name, dtype, start=1)
    end, expected = uninterrupted(name, dtype)
    assert run.resumed_from is not None
    if number % 2:  # else the save of step 2 can be under way when that of step 4 is due
        assert run.resumed_from.name in ("step-00000002", "step-00000004")
    assert batches == expected[len(expected) - len(batches) :]
    assert end_of(tmp_path) == end
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name[0] == "."]


def test_f2_killed_at_each_instant_of_a_save(tmp_path):
    states = [{"step": torch.full((50,), float(i)), "text": "x" * 100} for i in range(3)]
    old, new = digest(states[1]), digest(states[2])
    found = []
    while found[-2:] != [new, new]:
        folder = tmp_path / str(len(found)) / "checkpoints"
        folder.mkdir(parents=True)
        for i in range(2):
            checkpoint.save(folder / f"step-{i:08d}", states[i])

        def dying(folder=folder):
            die_at_the_file_operation(len(found) + 1)
            checkpoint.save(folder / "step-00000002", states[2])

        killed(dying)
        found.append(digest(checkpoint.load(folder.parent)))
        assert checkpoint.verify(newest(folder.parent)) == []
        assert len(found) < 100
    assert found.count(old) > 5
    assert found == sorted(found, key=[old, new].index)


@one_of_each_kind
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_f2_dying_anywhere_in_an_epoch(name, dtype, before, after, tmp_path):
    end, expected = uninterrupted(name, dtype)
    die = 2 + (list(KINDS).index(name) + before) % 6
    process(tmp_path, name, dtype, die=die, workers=before)
    run, batches = process(tmp_path, name, dtype, workers=after, start=1)
    assert run.resumed_from is not None
    assert batches == expected[-len(batches) :]
    assert end_of(tmp_path) == end


# F3


@all_of_them
def test_f3_weights_alone_and_into_a_changed_network(name, dtype, tmp_path):
    process(tmp_path, name, dtype, die=6)
    saved = checkpoint.load(tmp_path)["model"]

    alone = Parts(name, dtype, start=1)
    untouched = digest(alone.optimizer.state_dict())
    report = checkpoint.restore(tmp_path, model=alone.model)["model"]
    assert digest(alone.model.state_dict()) == digest(saved)
    assert set(report.matched) == saved.keys()
    assert (report.missed, report.unused) == ({}, {})
    assert digest(alone.optimizer.state_dict()) == untouched

    if name == "sparseadam":
        changed = torch.nn.ModuleDict(
            {"body": torch.nn.Embedding(12, 4, sparse=True), "more": torch.nn.Embedding(3, 2)}
        ).to(DTYPES[dtype])
        missed, unused = {"more.weight"}, set()
    else:
        changed = Network(outputs=5).to(DTYPES[dtype])
        changed.extra = torch.nn.Linear(2, 2)
        changed.norm = torch.nn.Identity()
        missed = {"head.weight", "head.bias", "extra.weight", "extra.bias"}
        unused = {"head.weight", "head.bias"} | {key for key in saved if key.startswith("norm")}
    before = {key: value.clone() for key, value in changed.state_dict().items()}
    with pytest.raises(CheckpointError, match="model"):
        checkpoint.restore(tmp_path, model=changed)
    assert digest(changed.state_dict()) == digest(before)

    optimizer = CATALOGUE[name](changed.named_parameters())
    reports = checkpoint.restore(tmp_path, strict=False, model=changed, optimizer=optimizer)
    report, of_optimizer = reports["model"], reports["optimizer"]
    assert report.missed.keys() == missed
    assert report.unused.keys() == unused
    assert set(report.matched) == before.keys() - missed
    for key, value in changed.state_dict().items():
        assert torch.equal(value, before[key] if key in missed else saved[key])
    if name != "lbfgs":  # which has one state for all parameters
        assert isinstance(of_optimizer, LoadReport)
        matched = {"body.weight", "body.bias"} & before.keys()
        assert set(of_optimizer.matched) == matched
        assert of_optimizer.missed.keys() == missed


@pytest.mark.gpu
@all_of_them
def test_f3_onto_a_gpu(name, dtype, tmp_path):
    process(tmp_path, name, dtype, die=6)
    there = Parts(name, dtype, start=1)
    there.model.cuda()
    there.optimizer = CATALOGUE[name](there.model.named_parameters())
    checkpoint.restore(tmp_path, model=there.model, optimizer=there.optimizer)
    saved = checkpoint.load(tmp_path)
    assert all(value.is_cuda for value in there.model.state_dict().values())
    assert digest(there.model.state_dict()) == digest(saved["model"])
    assert digest(there.optimizer.state_dict()) == digest(saved["optimizer"])
    there.schedule = descend.lr_scheduler.CosineAnnealingLR(there.optimizer, T_max=20)
    inputs, targets = next(iter(loader()))
    there.step((inputs.cuda(), targets.cuda()))


# F4


@all_of_them
def test_f4_to_a_torch_file_and_back(name, dtype, tmp_path):
    process(tmp_path / "run", name, dtype, die=6)
    state = checkpoint.load(tmp_path / "run")
    parts = {key: state[key] for key in ("model", "optimizer", "schedule")}
    checkpoint.save_torch(tmp_path / "friend.pth", {**parts, "epoch": 1, "loss": 0.25})

    plain = torch.load(tmp_path / "friend.pth", weights_only=True)
    assert (plain["epoch"], plain["loss"]) == (1, 0.25)
    friend = Parts(name, dtype, start=1)
    friend.model.load_state_dict(plain["model"])
    assert digest(friend.model.state_dict()) == digest(parts["model"])
    if hasattr(torch.optim, CATALOGUE[name].__name__):
        matrices = [p for p in friend.model.parameters() if name != "muon" or p.ndim == 2]
        if len(matrices) == len(list(friend.model.parameters())):  # torch's Muon takes no other
            torchs = getattr(torch.optim, CATALOGUE[name].__name__)(matrices)
            torchs.load_state_dict(plain["optimizer"])
            assert torchs.param_groups[0]["lr"] == parts["optimizer"]["param_groups"][0]["lr"]

    back = checkpoint.load(tmp_path / "friend.pth")
    back["schedule"] = back.pop("scheduler", back.get("schedule"))
    assert digest({key: back[key] for key in parts}) == digest(parts)
    descend_again = Parts(name, dtype, start=2)
    checkpoint.restore(
        tmp_path / "friend.pth", model=descend_again.model, optimizer=descend_again.optimizer
    )
    assert digest(descend_again.optimizer.state_dict()) == digest(parts["optimizer"])


@all_of_them
def test_f4_a_file_that_torch_wrote_is_brought_along(name, dtype, tmp_path):
    theirs = getattr(torch.optim, CATALOGUE[name].__name__, None)
    if theirs is None:
        pytest.skip("not an optimizer of torch's")
    parts = Parts(name, dtype)
    if name == "muon":
        parts.model = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False)).to(DTYPES[dtype])
    optimizer = theirs(parts.model.parameters())
    for inputs, targets in descend.ResumableLoader(loader(), seed=5):

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            cast = inputs if name == "sparseadam" else inputs.to(DTYPES[dtype])
            loss = (parts.model(cast)[:, 0].float() - targets).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    usual = {
        "epoch": 7,
        "model_state_dict": parts.model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.5,
    }
    torch.save(usual, tmp_path / "old.pth")

    ours = Parts(name, dtype, start=1)
    if name == "muon":
        ours.model = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False)).to(DTYPES[dtype])
        ours.optimizer = CATALOGUE[name](ours.model.parameters())
    checkpoint.restore(tmp_path / "old.pth", model=ours.model, optimizer=ours.optimizer)
    assert digest(ours.model.state_dict()) == digest(parts.model.state_dict())
    mine, saved = ours.optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert mine.keys() == saved.keys()
    for number, state in saved.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key != "step" and key in mine[number]:
                same_kind = value.ndim > 0  # a number of descend's can be in float64
                torch.testing.assert_close(
                    mine[number][key], value, rtol=0, atol=0, check_dtype=same_kind
                )
    loaded = checkpoint.load(tmp_path / "old.pth")
    assert (loaded["epoch"], loaded["loss"]) == (7, 0.5)


# P40


@all_of_them
def test_p40_the_old_one_stands_until_the_new_one_is_whole(name, dtype, tmp_path):
    parts = Parts(name, dtype)
    batches = list(descend.ResumableLoader(loader(), seed=5))
    parts.step(batches[0])
    old = digest(parts.states())
    checkpoint.save(tmp_path / "saved", parts.states())
    parts.step(batches[1])
    new = digest(parts.states())
    assert old != new
    number = 1 + ALL.index((name, dtype)) % 16

    def dying():
        die_at_the_file_operation(number)
        checkpoint.save(tmp_path / "saved", parts.states())

    killed(dying)
    assert digest(checkpoint.load(tmp_path / "saved")) in (old, new)
    checkpoint.save(tmp_path / "saved", parts.states())  # what it left is in nobody's way
    assert digest(checkpoint.load(tmp_path / "saved")) == new
    checkpoint.restore(tmp_path / "saved", **Parts(name, dtype, start=1).objects)


# P41


def check_p41(folder, name, dtype, workers=0):
    end, _ = uninterrupted(name, dtype)
    process(folder, name, dtype, die=7, workers=workers)
    bad = newest(folder)
    assert bad.name == "step-00000006"
    flip_a_bit(bad, "model.body.weight")
    with pytest.raises(CheckpointError, match=r"model\.body\.weight"):
        checkpoint.load(bad)
    assert any("model.body.weight" in line for line in checkpoint.verify(bad))
    with pytest.warns(CheckpointWarning, match=r"model\.body\.weight"):
        run, _ = process(folder, name, dtype, workers=workers, start=1)
    assert run.resumed_from is not None
    assert run.resumed_from.name == "step-00000004"
    assert end_of(folder) == end


@all_of_them
def test_p41_a_flipped_bit_is_named_and_the_one_before_used(name, dtype, tmp_path):
    check_p41(tmp_path, name, dtype)


@one_of_each_kind
def test_p41_with_workers(name, dtype, tmp_path):
    check_p41(tmp_path, name, dtype, workers=1)


@all_of_them
def test_p41_a_flipped_bit_in_the_state_of_the_optimizer_is_named(name, dtype, tmp_path):
    process(tmp_path, name, dtype, die=6)
    path = newest(tmp_path)
    tensors = json.loads((path / "manifest.json").read_text())["tensors"]
    for tensor, kind in tensors.items():
        if tensor.startswith("optimizer.") and 0 not in kind["shape"]:
            copy = tmp_path / "copy"
            shutil.copytree(path, copy)
            flip_a_bit(copy, tensor)
            with pytest.raises(CheckpointError) as caught:
                checkpoint.load(copy)
            assert tensor in str(caught.value)
            shutil.rmtree(copy)
            return
    raise AssertionError("no tensor in its state")


# P42


@all_of_them
def test_p42_no_pickle_in_any_file(name, dtype, tmp_path, monkeypatch):
    process(tmp_path, name, dtype, die=6)
    path = newest(tmp_path)
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json",
        "state.json",
        "tensors.safetensors",
    ]
    json.loads((path / "manifest.json").read_text())
    json.loads((path / "state.json").read_text())
    content = (path / "tensors.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    ends = [kind["data_offsets"][1] for key, kind in header.items() if key != "__metadata__"]
    assert max(ends) == len(content) - 8 - length  # every byte belongs to a tensor

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for owner, function in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(owner, function, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    process(tmp_path, name, dtype, start=1)
    assert end_of(tmp_path) == uninterrupted(name, dtype)[0]


# P43


def check_p43(folder, name, dtype, dies, before=0, after=0):
    end, expected = uninterrupted(name, dtype)
    workers, done = before, 0
    for number, die in enumerate(dies):
        run, batches = process(
            folder, name, dtype, die=die, workers=workers, start=number, every_steps=1
        )
        assert batches == expected[done : done + len(batches)], "not the very next batch"
        done = die - 1  # the batch of that step has come, and nothing was done with it
        workers = after
    run, batches = process(folder, name, dtype, workers=workers, start=9, every_steps=1)
    assert batches == expected[done:]
    assert run.is_over
    assert end_of(folder) == end


@all_of_them
def test_p43_the_very_next_batch(name, dtype, tmp_path):
    check_p43(tmp_path, name, dtype, (3, 8))


@pytest.mark.parametrize("die", range(1, STEPS + 1))
def test_p43_the_very_next_batch_wherever_it_stops(die, tmp_path):
    check_p43(tmp_path, "adamw", "float32", [die])


@one_of_each_kind
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_p43_whatever_the_number_of_workers(name, dtype, before, after, tmp_path):
    check_p43(tmp_path, name, dtype, [4], before, after)


@pytest.mark.slow
@all_of_them
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_p43_the_full_product(name, dtype, before, after, tmp_path):
    check_p43(tmp_path / "a", name, dtype, (2, 7), before, after)
    check_p41(tmp_path / "b", name, dtype, workers=after)


# P44


@all_of_them
def test_p44_a_chain_of_processes_ends_with_the_same_bits(name, dtype, tmp_path):
    """Each gets two steps done; `descend verify-resume` does the same with anybody's script."""
    for start, die in enumerate((3, 5, 7, 8)):
        process(tmp_path, name, dtype, die=die, start=start)
    process(tmp_path, name, dtype, start=9)
    assert end_of(tmp_path) == uninterrupted(name, dtype)[0]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import descend
from run.test_scenarios import EPOCHS, Parts, loader

parts = Parts({name!r}, {dtype!r})
run = descend.Run("mine", loader=loader({workers}), seed=3, epochs=EPOCHS, **parts.objects)
for batch in run:
    run.log(**parts.step(batch))
"""


@pytest.mark.slow
@all_of_them
def test_p44_the_command_proves_it(name, dtype, tmp_path):
    from descend.resume_check.check import Script, check_resume

    workers = ALL.index((name, dtype)) % 3
    script = tmp_path / "script.py"
    tests = str(Path(__file__).parents[1])
    script.write_text(SCRIPT.format(tests=tests, name=name, dtype=dtype, workers=workers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_resume(Script(script), kills=2)
    assert found.verdict == "bit-exact", found
