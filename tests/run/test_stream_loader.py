"""descend.StreamLoader: loaders that are read from their start on, in a run and on their own."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import descend
from descend.errors import RunError, StateError
from descend.run import ResumableLoader, StreamLoader
from run.small import (
    BATCH,
    SAMPLES,
    Augmented,
    Parts,
    X,
    Y,
    assert_exact,
    loader,
    mse,
    process,
    surroundings,  # noqa: F401 - a fixture
)


class Stream(IterableDataset):
    """Noisy samples, and the place in them."""

    def __init__(self, *, resets=True):
        self.place = 0
        self.resets = resets

    def __iter__(self):
        while self.place < SAMPLES:
            self.place += 1
            noise = torch.rand(3) + random.random() + np.random.rand()
            yield X[self.place - 1] + 0.1 * noise.float(), Y[self.place - 1]
        if self.resets:
            self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Shuffled(Stream):
    """An order of its own in each epoch, whose generator is in the state."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)
        self.order = []

    def __iter__(self):
        if not self.order:
            self.order = torch.randperm(SAMPLES, generator=self.generator).tolist()
        while self.order:
            index = self.order.pop()
            yield X[index] + 0.1 * torch.rand(3), Y[index]

    def state_dict(self):
        return {"order": list(self.order), "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.order = list(state["order"])
        self.generator.set_state(state["generator"])


class Forgetful(IterableDataset):
    """Samples, and no state."""

    def __iter__(self):
        return iter(range(SAMPLES))


class Batches:
    """Makes a generator of batches anew each time."""

    def __iter__(self):
        for begin in range(0, SAMPLES, BATCH):
            yield X[begin : begin + BATCH], Y[begin : begin + BATCH]


def parts(make_loader):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.Dropout(), torch.nn.Linear(5, 1)
        )
        optimizer = descend.SGD(model.parameters(), lr=0.05, momentum=0.9)

        def body(run, batch):
            loss = mse(model, *batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log(loss=loss, ends=run.ends_epoch, position=run.loader.position)

        return Parts({"model": model, "optimizer": optimizer}, body, loader=make_loader())

    return make


# --- exactness -------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("dataset", [Stream, Shuffled])
def test_a_stream_with_a_state_goes_on_with_the_very_next_batch(dataset, background):
    assert_exact(parts(lambda: DataLoader(dataset(), BATCH)), background=background)


@pytest.mark.parametrize("dataset", [Stream, Shuffled])
def test_a_last_batch_that_is_full_ends_the_epoch_too(dataset):
    assert_exact(parts(lambda: DataLoader(dataset(), 7)), steps=4)
    assert_exact(parts(lambda: DataLoader(dataset(), SAMPLES)), steps=2)


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("dataset", [Stream, Shuffled])
def test_an_epoch_of_so_many_batches_of_a_stream(dataset, batches):
    make = parts(lambda: StreamLoader(DataLoader(dataset(), BATCH), 3, batches=batches))
    assert_exact(make, steps=2 * min(batches, 4))


STATEFUL = {
    "a stream": lambda: (Stream(), {}),
    "shuffled": lambda: (Augmented(), {"shuffle": True}),
    "in order": lambda: (Augmented(), {}),
}


@pytest.mark.filterwarnings("ignore:Neither dataset nor iter", "ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("batches", [None, 3])
@pytest.mark.parametrize("name", STATEFUL)
def test_torchdatas_loader_goes_on_by_its_own_state(name, batches):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make_loader():
        dataset, options = STATEFUL[name]()
        made = stateful.StatefulDataLoader(dataset, BATCH, **options)
        return made if batches is None else StreamLoader(made, 3, batches=batches)

    assert_exact(parts(make_loader), steps=2 * (batches or 4))


@pytest.mark.parametrize("batches", [None, 3])
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_batches_goes_on_at_its_place(kind, batches):
    make = parts(lambda: StreamLoader(kind(Batches()), 3, batches=batches))
    assert_exact(make, steps=2 * (batches or 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_of_so_many_batches_of_a_map_style_dataset(workers):
    def make_loader():
        data = DataLoader(Augmented(), BATCH, shuffle=True, num_workers=workers)
        return ResumableLoader(data, 3, batches=3)

    assert_exact(parts(make_loader), steps=6, stride=3 if workers else 1)


def test_break_in_an_epoch_of_a_stream(tmp_path):
    """The stream goes on from its own place, after a resume too."""
    for dataset in (Stream, Shuffled):
        make = parts(lambda: DataLoader(dataset(), BATCH))  # noqa: B023 - used at once

        def leave(folder, die=None, make=make):
            random.seed(1)
            np.random.seed(2)
            one = make()
            run = descend.Run(folder, loader=one.loader, epochs=3, every_steps=1, **one.objects)
            for batches in run.epochs():
                for batch in batches:
                    if run.step == die:
                        return None
                    one.body(run, batch)
                    if run.loader.position == 2:
                        break
            return (folder / "metrics.jsonl").read_bytes()

        whole = leave(tmp_path / f"{dataset.__name__} whole")
        for die in range(2, 8):
            leave(tmp_path / dataset.__name__, die)
        assert leave(tmp_path / dataset.__name__) == whole


# --- the loader alone ------------------------------------------------------------------------


def test_all_kinds_give_epochs_and_say_what_they_know():
    kinds = {
        "list": ([1, 2, 3], 3, True),
        "iterable": (Batches(), None, False),
        "stream": (DataLoader(Stream(), BATCH), None, True),
        "forgetful": (DataLoader(Forgetful(), BATCH), None, False),
        "workers": (DataLoader(Stream(), BATCH, num_workers=1), None, False),
        "map-style": (loader(), 4, False),
    }
    for name, (given, length, resumes) in kinds.items():
        one = StreamLoader(given)
        assert (one.length, one.resumes, one.ended) == (length, resumes, False), name
        count = sum(1 for _ in one)
        assert (one.epoch, one.position, one.ended) == (1, 0, False), name
        assert sum(1 for _ in one) == count, name
        assert one.given is given


def test_a_limit_is_the_length_where_it_is_less():
    for limit, length in ((2, 2), (3, 3), (5, 3)):
        one = StreamLoader([1, 2, 3], batches=limit)
        assert one.length == length
        assert list(one) == [1, 2, 3][:limit]
        assert list(one) == [1, 2, 3][:limit]
    assert StreamLoader(Batches(), batches=9).length == 9
    assert len(list(StreamLoader(Batches(), batches=9))) == 4
    assert len(list(StreamLoader(Batches(), batches=1))) == 1


def test_a_limit_ends_an_endless_stream():
    class Endless:
        def __iter__(self):
            while True:
                yield 1

    run = descend.Run(None, loader=StreamLoader(Endless(), batches=5), epochs=2)
    assert [(batch, run.epoch, run.ends_epoch) for batch in run] == [
        (1, epoch, place == 4) for epoch in (1, 2) for place in range(5)
    ]


@pytest.mark.parametrize("samples", [0, 1, 4, 5, 14])
@pytest.mark.parametrize("limit", [1, 2, 99])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_limit_of_a_resumable_loader_gives_the_first_of_all(samples, limit, shuffle):
    if not samples:
        with pytest.raises(RunError, match="the loader has no batches"):
            ResumableLoader(loader(samples=0, shuffle=False), batches=limit)
        return
    whole = ResumableLoader(loader(samples=samples, shuffle=shuffle), 1)
    short = ResumableLoader(loader(samples=samples, shuffle=shuffle), 1, batches=limit)
    assert len(short) == short.length == min(len(whole), limit)
    for _ in range(2):
        expected = [batch[0].tolist() for batch in whole][:limit]
        assert [batch[0].tolist() for batch in short] == expected


def test_the_limit_is_a_fact_of_the_state():
    for make, some in (
        (lambda limit: ResumableLoader(loader(), batches=limit), (None, 2, 3)),
        (lambda limit: StreamLoader(Batches(), batches=limit), (None, 2, 3)),
        (lambda limit: StreamLoader([1, 2, 3], batches=limit), (1, 2, 3)),
    ):
        for here in some:
            for there in some:
                if here == there:
                    make(here).load_state_dict(make(there).state_dict())
                    continue
                with pytest.raises(StateError, match="batches was"):
                    make(here).load_state_dict(make(there).state_dict())


def test_the_state_is_that_before_the_next_batch():
    one = StreamLoader(DataLoader(Stream(), BATCH))
    for number, _ in enumerate(one, 1):
        assert one.state_dict()["source"] == {"place": number * BATCH % (4 * BATCH)}
        assert one.position == number
    assert one.state_dict()["source"] == {"place": 0}


def test_making_an_iterator_and_asking_for_the_state_draw_nothing():
    for given in (DataLoader(Stream(), BATCH), DataLoader(Stream(), BATCH, num_workers=1)):
        one = StreamLoader(given)
        torch.manual_seed(1)
        expected = torch.rand(2)
        torch.manual_seed(1)
        one.state_dict()
        next(iter(StreamLoader([1])))
        batches = one._iterator()
        assert torch.equal(torch.rand(2), expected)
        del batches


# --- what cannot go on -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_loader",
    [
        Batches,
        lambda: DataLoader(Forgetful(), BATCH, collate_fn=lambda at: (X[at], Y[at])),
        lambda: DataLoader(Stream(), BATCH, num_workers=1),
    ],
)
def test_a_stream_without_a_state_trains_and_does_not_go_on(tmp_path, make_loader):
    make = parts(lambda: StreamLoader(make_loader(), 3))
    process(tmp_path, make, die=1)  # nothing was done
    process(tmp_path, make, die=3)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(RunError, match="can only be read from its start, and 2 batches of epoch 1"):
        process(tmp_path, make)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert process(tmp_path, make, fresh=True).step == 8
    with pytest.raises(RunError, match=r"fresh=True of a Run, resume=False of a Trainer"):
        process(tmp_path, make)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (DataLoader(Forgetful(), 2), "iterable-style or has no length.*descend.StreamLoader"),
        ([1, 2], "is a list.*descend.StreamLoader"),
    ],
)
def test_run_refuses_what_cannot_go_on_and_names_the_way(given, text, tmp_path):
    with pytest.raises(RunError, match=text):
        descend.Run(tmp_path / "run", loader=given)
    assert not (tmp_path / "run").exists()


def test_run_takes_a_ready_loader_as_it_is_with_its_own_seed(tmp_path):
    for number, ready in enumerate((ResumableLoader(loader(), 7), StreamLoader([1, 2], 7))):
        run = descend.Run(tmp_path / str(number), loader=ready, seed=3)
        assert run.loader is ready
        draws = []
        for _ in run:
            draws.append(torch.rand(2))
        torch.manual_seed(3)
        assert torch.equal(draws[0], torch.rand(2))


def test_run_makes_a_stream_loader_of_what_has_a_state_and_no_other():
    assert isinstance(descend.Run(None, loader=DataLoader(Stream(), 2)).loader, StreamLoader)

    class WithState(Augmented):
        state_dict = load_state_dict = lambda self, *_: {}

    assert isinstance(descend.Run(None, loader=DataLoader(WithState(), 2)).loader, ResumableLoader)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: StreamLoader(3), "iterable of batches, and is a int"),
        (lambda: StreamLoader([]), "no batches: its length is 0"),
        (lambda: StreamLoader([1], -1), "seed must be"),
        (lambda: StreamLoader([1], batches=0), "batches must be"),
        (lambda: ResumableLoader(loader(), batches=0), "batches must be"),
        (lambda: list(StreamLoader(iter(()))), "gave no batches in epoch 1"),
    ],
)
def test_an_empty_loader_and_others_that_cannot_be_used(make, text):
    with pytest.raises(RunError, match=text):
        make()


def test_an_iterator_is_empty_in_the_second_epoch(tmp_path):
    one = parts(lambda: StreamLoader(iter(Batches()), 3))
    with pytest.raises(RunError, match="gave no batches in epoch 2; give one that begins anew"):
        process(tmp_path, one)


def test_a_stream_that_never_begins_anew_is_told(tmp_path):
    one = parts(lambda: DataLoader(Stream(resets=False), BATCH))
    with pytest.raises(RunError, match="gave no batches in epoch 2"):
        process(tmp_path, one)


def test_a_state_of_another_kind_is_refused():
    states = {
        "list": StreamLoader([1, 2]).state_dict(),
        "stream": StreamLoader(DataLoader(Stream(), BATCH)).state_dict(),
        "map": ResumableLoader(loader()).state_dict(),
        "seed": StreamLoader(DataLoader(Stream(), BATCH), 1).state_dict(),
    }
    for name, state in states.items():
        one = StreamLoader(DataLoader(Stream(), BATCH))
        if name == "stream":
            one.load_state_dict(state)
            for wrong in ({"position": -1}, {"epoch": None}):
                with pytest.raises(StateError, match="must be"):
                    one.load_state_dict({**state, **wrong})
            continue
        with pytest.raises(StateError, match="gives other batches"):
            one.load_state_dict(state)


def test_inspect_and_repr_without_a_length(tmp_path):
    run = process(tmp_path, parts(lambda: DataLoader(Stream(), BATCH)), die=3)
    assert repr(run) == f"Run({str(tmp_path)!r}: step 3, epoch 1 of 2, 3 batches done)"
    about = descend.checkpoint.folder.read_manifest(
        sorted((tmp_path / "checkpoints").iterdir())[-1]
    )["about"]
    assert about["batches per epoch"] is None
    assert about["batches done"] == 2
