"""Seeding only what is drawn from gives what seeding everything for each sample gives."""

import copy
import random
import sys
import types

import numpy as np
import pytest
import torch
import xxhash
from torch.utils.data import DataLoader, Dataset, default_collate

from descend.run import seeding
from descend.run.generators import held_generators
from descend.run.loader import ResumableLoader
from run.test_loader import same, states

# Python 3.12 warns of forks beside threads, which is what workers are
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SIZE = 24
ELSEWHERE = types.ModuleType("elsewhere")  # a module of the user's
ELSEWHERE.torch, ELSEWHERE.rng = torch, np.random.default_rng(11)
exec("def reads(): return torch.initial_seed() % 1000", vars(ELSEWHERE))
sys.modules["elsewhere"] = ELSEWHERE
SHARED = random.Random(12)


class Own(random.Random):
    """A generator whose numbers come from somewhere else than its memory."""

    def __init__(self):
        self.count = 0
        super().__init__()

    def seed(self, *args):
        self.count = args[0] % 1000 if args and args[0] else 0

    def getstate(self):
        return self.count

    def setstate(self, state):
        self.count = state

    def random(self):
        self.count += 1
        return self.count / 7 % 1


class Base(Dataset):
    """Counts what is fetched; `draw(self, index)` is what it draws."""

    def __init__(self):
        self.fetched = []
        self.python, self.own = random.Random(1), Own()
        self.legacy = np.random.RandomState(2)
        kinds = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
        self.numpy = {kind: np.random.Generator(getattr(np.random, kind)(3)) for kind in kinds}
        self.torch = torch.Generator().manual_seed(4)

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        self.fetched.append(index)
        return torch.tensor([float(index), *self.draw(index)], dtype=torch.float64)


def drawing(name, draw):
    return type(name, (Base,), {"draw": draw})


def put_back(draw):
    def forked(self, index):
        with torch.random.fork_rng():
            return [draw()]

    return forked


def puts_python_back(self, index):
    state = random.getstate()
    value = random.random()
    random.setstate(state)
    return [value]


def puts_numpy_back(self, index):
    generator = self.numpy["PCG64"].bit_generator
    state = generator.state
    value = self.numpy["PCG64"].random()
    generator.state = state
    return [value]


def half_a_pair(self, index):
    """Of a pair of normal numbers the second waits in the generator."""
    return [random.gauss(0, 1), np.random.randn()] if index % 3 else []


class Fails(Base):
    """Fails by what it draws, but has a second try."""

    def __getitem__(self, index):
        self.fetched.append(index)
        value = random.random() if index == 9 else 0.0
        if index == 9 and self.fails(value):
            raise ValueError(f"sample 9 drew {value}")
        return torch.tensor([float(index), value], dtype=torch.float64)

    fails = staticmethod(lambda value: False)


DATASETS = {
    "draws nothing": drawing("Nothing", lambda self, i: [0.0]),
    "from torch": drawing("Torch", lambda self, i: [torch.rand(()).item()]),
    "from numpy": drawing("Numpy", lambda self, i: [np.random.rand()]),
    "from python": drawing("Python", lambda self, i: [random.random()]),
    "from all": drawing(
        "All", lambda self, i: [random.random(), np.random.rand(), torch.rand(()).item()]
    ),
    "one of three, by index": drawing(
        "Turns",
        lambda self, i: [
            [random.random, np.random.rand, lambda: torch.rand(()).item()][i % 3]()
        ],
    ),
    "now and then": drawing("Rarely", lambda self, i: [torch.rand(()).item() if i == 13 else 0.0]),
    "more and more": drawing(
        "Growing",
        lambda self, i: [
            random.random() if i > 4 else 0.0,
            np.random.rand() if i > 11 else 0.0,
            torch.rand(()).item() if i > 17 else 0.0,
        ],
    ),
    "halves of pairs": drawing("Halves", lambda self, i: [*half_a_pair(self, i), 0.0, 0.0][:2]),
    "a normal of torch": drawing("Normal", lambda self, i: [torch.randn(()).item()]),
    "whole blocks": drawing(  # after which the position in the block is what it was
        "Blocks", lambda self, i: [np.random.bytes(2496)[0], random.getrandbits(2496 * 8) % 97]
    ),
    "its own, by index": drawing(
        "Held",
        lambda self, i: [
            [
                self.python.random,
                self.legacy.rand,
                self.legacy.randn,
                self.own.random,
                lambda: torch.rand((), generator=self.torch).item(),
                *(one.random for one in self.numpy.values()),
                *(lambda one=one: float(one.integers(1000)) for one in self.numpy.values()),
            ][i % 15]()
        ],
    ),
    "in a comprehension": drawing(
        "Inner", lambda self, i: [sum(SHARED.random() for _ in range(1 + i % 2))]
    ),
    "in another module": drawing("Elsewhere", lambda self, i: [ELSEWHERE.rng.random()]),
    "reads the seed": drawing("Reads", lambda self, i: [torch.initial_seed() % 1000]),
    "reads the seed elsewhere": drawing("ReadsElsewhere", lambda self, i: [ELSEWHERE.reads()]),
    "seeds itself": drawing(
        "Seeds", lambda self, i: [torch.manual_seed(i) and torch.rand(()).item()]
    ),
    "forks": drawing("Forks", put_back(lambda: torch.rand(()).item())),
    "puts Python's back": drawing("PutsPython", puts_python_back),
    "puts its own back": drawing("PutsOwn", puts_numpy_back),
    "from a copy": drawing("Copies", lambda self, i: [copy.deepcopy(self.numpy)["SFC64"].random()]),
    "before an error": Fails,
}  # fmt: skip


def collate_drawing(samples):
    return default_collate(samples), random.random(), torch.rand(())


def collate_drawing_rarely(samples):
    drawn = np.random.rand() if samples[0][0] == 12 else 0.0
    return default_collate(samples), drawn


COLLATES = {
    "default": default_collate,
    "draws": collate_drawing,
    "draws rarely": collate_drawing_rarely,
}


def reference(dataset, epoch, size, collate):
    """Each sample with all generators seeded, the long way round."""
    held = held_generators(dataset, collate)
    batches = []
    for start in range(0, SIZE, size):
        samples = []
        for index in range(start, min(SIZE, start + size)):
            seed = xxhash.xxh3_128_intdigest(f"3 {epoch} {index}".encode())
            random.seed(seed)
            np.random.seed(seed % 2**32)
            # Without the call for each GPU, for which torch formats the whole stack.
            torch.default_generator.manual_seed(seed >> 64)
            for number, one in enumerate(held, start=1):
                own = xxhash.xxh3_64_intdigest(f"{seed} {number}".encode())
                if isinstance(one, torch.Generator):
                    one.manual_seed(own)
                elif isinstance(one, random.Random):
                    one.seed(own)
                elif isinstance(one, np.random.RandomState):
                    one.seed(own % 2**32)
                else:
                    one.state = type(one)(own).state
            samples.append(dataset[index])
        batches.append(collate(samples))
    return batches


@pytest.mark.parametrize("collate", COLLATES)
@pytest.mark.parametrize("name", DATASETS)
def test_every_batch_is_that_of_seeding_everything_for_each_sample(name, collate):
    for size, workers in ((24, 0), (5, 0), (1, 0), (7, 1))[: 4 if collate == "default" else 3]:
        options = {"batch_size": size, "collate_fn": COLLATES[collate], "num_workers": workers}
        loader = ResumableLoader(DataLoader(DATASETS[name](), **options), 3)
        random.seed(5), torch.manual_seed(5), np.random.seed(5), np.random.randn()
        before = states()
        found = [list(loader) for _ in range(2 if workers else 3)]
        assert states() == before
        for epoch, batches in enumerate(found):
            same(batches, reference(DATASETS[name](), epoch, size, COLLATES[collate]))


def fetched(name, **options):
    dataset = DATASETS[name]()
    list(ResumableLoader(DataLoader(dataset, batch_size=24, **options), 3))
    return dataset.fetched


@pytest.mark.parametrize("collate", ["default", "draws"])
@pytest.mark.parametrize("name", DATASETS)
def test_no_sample_of_the_first_batch_is_fetched_twice(name, collate):
    assert fetched(name, collate_fn=COLLATES[collate]) == [*range(24)]


def test_what_draws_now_and_then_is_fetched_again_once():
    dataset = DATASETS["now and then"]()  # for sample 13
    loader = ResumableLoader(DataLoader(dataset, batch_size=8), 3)
    list(loader), list(loader)
    assert dataset.fetched == [*range(16), *range(8, 24), *range(24)]


def test_what_begins_to_draw_later_is_told_from_then_on():
    class Later(Base):
        augment = False

        def draw(self, index):
            return [random.random() if self.augment else 0.0]

    dataset = Later()
    loader = ResumableLoader(DataLoader(dataset, batch_size=12), 3)
    next(iter(loader)), list(loader)
    dataset.augment = True
    same(list(loader), reference(dataset, 1, 12, default_collate))
    assert loader.epoch == 2


@pytest.fixture
def seeded(monkeypatch):
    """The generators, as often as they are seeded."""
    found, sources = [], seeding.sources

    def watched(*held):
        made = sources(*held)
        for one in made:
            seed = one.seed
            one.seed = lambda value, one=one, seed=seed: (found.append(one.generator), seed(value))
        return made

    monkeypatch.setattr(seeding, "sources", watched)
    return found


def test_what_draws_nothing_is_not_seeded(seeded):
    loader = ResumableLoader(DataLoader(DATASETS["draws nothing"](), batch_size=12), 3)
    list(loader)
    once = len(seeded)  # each generator, for each sample of the first batch
    for _ in range(5):
        list(loader)
    assert len(seeded) == once == 12 * len(seeding.sources(*held_generators(Base())))


def test_only_what_is_drawn_from_is_seeded(seeded):
    loader = ResumableLoader(DataLoader(DATASETS["from torch"](), batch_size=12), 3)
    list(loader)
    seeded.clear()
    list(loader)
    assert seeded == [torch.default_generator] * SIZE


def test_an_error_that_follows_from_what_was_drawn_is_the_seeded_one():
    class Failing(Fails):
        fails = staticmethod(lambda value: True)

    for _ in range(2):  # whatever the generators were before
        with pytest.raises(ValueError, match="sample 9") as caught:
            list(ResumableLoader(DataLoader(Failing(), batch_size=24), 3))
        seed = xxhash.xxh3_128_intdigest(b"3 0 9")
        assert str(caught.value) == f"sample 9 drew {random.Random(seed).random()}"
        random.random()


def test_an_error_without_a_draw_is_told_at_once():
    class Failing(Base):
        def draw(self, index):
            if index == 9:
                raise ValueError("sample 9")
            return []

    dataset = Failing()
    with pytest.raises(ValueError, match="sample 9"):
        list(ResumableLoader(DataLoader(dataset, batch_size=24), 3))
    assert dataset.fetched == [*range(10)]


def test_a_failure_in_a_batch_leaves_the_generators_and_a_second_try():
    failing = [9]

    class Failing(Base):
        def draw(self, index):
            value = np.random.rand() if index == 9 else 0.0
            if index in failing:
                raise KeyboardInterrupt
            return [value]

    dataset = Failing()
    loader = ResumableLoader(DataLoader(dataset, batch_size=24), 3)
    before = states()
    with pytest.raises(KeyboardInterrupt):
        list(loader)
    assert states() == before
    assert dataset.fetched == [*range(10)]  # and is not fetched again
    failing.clear()
    same(list(loader), reference(Failing(), 0, 24, default_collate))


def test_a_sampler_that_gives_an_empty_batch():
    loader = DataLoader(DATASETS["from torch"](), batch_sampler=[[], [1]], collate_fn=list)
    assert [len(batch) for batch in ResumableLoader(loader)] == [0, 1]


def test_every_kind_of_generator_shows_that_it_was_drawn_from():
    held = Base()
    draws = [
        (held.python, lambda: held.python.gauss(0, 1)),  # the second time it gives what waits
        (held.legacy, held.legacy.randn),
        (held.torch, lambda: torch.randn((), generator=held.torch)),
        (held.own, held.own.random),
        *((one.bit_generator, lambda one=one: one.integers(9, dtype=np.int32))  # half of a word
          for one in held.numpy.values()),
    ]  # fmt: skip
    for generator, draw in draws:
        source = seeding.Source(generator, None)
        for _ in range(3):
            state = source.state()
            assert source.is_at(state)
            first = draw()
            assert not source.is_at(state), generator
            source.put(state)
            assert draw() == first
