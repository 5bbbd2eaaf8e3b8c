"""Batches as a function of (seed, epoch, position): every dataset, every sampler, any workers."""

import copy
import random
import traceback
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from descend.checkpoint import digest
from descend.errors import RunError, StateError
from descend.run.batch_order import mixed
from descend.run.generators import held_generators
from descend.run.loader import ResumableLoader

# Python 3.12 warns of forks beside threads, which is what workers are
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

GLOBAL_RNG = np.random.default_rng(7)  # as scripts have it


class Noisy(Dataset):
    """Draws from everything that can be drawn from; a different amount for each sample."""

    def __init__(self, samples=10):
        self.samples = samples
        self.calls = []
        self.python = random.Random(1)
        self.legacy = np.random.RandomState(2)
        self.rng = np.random.default_rng(3)
        self.other = np.random.default_rng(3)
        self.generator = torch.Generator().manual_seed(4)
        drawn = random.Random(5)
        self.transforms = [lambda x: x + drawn.random()]

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        self.calls.append(index)
        if not 0 <= index < self.samples:  # an `assert` would hold all of pytest
            raise IndexError(index)
        for _ in range(index % 3):
            random.gauss(0, 1), np.random.randn(), torch.randn(())
            self.rng.normal()
        draws = [
            random.random(),
            random.gauss(0, 1),
            np.random.rand(),
            np.random.randn(),
            torch.rand((), dtype=torch.float64).item(),
            self.python.random(),
            self.legacy.rand(),
            self.rng.random(),
            self.other.random(),
            torch.rand((), generator=self.generator, dtype=torch.float64).item(),
            GLOBAL_RNG.random(),
            self.transforms[0](0.0),
        ]
        return torch.tensor([index, *draws], dtype=torch.float64)


DRAWS = 12


class ByBatches(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        raise AssertionError("it has a way to get all at once")

    def __getitems__(self, indices):
        return [(torch.tensor(index), torch.rand(())) for index in indices]


class Pairs(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor([float(index)]), index % 3


def resumable(dataset, *, seed=0, **options):
    return ResumableLoader(DataLoader(dataset, **options), seed)


def epochs(loader, count):
    return [list(loader) for _ in range(count)]


def at(loader, epoch, position):
    loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "position": position})
    return loader


def same(mine, theirs):
    """Compare bit for bit, types and memory layouts included."""
    assert type(mine) is type(theirs)
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert mine.stride() == theirs.stride()
        assert torch.equal(mine, theirs)
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key in mine:
            same(mine[key], theirs[key])
    else:
        assert mine == theirs


def by_index(batches):
    return {int(row[0]): row[1:].tolist() for batch in batches for row in batch.reshape(-1, 13)}


def stop_workers(caught):
    """Let go of an iterator that an error holds: torch waits 5 s for it where a collection does."""
    traceback.clear_frames(caught.tb)


def states():
    """The states of the global generators; NumPy's with its waiting normal number."""
    numpy = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": (numpy["state"]["key"].tolist(), numpy["state"]["pos"]),
        "gauss": (numpy["has_gauss"], numpy["gauss"]),
        "torch": torch.get_rng_state().tolist(),
    }


ROWS = torch.arange(40.0).reshape(10, 4)
PLAIN_DATASETS = {
    "TensorDataset": TensorDataset(ROWS, torch.arange(10)),
    "TensorDataset of one": TensorDataset(ROWS),
    "TensorDataset, channels last": TensorDataset(
        torch.randn(10, 4, 5, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    ),
    "TensorDataset, complex": TensorDataset(torch.randn(10, 2, dtype=torch.complex64)),
    "TensorDataset, bfloat16": TensorDataset(ROWS.bfloat16(), ROWS.bool()),
    "Subset of a TensorDataset": Subset(TensorDataset(ROWS, ROWS[:, 0]), [9, 0, 3, 3, 5, 1, 2]),
    "Subset by a tensor": Subset(TensorDataset(ROWS), torch.tensor([4, 2, 7, 7, 1, 0])),
    "Subset from its end": Subset(TensorDataset(ROWS), [-1, -2, 3, 4, 5]),
    "Subset of a Subset": Subset(Subset(TensorDataset(ROWS), range(2, 9)), [6, 0, 3, 2, 1]),
    "ConcatDataset": ConcatDataset([TensorDataset(ROWS), Subset(TensorDataset(-ROWS), [3, 4])]),
    "StackDataset": StackDataset(TensorDataset(ROWS), list(range(10))),
    "StackDataset by names": StackDataset(x=ROWS, y=range(10)),
    "list of pairs": [(ROWS[i], i) for i in range(10)],
    "list of dicts": [{"x": ROWS[i], "name": f"n{i}", "more": (i, float(i))} for i in range(10)],
    "list of strings": [f"text {i}" for i in range(10)],
    "list of arrays": [np.full((2, 2), i, np.float32) for i in range(10)],
    "tuple of numbers": tuple(0.5 * i for i in range(10)),
    "range": range(10),
    "tensor": ROWS,
    "array": np.arange(20, dtype=np.int16).reshape(10, 2),
    "own": Pairs(),
    "Subset of own": Subset(Pairs(), [4, 1, 7, 8, 2]),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", PLAIN_DATASETS)
def test_what_it_gives_is_what_the_plain_loader_gives(name, workers):
    dataset = PLAIN_DATASETS[name]
    plain = DataLoader(dataset, batch_size=4, num_workers=workers)
    loader = ResumableLoader(plain)
    expected = list(plain)
    assert len(loader) == len(plain)
    same(list(loader), expected)
    same(list(at(loader, 5, 1)), expected[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3, "drop_last": True},
        {"batch_size": 3},
        {"batch_size": 100},
        {"batch_size": 1},
        {"batch_size": None},
        {"batch_size": None, "sampler": BatchSampler(SequentialSampler(range(10)), 4, False)},
        {"batch_sampler": BatchSampler(SequentialSampler(range(10)), 4, True)},
        {"batch_sampler": [[1, 2], [3], [9, 9, 9]]},
        {"sampler": SequentialSampler(range(5)), "batch_size": 2},
        {"sampler": [7, 1, 1], "batch_size": 2},
        {"sampler": range(9, -1, -2), "batch_size": 2},
        {"sampler": [-1, -2, 3], "batch_size": 2},
        {"sampler": torch.tensor([5, 2, 8]), "batch_size": 2},
        {"sampler": np.array([5, 2, 8]), "batch_size": 2},
        {"batch_size": 4, "collate_fn": list},
        {"batch_size": 4, "num_workers": 1, "prefetch_factor": 5, "persistent_workers": True},
        {"batch_size": 4, "num_workers": 2, "timeout": 20},
    ],
    ids=" ".join,
)
def test_every_option_means_what_it_means_to_the_plain_loader(options):
    plain = DataLoader(TensorDataset(ROWS, torch.arange(10)), **options)
    loader = ResumableLoader(plain)
    assert len(loader) == len(plain)
    expected = list(plain)
    same(list(loader), expected)
    for position in range(len(plain) + 1):
        same(list(at(loader, 0, position)), expected[position:])


def test_one_sample():
    same(list(resumable([5.0], shuffle=True)), [torch.tensor([5.0], dtype=torch.float64)])


def test_a_shuffle_gives_every_sample_once():
    for batches in epochs(resumable(range(11), batch_size=4, shuffle=True), 3):
        assert [len(batch) for batch in batches] == [4, 4, 3]
        assert sorted(torch.cat(batches).tolist()) == list(range(11))


def test_epochs_and_seeds_differ_and_the_same_ones_are_equal():
    def order(seed, epoch):
        loader = resumable(range(20), batch_size=20, shuffle=True, seed=seed)
        return tuple(next(iter(at(loader, epoch, 0))).tolist())

    drawn = {(seed, epoch): order(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(set(drawn.values())) == 25
    assert all(order(*key) == drawn[key] for key in drawn)


# Workers, batch sizes, orders: the numbers that a sample draws are its own

WORKERS = [
    {"num_workers": 0},
    {"num_workers": 1},
    {"num_workers": 2},
    {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 1},
    {"num_workers": 2, "prefetch_factor": 4},
]


@pytest.mark.parametrize("workers", WORKERS[1:], ids=str)
def test_p43_any_number_of_workers_gives_the_same_batches(workers):
    loader = resumable(Noisy(), batch_size=3, shuffle=True, **workers)
    same(epochs(loader, 3), epochs(resumable(Noisy(), batch_size=3, shuffle=True), 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_draws_what_follows_from_seed_epoch_and_index_alone(workers):
    def drawn(**options):
        options = {"num_workers": workers, **options}
        return by_index(at(resumable(Noisy(), seed=3, **options), 2, 0))

    one = drawn(batch_size=1)
    assert len({number for row in one.values() for number in row}) == 10 * DRAWS
    assert drawn(batch_size=4) == one
    assert drawn(batch_size=10, shuffle=True) == one
    assert drawn(batch_size=None) == one
    assert drawn(batch_size=3, sampler=[9, 0, 8, 1, 7, 2, 6, 3, 5, 4]) == one
    assert drawn(batch_size=3, sampler=torch.arange(10)) == one
    assert drawn(batch_sampler=[list(range(5)), list(range(5, 10))]) == one
    late = by_index(at(resumable(Noisy(), seed=3, batch_size=2), 2, 3))
    assert late == {index: one[index] for index in range(6, 10)}


def test_what_a_sample_draws_differs_between_epochs_seeds_and_samples():
    rows = [
        tuple(row)
        for seed in range(3)
        for batches in epochs(resumable(Noisy(), seed=seed, batch_size=4), 3)
        for row in by_index(batches).values()
    ]
    assert len(set(rows)) == 90
    for column in zip(*rows, strict=True):
        assert len(set(column)) == 90


def test_numpys_and_torchs_flips_of_a_sample_are_not_the_same():
    class Flips(Dataset):
        def __len__(self):
            return 200

        def __getitem__(self, index):
            flips = [np.random.randint(2), torch.randint(2, ()), random.getrandbits(1)]
            return torch.tensor(flips)

    # They are one algorithm: from the same 32 bits all 200 would be
    (flips,) = list(resumable(Flips(), batch_size=200))
    for one in range(3):
        assert 60 < (flips[:, one] == flips[:, one - 1]).sum() < 140


def test_a_subset_of_samples_draws_by_its_own_index_sample_by_sample():
    # A Subset gets a batch in one call, of a dataset that cannot
    wide = by_index(resumable(Noisy(), batch_size=5))
    for dataset in (Subset(Noisy(), range(10)), Subset(Subset(Noisy(), range(10)), range(10))):
        assert by_index(resumable(dataset, batch_size=2)) == wide
    stacked = resumable(StackDataset(Noisy(), range(10)), batch_size=2)
    assert by_index(batch for batch, _ in stacked) == wide


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_that_gets_all_of_a_batch_at_once(workers):
    loader = resumable(ByBatches(), batch_size=4, num_workers=workers)
    whole = epochs(loader, 2)
    assert [indices.tolist() for indices, _ in whole[0]] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    drawn = [number for batches in whole for _, draws in batches for number in draws.tolist()]
    assert len(set(drawn)) == 20
    same(list(at(loader, 1, 1)), whole[1][1:])
    same(whole, epochs(resumable(Subset(ByBatches(), range(10)), batch_size=4), 2))


def mixup(samples):
    """Mixes by what four generators give."""
    draws = [random.random(), np.random.rand(), torch.rand(()).item(), GLOBAL_RNG.random()]
    return torch.stack(samples), torch.tensor(draws, dtype=torch.float64)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_p43_a_collate_function_that_draws(workers):
    expected = epochs(resumable(Noisy(), batch_size=3, shuffle=True, collate_fn=mixup), 2)
    draws = [number for batches in expected for _, own in batches for number in own.tolist()]
    assert len(set(draws)) == len(draws)
    loader = resumable(Noisy(), batch_size=3, shuffle=True, collate_fn=mixup, num_workers=workers)
    for position in (0, 1, 3):
        same(list(at(loader, 1, position)), expected[1][position:])


def test_a_collate_function_that_draws_over_a_plain_dataset():
    loader = resumable(list(ROWS), batch_size=4, collate_fn=mixup)
    first, again, next_epoch = list(at(loader, 0, 1)), list(at(loader, 0, 1)), list(loader)
    same(first, again)
    assert not torch.equal(first[0][1], next_epoch[1][1])


# Samplers


class Backwards(Sampler):
    def __len__(self):
        return 10

    def __iter__(self):
        return iter(range(9, -1, -1))


class OwnGenerators(Sampler):
    """Draws its order from generators that it made."""

    def __init__(self):
        self.python = random.Random(0)
        self.rng = np.random.default_rng(0)
        self.legacy = np.random.RandomState(0)

    def __len__(self):
        return 12

    def __iter__(self):
        for _ in range(4):
            yield self.python.randrange(10)
            yield int(self.rng.integers(10))
            yield int(self.legacy.randint(10))


class GlobalGenerators(Sampler):
    def __len__(self):
        return 9

    def __iter__(self):
        for _ in range(3):
            yield random.randrange(10)
            yield int(np.random.randint(10))
            yield int(torch.randint(10, ()))


class ShufflesInPlace(Sampler):
    def __init__(self):
        self.indices = list(range(10))

    def __len__(self):
        return 10

    def __iter__(self):
        random.shuffle(self.indices)
        return iter(self.indices)


class CountsEpochs(Sampler):
    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 10

    def __iter__(self):
        self.epoch += 1
        yield from (int(i) for i in np.random.RandomState(self.epoch).permutation(10))


class Endless(Sampler):
    def __init__(self, length=7):
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        while True:
            yield int(torch.randint(10, ()))


class Buckets(Sampler):
    """Batches of its own, of several sizes, around another sampler."""

    def __init__(self):
        self.sampler = RandomSampler(range(10), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 4

    def __iter__(self):
        order = list(self.sampler)
        yield from (order[:1], order[1:3], order[3:6], order[6:])


SAMPLERS = {
    "RandomSampler": RandomSampler,
    "RandomSampler with a generator": lambda d: RandomSampler(d, generator=torch.Generator()),
    "RandomSampler with replacement": lambda d: RandomSampler(d, replacement=True),
    "RandomSampler of more": lambda d: RandomSampler(d, num_samples=23),
    "RandomSampler of fewer": lambda d: RandomSampler(d, num_samples=4),
    "WeightedRandomSampler": lambda d: WeightedRandomSampler([1.0] * len(d), 15),
    "WeightedRandomSampler with a generator": lambda d: WeightedRandomSampler(
        torch.arange(1.0, len(d) + 1), 9, replacement=False, generator=torch.Generator()
    ),
    "SubsetRandomSampler": lambda d: SubsetRandomSampler([8, 7, 6, 5, 4]),
    "DistributedSampler": lambda d: DistributedSampler(d, num_replicas=2, rank=1, seed=5),
    "own generators": lambda d: OwnGenerators(),
    "global generators": lambda d: GlobalGenerators(),
    "shuffles in place": lambda d: ShufflesInPlace(),
    "counts its epochs": lambda d: CountsEpochs(),
    "endless": lambda d: Endless(),
}
BATCH_SAMPLERS = {
    "shuffled": lambda d: BatchSampler(RandomSampler(d), 3, False),
    "shuffled, drop_last": lambda d: BatchSampler(RandomSampler(d), 3, True),
    "of an own one": lambda d: BatchSampler(ShufflesInPlace(), 4, False),
    "buckets": lambda d: Buckets(),
}


def options_of(name, dataset):
    if name in SAMPLERS:
        return {"sampler": SAMPLERS[name](dataset), "batch_size": 3}
    return {"batch_sampler": BATCH_SAMPLERS[name](dataset)}


@pytest.mark.parametrize("name", [*SAMPLERS, *BATCH_SAMPLERS])
def test_p43_a_sampler_goes_on_where_another_process_stopped(name):
    dataset = Noisy()

    def fresh(**options):
        return resumable(dataset, seed=9, **options_of(name, dataset), **options)

    whole = epochs(fresh(), 4)
    assert len({str(batches) for batches in whole}) == 4
    assert all(len(batches) == len(fresh()) for batches in whole)
    orders = {str([batch[:, 0] for batch in batches]) for batches in whole}
    assert len(orders) == 4, "the order of two epochs is the same"
    for position in range(len(whole[0])):
        loader = at(fresh(), 2, position)
        same(list(loader), whole[2][position:])
        same(list(loader), whole[3])
        same(list(at(loader, 1, position)), whole[1][position:])  # and back
    same(list(at(fresh(num_workers=2), 3, 1)), whole[3][1:])


@pytest.mark.parametrize("name", [*SAMPLERS, *BATCH_SAMPLERS])
def test_the_users_sampler_and_its_generators_stay_as_they_are(name):
    dataset = range(10)
    mine, twin = options_of(name, dataset), options_of(name, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(dataset, **mine)
        ours = ResumableLoader(loader, 1)
        epochs(ours, 2)
        next(iter(at(ours, 5, 1)))

    def drawn(loader):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        for sampler in (loader.sampler, getattr(loader.sampler, "sampler", None)):
            generator = getattr(sampler, "generator", None)
            if generator is not None:
                assert generator.initial_seed() == torch.Generator().initial_seed()
        return [list(islice(loader, 5)) for _ in range(2)]

    same(drawn(loader), drawn(DataLoader(dataset, **twin)))


def test_the_users_loader_and_dataset_stay_as_they_are():
    generator = torch.Generator().manual_seed(3)
    dataset = Noisy()
    loader = DataLoader(dataset, batch_size=2, shuffle=True, generator=generator)
    before = dict(vars(loader))
    drawn = [one.get_state().tolist() for one in (generator, dataset.generator)]
    numbers = [dataset.python.getstate(), dataset.rng.bit_generator.state]
    epochs(ResumableLoader(loader), 2)
    assert vars(loader) == before
    assert [one.get_state().tolist() for one in (generator, dataset.generator)] == drawn
    assert [dataset.python.getstate(), dataset.rng.bit_generator.state] == numbers


def test_a_distributed_sampler_is_told_the_epoch_but_not_the_users_one():
    sampler = DistributedSampler(range(10), num_replicas=2, rank=0)
    loader = resumable(range(10), sampler=sampler, batch_size=2)
    mine = epochs(loader, 3)
    assert sampler.epoch == 0
    for epoch, batches in enumerate(mine):
        sampler.set_epoch(epoch)
        same(batches, list(DataLoader(range(10), sampler=sampler, batch_size=2)))


def test_the_halves_of_a_distributed_epoch_are_all_of_it():
    both = [
        resumable(range(10), sampler=DistributedSampler(range(10), 2, rank), batch_size=2)
        for rank in (0, 1)
    ]
    assert sorted(torch.cat([*both[0], *both[1]]).tolist()) == list(range(10))


def test_a_weighted_sampler_follows_its_weights():
    weights = [0.0, 1.0, 3.0]
    loader = resumable(range(3), sampler=WeightedRandomSampler(weights, 4000), batch_size=1000)
    counts = torch.cat(list(loader)).bincount(minlength=3)
    assert counts[0] == 0
    assert counts[2] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_sampler_that_says_more_than_it_gives_ends_the_epoch_early():
    class Short(Backwards):
        def __iter__(self):
            return iter([1, 2, 3])

    loader = resumable(range(10), sampler=Short(), batch_size=2)
    assert [batch.tolist() for batch in loader] == [[1, 2], [3]]
    assert (loader.epoch, loader.position) == (1, 0)


def test_an_endless_sampler_without_a_length_is_refused():
    class Unending(Sampler):
        def __iter__(self):
            while True:
                yield 0

    with pytest.raises(RunError, match="Unending has no length"):
        resumable(range(10), sampler=Unending())
    with pytest.raises(RunError, match="Unending has no length"):
        resumable(range(10), batch_sampler=BatchSampler(Unending(), 2, False))


def test_a_sampler_that_cannot_be_copied_is_refused():
    class Holding(Backwards):
        def __init__(self):
            self.source = (i for i in range(10))

    with pytest.raises(RunError, match=r"the sampler Holding cannot be copied .*generator"):
        resumable(range(10), sampler=Holding())


def test_copying_a_sampler_copies_no_dataset():
    class Uncopyable(Pairs):
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    whole = Uncopyable()
    part = Subset(whole, range(10))
    for dataset, known in ((whole, whole), (part, whole), (part, part)):
        loader = resumable(dataset, sampler=RandomSampler(known, replacement=True), batch_size=5)
        assert len(list(loader)) == 2


# The main process


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_not_disturbed(workers):
    loader = resumable(Noisy(), batch_size=3, shuffle=True, num_workers=workers)
    sampled = resumable(Noisy(), batch_size=3, sampler=GlobalGenerators(), num_workers=workers)
    for waiting in (False, True):
        np.random.seed(5)
        if waiting:
            np.random.randn()  # the second of the pair waits
        before = states()
        assert before["gauss"][0] == waiting
        shared = GLOBAL_RNG.bit_generator.state
        for one in (loader, sampled):
            batches = iter(one)
            assert states() == before
            for _ in batches:
                assert states() == before
            next(iter(one))
            assert states() == before
        assert GLOBAL_RNG.bit_generator.state == shared


def test_the_body_of_the_loop_draws_the_same_with_any_number_of_workers():
    def drawn(workers):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        loader = resumable(Noisy(), batch_size=3, num_workers=workers)
        return [
            (random.gauss(0, 1), np.random.randn(), np.random.rand(), torch.randn(()).item())
            for _ in loader
        ]

    assert drawn(0) == drawn(2)


def test_a_generator_of_numpys_that_the_user_put_in_place_stays_there():
    before, own = np.random.get_bit_generator(), np.random.PCG64(3)
    try:
        np.random.set_bit_generator(own)
        state = own.state
        batches = list(resumable(Noisy(), batch_size=5))
        assert np.random.get_bit_generator() is own
        assert own.state == state
    finally:
        np.random.set_bit_generator(before)
    same(batches, list(resumable(Noisy(), batch_size=5)))


def test_a_loader_within_a_dataset():
    class Nested(Dataset):
        def __init__(self):
            self.inner = resumable(Noisy(2), batch_size=2)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            before = np.random.rand(), torch.rand(())
            inside = next(iter(at(self.inner, index, 0)))
            return before, inside, np.random.rand(), torch.rand(()), random.random()

    np.random.seed(5)
    before = states()
    whole = list(resumable(Nested(), batch_size=3))
    one_by_one = list(resumable(Nested(), batch_size=1))
    assert states() == before
    for index, alone in enumerate(one_by_one):
        assert whole[0][2][index] == alone[2][0]
        assert whole[0][3][index] == alone[3][0]
        assert whole[0][4][index] == alone[4][0]


def test_cuda_is_left_alone_until_it_is_used(monkeypatch):
    def refuse(*args):
        raise AssertionError("it would start CUDA")

    for name in ("_lazy_init", "manual_seed_all", "get_rng_state_all", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    list(resumable(Noisy(), batch_size=5))


def test_cudas_generators_are_seeded_and_put_back_once_it_is_used(monkeypatch):
    devices = [torch.Generator().manual_seed(one) for one in (1, 2)]

    def seed_all(seed):
        for one in devices:
            one.manual_seed(seed)

    def put(state, device):
        devices[device].set_state(state)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [d.get_state() for d in devices])
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "set_rng_state", put)

    class OnDevices(Pairs):
        def __getitem__(self, index):
            return torch.cat([torch.rand(1, generator=one) for one in devices])

    before = [one.get_state() for one in devices]
    (whole,) = list(resumable(OnDevices(), batch_size=10))
    same([one.get_state() for one in devices], before)
    same(torch.cat(list(resumable(OnDevices(), batch_size=3))), whole)
    assert len(set(whole[:, 0].tolist())) == 10
    list(resumable(Pairs(), batch_size=3))
    same([one.get_state() for one in devices], before)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_the_generators_of_a_gpu_are_not_disturbed(workers):
    torch.zeros(1, device="cuda")
    before = torch.cuda.get_rng_state()
    loader = resumable(Noisy(), batch_size=3, num_workers=workers, pin_memory=True)
    batches = list(loader)
    assert all(batch.is_pinned() for batch in batches)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    same([batch.clone() for batch in batches], list(resumable(Noisy(), batch_size=3)))


# Going on


@pytest.mark.parametrize("workers", [0, 2])
def test_p43_it_goes_on_at_every_position(workers):
    options = {"batch_size": 3, "shuffle": True, "num_workers": workers}
    whole = epochs(resumable(Noisy(), **options), 3)
    running = resumable(Noisy(), **options)
    for epoch in range(2 if workers == 0 else 1):
        for position in range(3 if workers == 0 else 2):
            batches = iter(running)
            next(batches)  # workers have run ahead by more than there is
            saved = running.state_dict()
            batches.close()
            assert (saved["epoch"], saved["position"]) == (epoch, position + 1)
            other = resumable(Noisy(), **options)
            other.load_state_dict(saved)
            same(list(other), whole[epoch][position + 1 :])
            same(next(iter(other)), whole[epoch + 1][0])
        same(list(running), whole[epoch][position + 1 :])
    same(list(running), whole[epoch + 1])


@pytest.mark.parametrize("persistent", [False, True])
def test_leaving_an_epoch_early_goes_on_after_it(persistent):
    loader = resumable(
        Noisy(), batch_size=2, shuffle=True, num_workers=2, persistent_workers=persistent
    )
    (whole,) = epochs(resumable(Noisy(), batch_size=2, shuffle=True), 1)
    got = []
    for count in (2, 1, 2):
        got += islice(loader, count)
    same(got, whole)


def test_the_rest_counts_nothing_itself():
    loader = resumable(range(6), batch_size=2)
    assert len(list(loader.rest())) == 3
    assert (loader.epoch, loader.position) == (0, 0)
    loader.position = 2
    same(list(loader.rest()), [torch.tensor([4, 5])])
    loader.position = 3
    assert list(loader.rest()) == []
    loader.next_epoch()
    assert (loader.epoch, loader.position) == (1, 0)


def test_nothing_is_fetched_before_the_position():
    dataset = Noisy(1000)
    loader = at(resumable(dataset, batch_size=10, shuffle=True), 7, 98)
    assert dataset.calls == []
    batches = list(loader)
    assert len(batches) == 2
    assert dataset.calls == [int(row[0]) for batch in batches for row in batch]


def test_one_batch_is_fetched_at_a_time():
    dataset = Noisy()
    batches = iter(resumable(dataset, batch_size=3))
    assert dataset.calls == []
    next(batches)
    assert dataset.calls == [0, 1, 2]


# What workers are told


def test_a_workers_start_sees_the_users_dataset():
    class Opened(Dataset):
        handle = None

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.tensor([self.handle, self.rng.random(), torch.initial_seed() % 1000])

    def start(number):
        info = get_worker_info()
        assert type(info.dataset) is Opened
        info.dataset.handle = 5.0
        info.dataset.rng = np.random.default_rng(info.seed)

    def loader(workers):
        return resumable(Opened(), num_workers=workers, worker_init_fn=start)

    one, two = list(loader(1)), list(loader(2))
    same(one, two)
    assert all(batch[0, 0] == 5.0 for batch in one)
    assert len({batch[0, 1].item() for batch in one}) == 4


def test_what_a_workers_start_draws_does_not_depend_on_the_epochs_before():
    class Offset(Dataset):
        offset = 0.0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return self.offset

    def start(number):
        get_worker_info().dataset.offset = random.random() + torch.rand(()).item()

    def loader():
        return resumable(Offset(), num_workers=1, worker_init_fn=start)

    whole = epochs(loader(), 3)
    same(list(at(loader(), 2, 0)), whole[2])
    assert whole[0] != whole[1]


def test_a_workers_start_that_fails_says_why():
    def start(number):
        raise OSError("no such device")

    with pytest.raises(OSError, match="no such device") as caught:
        list(resumable(range(4), num_workers=1, worker_init_fn=start))
    stop_workers(caught)


class Importable(Pairs):
    """One that a spawned process can import."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()), self.rng.random()


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_spawned_workers_give_the_same(context):
    loader = resumable(
        Importable(), batch_size=4, shuffle=True, num_workers=2, multiprocessing_context=context
    )
    same(epochs(loader, 2), epochs(resumable(Importable(), batch_size=4, shuffle=True), 2))


def test_pin_memory_warns_as_it_always_does():
    if torch.accelerator.is_available():
        pytest.skip("an accelerator is here")
    with pytest.warns(UserWarning, match="pin_memory"):
        assert len(list(resumable(range(4), pin_memory=True))) == 4


# Errors


@pytest.mark.parametrize(("error", "workers"), [(ValueError, 0), (KeyError, 0), (KeyError, 1)])
def test_the_datasets_own_error_comes_through(error, workers):
    class Broken(Noisy):
        def __getitem__(self, index):
            if index == 5:
                random.random(), np.random.rand(), torch.rand(())
                raise error("sample five")
            return super().__getitem__(index)

    loader = resumable(Broken(), batch_size=2, num_workers=workers)
    before = states()
    with pytest.raises(error, match="sample five") as caught:
        list(loader)
    stop_workers(caught)
    assert states() == before
    assert (loader.epoch, loader.position) == (0, 2)
    loader.position = 3
    same(list(loader), list(resumable(Noisy(), batch_size=2))[3:])


def test_an_error_of_the_collate_function_comes_through():
    with pytest.raises(TypeError, match="must contain tensors"):
        list(resumable([object()] * 3))
    with pytest.raises(RuntimeError, match="equal size"):
        list(resumable([torch.zeros(2), torch.zeros(3)], batch_size=2))


def test_an_index_beyond_the_dataset_is_an_error():
    for dataset in (TensorDataset(ROWS), Subset(TensorDataset(ROWS), range(10)), list(range(10))):
        with pytest.raises(IndexError):
            list(resumable(dataset, sampler=[3, 10], batch_size=2))


def test_a_stop_iteration_of_the_dataset_does_not_end_the_epoch_in_silence():
    class Exhausted(Pairs):
        def __getitem__(self, index):
            return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(resumable(Exhausted()))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class Unsized(Dataset):
    def __getitem__(self, index):
        return index


class OnDevice(DataLoader):
    def __iter__(self):
        for batch in super().__iter__():
            yield batch * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResumableLoader([1, 2]), "must be a torch.utils.data.DataLoader, and is a list"),
        (lambda: ResumableLoader(None), "and is a NoneType"),
        (lambda: resumable(Stream()), "Stream, is iterable-style or has no length"),
        (lambda: resumable(Unsized(), sampler=range(3)), "Unsized, is iterable-style or has no"),
        (lambda: resumable([]), "the loader has no batches: its dataset has 0 samples"),
        (
            lambda: resumable(range(3), batch_size=4, drop_last=True),
            "its dataset has 3 samples, and drop_last leaves no batch of 4",
        ),
        (lambda: resumable(range(3), sampler=[]), "the loader has no batches"),
        (lambda: ResumableLoader(OnDevice(range(3))), "OnDevice, makes its batches in an __iter__"),
        (lambda: resumable(range(3), seed=-1), "seed must be a whole number from 0"),
        (lambda: resumable(range(3), seed=2**32), "seed must be a whole number from 0"),
        (lambda: resumable(range(3), seed=True), "seed must be a whole number from 0"),
        (lambda: resumable(range(3), seed=1.0), "seed must be a whole number from 0"),
    ],
)
def test_what_cannot_be_resumed_is_refused(make, message):
    with pytest.raises(RunError, match=message):
        make()


def test_the_largest_seed():
    assert len(list(resumable(Noisy(), seed=2**32 - 1, batch_size=5, shuffle=True))) == 2


def test_a_subclass_of_the_loader_that_only_builds_it_is_taken():
    class Mine(DataLoader):
        def __init__(self, dataset):
            super().__init__(dataset, batch_size=2, collate_fn=sum)

    assert list(ResumableLoader(Mine(range(4)))) == [1, 5]


# Its state


def test_its_state_is_plain():
    state = resumable(range(10), batch_size=3, shuffle=True, seed=4).state_dict()
    assert state == {
        "epoch": 0,
        "position": 0,
        "seed": 4,
        "samples": 10,
        "batches": 4,
        "batch_size": 3,
        "order": "shuffled",
    }
    digest(state)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 5}, "seed was 4 and is 5"),
        ({"batch_size": 4}, "batches was 4 and is 3, batch_size was 3 and is 4"),
        ({"samples": 12}, "samples was 10 and is 12"),
        ({"shuffle": False}, "order was 'shuffled' and is 'sequential'"),
        ({"shuffle": None, "sampler": SubsetRandomSampler(range(10))}, "'SubsetRandomSampler'"),
        ({"drop_last": True}, "batches was 4 and is 3"),
        ({"shuffle": None, "sampler": Backwards()}, "order was 'shuffled' and is 'Backwards'"),
    ],
)
def test_the_state_of_another_loader_is_refused_naming_what_differs(other, named):
    def made(samples=10, **options):
        return resumable(range(samples), **{"batch_size": 3, "shuffle": True, "seed": 4} | options)

    saved = {**made().state_dict(), "epoch": 2, "position": 1}
    loader = made(**other)
    with pytest.raises(StateError, match=named):
        loader.load_state_dict(saved)
    assert (loader.epoch, loader.position) == (0, 0)
    made(num_workers=2, prefetch_factor=3).load_state_dict(saved)


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": 5},
        {"position": -1},
        {"position": 1.0},
        {"position": None},
        {"epoch": -1},
        {"epoch": "1"},
        {"epoch": True},
    ],
    ids=str,
)
def test_a_state_that_is_none_is_refused(wrong):
    loader = resumable(range(10), batch_size=3)
    (name,) = wrong
    with pytest.raises(StateError, match=f"the {name} of a loader's state must be a whole number"):
        loader.load_state_dict({**loader.state_dict(), **wrong})
    with pytest.raises(StateError, match="seed was None"):
        loader.load_state_dict({})
    assert (loader.epoch, loader.position) == (0, 0)


# Statistics. Each bound is 5 standard deviations off, so that one in a million of seeds fails


def correlation(a, b):
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


def test_shuffles_are_uniform_and_independent():
    samples, count = 50, 2000
    loader = resumable(range(samples), batch_size=samples, shuffle=True)
    orders = torch.stack([next(iter(at(loader, epoch, 0))) for epoch in range(count)]).double()
    # In each place, each sample equally often: chi-square with 49 degrees of freedom
    expected = count / samples
    for place in (0, 1, 25, 49):
        counts = orders[:, place].long().bincount(minlength=samples)
        chi = ((counts - expected) ** 2 / expected).sum().item()
        assert abs(chi - (samples - 1)) < 5 * (2 * (samples - 1)) ** 0.5
    # From one epoch to the next, and from one place to the next
    bound = 5 / (count * samples) ** 0.5
    assert abs(correlation(orders[1:].flatten(), orders[:-1].flatten())) < bound
    other = resumable(range(samples), batch_size=samples, shuffle=True, seed=1)
    seconds = torch.stack([next(iter(at(other, epoch, 0))) for epoch in range(500)]).double()
    assert abs(correlation(orders[:500].flatten(), seconds.flatten())) < 2 * bound
    neighbours = correlation(orders[:, 1:].flatten(), orders[:, :-1].flatten())
    assert abs(neighbours + 1 / (samples - 1)) < bound  # as drawing without putting back has it


class Draws(Dataset):
    def __len__(self):
        return 2000

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(())])


def test_what_samples_draw_is_uniform_and_independent():
    loader = resumable(Draws(), batch_size=2000)
    first, second = next(iter(loader)).double(), next(iter(at(loader, 1, 0))).double()
    other = next(iter(resumable(Draws(), batch_size=2000, seed=1))).double()
    bound = 5 / 2000**0.5
    for kind in range(3):
        drawn = first[:, kind]
        assert abs(drawn.mean() - 0.5) < bound * 12**-0.5
        assert abs(correlation(drawn[1:], drawn[:-1])) < bound
        assert abs(correlation(drawn, second[:, kind])) < bound
        assert abs(correlation(drawn, other[:, kind])) < bound
        assert abs(correlation(drawn, first[:, kind - 1])) < bound
        counts = (drawn * 20).long().bincount(minlength=20)
        assert ((counts - 100) ** 2 / 100).sum() < 19 + 5 * 38**0.5


def test_seeds_of_samples_do_not_collide():
    seeds = [
        mixed(seed, epoch, i) for seed in range(3) for epoch in (0, 1, 10) for i in range(5000)
    ]
    assert len(set(seeds)) == len(seeds)
    for bits in (seed % 2**32 for seed in seeds), ((seed >> 64) % 2**32 for seed in seeds):
        assert len(seeds) - len(set(bits)) < 5  # of 45,000 seeds of 32 bits, 0.24 pairs on average
    assert mixed(1, 23, 4) != mixed(12, 3, 4) != mixed(1, 2, 34)


# The generators that objects hold


def test_the_generators_of_a_dataset_are_found_wherever_they_are():
    held = Noisy()
    found = held_generators(Subset(ConcatDataset([held]), [0]))
    assert len(found) == len({id(one) for one in found}) == 7
    expected = [held.python, held.legacy, held.rng.bit_generator, held.other.bit_generator]
    expected += [held.generator, GLOBAL_RNG.bit_generator]
    assert {id(one) for one in expected} < {id(one) for one in found}


def test_the_global_generators_and_what_cannot_be_seeded_are_not_among_them():
    holding = [random.random, np.random.rand, torch.default_generator, random.SystemRandom()]
    assert held_generators(holding, random, np.random, torch) == []


def test_a_large_dataset_is_not_searched_sample_by_sample():
    dataset = [(i, random.Random(i)) for i in range(1001)]
    assert held_generators(dataset) == []


def test_copies_find_their_own():
    held = Noisy()
    twin = copy.copy(held)
    twin.python = random.Random(1)
    assert held.python in held_generators(held)
    assert held.python not in held_generators(twin)
