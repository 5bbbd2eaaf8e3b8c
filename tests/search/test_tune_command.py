"""`descend tune`: its options, and what it prints."""

import json
from pathlib import Path

import pytest

from cli.commands import document, invoke
from descend.cli.tune import spread
from search.small_tasks import written

pytest.importorskip("optuna")
QUICK = ["--trials", 2, "--steps", 12, "--confirm", 2, "--jobs", 1, "--pruner", "none"]


def test_several_values_stand_after_one_space():
    line = "my.py --space a=1 b=int(1,2) --trials 3 --space c=2 --out x=y d=3"
    each = "my.py --space a=1 --space b=int(1,2) --trials 3 --space c=2 --out x=y d=3"
    assert spread(line.split()) == each.split()
    assert spread(["--space", "a=1", "my.py"]) == ["--space", "a=1", "my.py"]


def test_a_search_tells_the_best_its_luck_and_the_command_that_trains_it(small):
    done = invoke("tune", small, "--space", "lr=log(1e-3,1)", "batch_size=int(8,16)", *QUICK)
    assert done.exit_code == 0, done.output
    for word in ("2 trials: 2 done", "best    trial", "batch_size=", "On 2 fresh seeds its"):
        assert word in done.output
    (line,) = (one for one in done.output.splitlines() if one.startswith("train it"))
    words = line.split()[3:]
    assert invoke(*words, "--out", "again").exit_code == 0
    assert Path(words[words.index("--from") + 1]).parent.parent == Path("tune")


def test_the_document_is_that_of_the_folder(small):
    found = document("tune", small, "--space", "lr=choice(0.1,0.01)", *QUICK, "--out", "out")
    assert found == json.loads(Path("out/results.json").read_text())
    assert set(found) == {
        "format", "task", "metric", "search", "trials", "best", "confirmation", "model",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--space", "widht=int(8,64)"], "neither the task nor adamw has such a name"),
        ([], "Missing option '--space'"),
        (["--space", "lr=log(1e-3,1)", "--trials", "0"], "--trials 0: it must be"),
        (["--space", "lr=log(1e-3,1)", "--pruner", "hyperband"], "--pruner hyperband: it must be"),
    ],
)
def test_bad_input_is_one_line(small, options, said):
    done = invoke("tune", small, *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_digits_are_searched_where_no_file_is_given(small):
    done = invoke("tune", "--space", "lr=choice(0.1,0.01)", *QUICK, "--confirm", 0)
    assert done.exit_code == 0, done.output
    assert "not trained on fresh seeds" in done.output
    assert "descend train --from tune/digits" in done.output


def test_a_task_of_ones_own_arguments_is_searched(small, tmp_path):
    text = """
    import torch, descend

    def task(width: int = 8):
        x = torch.arange(40.0).reshape(20, 2) / 40
        net = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))
        data = (x, x.sum(1, keepdim=True))
        loss = torch.nn.functional.mse_loss
        return descend.Task(model=net, train=data, validation=data, loss=loss, batch_size=5)
    """
    written(tmp_path, "wide.py", text)
    done = invoke("tune", "wide.py", "--space", "width=int(4,64,log)", *QUICK, "--out", "out")
    assert done.exit_code == 0, done.output
    best = json.loads(Path("out/BEST").read_text())
    assert 4 <= best["arguments"]["width"] <= 64
