"""The suite's tasks: they train, to the same bits, on data that are whole and licensed."""

import gzip
import hashlib
import json
import socket
from pathlib import Path

import pytest
import torch

from descend.errors import DataError
from descend.search.suite import data, suite_tasks
from descend.search.suite.published import FILE, as_published, document, published_tasks
from descend.search.trial import Trial, train_trial
from descend.training.task import sample_count
from descend.training.task_file import seeded_task
from search.made_results import results

TASKS = suite_tasks()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One thread, and no network."""

    def refuse(*arguments):
        raise AssertionError("a task of the suite downloads something")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_learns_in_a_few_steps_to_the_same_bits(name, tmp_path):
    trial = Trial(str(TASKS[name]), {}, "adamw", 3e-3, {}, {}, 20, 3)
    first, again = (train_trial(trial, tmp_path / folder) for folder in ("first", "again"))
    assert not first.error
    assert first.value < 0.9 * first.start
    assert (first.start, first.value) == (again.start, again.value)


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_draws_the_first_weights_and_nothing_else(name):
    one, other = (seeded_task(TASKS[name], {}, seed) for seed in (0, 1))
    for part in ("train", "validation"):
        pairs = zip(getattr(one, part), getattr(other, part), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    weights = [torch.cat([p.flatten() for p in task.model.parameters()]) for task in (one, other)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "bicycle_rentals"])
def test_no_sample_is_in_training_and_validation(name):
    # Of the rentals, hours can be alike
    task = seeded_task(TASKS[name], {}, 0)
    rows = [{row.numpy().tobytes() for row in part[0]} for part in (task.train, task.validation)]
    assert not rows[0] & rows[1]


def test_the_rentals_are_divided():
    task = seeded_task(TASKS["bicycle_rentals"], {}, 0)
    assert len(task.train[0]) + len(task.validation[0]) == len(data.load_rentals()["rentals"])


@pytest.mark.parametrize("name", data.DIGESTS)
def test_the_data_are_those_that_are_attributed(name):
    folder = Path(data.__file__).parent
    content = gzip.decompress((folder / name).read_bytes())
    assert hashlib.sha256(content).hexdigest() == data.DIGESTS[name]
    assert f"`{name}`" in (folder / "ATTRIBUTION.md").read_text()
    assert "data/ATTRIBUTION.md" in (folder.parents[4] / "pyproject.toml").read_text()


def test_data_that_are_damaged_are_refused(monkeypatch):
    monkeypatch.setitem(data.DIGESTS, "plays.txt.gz", "0" * 64)
    data.load_plays.cache_clear()
    with pytest.raises(DataError, match=r"plays\.txt\.gz: the file is not the one"):
        data.load_plays()


def test_what_is_published_of_results_is_read_back(monkeypatch, tmp_path):
    published = as_published(results(steps=True))
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(document({"digits_cnn": published})))
    monkeypatch.setattr("descend.search.suite.published.FILE", path)
    assert document(published_tasks()) == json.loads(path.read_text())


@pytest.mark.skipif(not FILE.exists(), reason="nothing is published yet")
def test_the_published_targets_are_of_these_tasks():
    published = published_tasks()
    assert published.keys() == TASKS.keys()
    for name, one in published.items():
        task = seeded_task(TASKS[name], {}, 0)
        steps = -(-sample_count(task.train) // task.batch_size)
        parameters = sum(parameter.numel() for parameter in task.model.parameters())
        assert (one.length, one.parameters) == (task.epochs * steps, parameters)
        assert one.target < one.untrained
        assert "adamw" in [baseline.name for baseline in one.baselines]
