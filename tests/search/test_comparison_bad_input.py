"""What a comparison refuses: one clear error each, and nothing is trained for it."""

import errno
import re
import sys
from pathlib import Path

import pytest

from children import python
from descend.errors import DescendError, OutputError, RunError, SearchError, TaskError
from descend.run.lock import lock
from search.small_tasks import SMALL, written
from search.test_comparison import Told, compared, without_page  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("contenders", "options", "words"),
    [
        (["adamx"], {}, "compare: adamx: there is no such optimizer; did you mean adamax"),
        (["lion", "lion"], {}, "lion is given twice"),
        (["sgd:momentum"], {}, "after the name stands NAME=VALUE"),
        (["sgd:momentom=0.9"], {}, "sgd has no such hyperparameter; did you mean momentum"),
        (["sgd:lr=-1"], {}, "lr=-1: it must be a number above 0"),
        (["sgd:schedule=cosine"], {}, "schedule=cosine: allowed is constant"),
        (["lion"], {"budget": "soon"}, "must be a time for the whole comparison, such as 90s"),
        (["lion"], {"budget": "0s"}, "must be a time for the whole comparison"),
        (["lion"], {"budget": "100steps"}, r"is too small for 2 contenders .* give 484steps"),
        (["lion"], {"metric": "f1"}, "whether it is best when highest or lowest is not known"),
        (["lion"], {"metric": "nae", "highest": False}, "did you mean validation_mae"),
        (["lion"], {"seeds": 1}, "seeds must be"),
        (["lion"], {"jobs": 0}, "jobs must be"),
        (["lion"], {"threads": 0}, "threads must be"),
        (["lion"], {"schedule": "cosin(1)"}, "cosin"),
        (["lion"], {"arguments": {"width": 3}}, "width"),
        (["nowhere.py:Rule"], {}, "nowhere.py"),
        (["rules.py:Zero"], {}, "its default lr is 0.0, .* such as rules.py:Zero:lr=0.1"),
    ],
)
def test_bad_input_is_told_in_one_line(contenders, options, words, small):
    with pytest.raises(DescendError, match=words) as caught:
        compared(small, contenders, **options)
    assert "\n" not in str(caught.value)
    assert not [*Path().glob("out/trials/*/checkpoints/*")]


def test_a_budget_that_was_told_to_be_enough_is_enough(small):
    with pytest.raises(SearchError, match="give") as caught:
        compared(small, ["lion"], budget="100steps")
    told = re.search(r"give (\d+steps)", str(caught.value))[1]
    assert compared(small, ["lion"], budget=told)["budget"]["length"] == 24


def test_another_question_in_its_folder_is_refused(small):
    compared(small, ["sgd:lr=0.1"])
    with pytest.raises(RunError, match="--seed was 0 and is 1"):
        compared(small, ["sgd:lr=0.1"], seed=1)
    with open(small, "a") as file:
        file.write("# changed\n")
    Path("out/results.json").unlink()
    with pytest.raises(SearchError, match=r"began with another small\.py"):
        compared(small, ["sgd:lr=0.1"])
    compared(small, ["sgd:lr=0.1"], fresh=True)


def test_a_folder_with_other_things_in_it_is_refused(small):
    Path("out").mkdir()
    Path("out/letter.txt").write_text("dear")
    for fresh in (False, True):
        with pytest.raises(OutputError, match="holds files already"):
            compared(small, ["lion"], fresh=fresh)
    assert Path("out/letter.txt").exists()


def failing(where):
    return (
        SMALL.replace("task = descend", "import random\n    task = descend")
        .replace("torch.nn.Tanh(),", "torch.nn.Tanh(), Failing(),")
        .replace(
            "generator =",
            f"""class Failing(torch.nn.Module):
        def forward(self, x):
            if {where}:
                raise ValueError("no luck")
            return x

    generator =""",
            1,
        )
    )


def test_a_task_that_always_fails_stops_at_once(tmp_path, small):
    task = written(tmp_path, "failing.py", failing("True"))
    with pytest.raises(SearchError, match=r"failing\.py, line \d+.*no luck"):
        compared(str(task), ["lion"])
    assert not Path("out/trials").exists()


def test_a_training_that_fails_is_told_and_the_others_go_on(tmp_path, small):
    # Only where a weight has become large: with a large learning rate
    task = written(tmp_path, "failing.py", failing("x.detach().abs().max().item() > 1 - 1e-6"))
    news = Told()
    found = compared(str(task), ["sgd:lr=1"], news=news)
    assert any("fails" in line and "no luck" in line for line in news.lines)
    assert found["recommended"] == "adamw"


def test_a_full_disk_is_told_in_one_line(small, monkeypatch):
    from descend.search import json_file

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json_file, "replaced", full)
    with pytest.raises(OutputError, match="No space left on device; give another --out"):
        compared(small, ["lion"])


def test_without_scipy_nothing_is_trained(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(SearchError, match=r"pip install 'descend\[compare\]'"):
        compared(small, ["lion"])
    assert not Path("out").exists()


def test_a_task_that_is_not_there_is_told(small):
    with pytest.raises(TaskError, match=r"nowhere\.py: there is no such file"):
        compared("nowhere.py", ["lion"])


def test_a_file_that_is_damaged_is_told_and_is_made_again_when_it_is_removed(small):
    first = compared(small, ["sgd:lr=0.1"])
    for pattern in ("compare.json", "timing.json", "trials/sgd-seed1-*/record.json"):
        (path,) = Path("out").glob(pattern)
        whole = path.read_bytes()
        for bad in (whole[: len(whole) // 2], b"[]", b'{"format": 1}', b"\xff"):
            Path("out/results.json").unlink(missing_ok=True)
            path.write_bytes(bad)
            with pytest.raises(SearchError, match=f"{re.escape(str(path))} is damaged"):
                compared(small, ["sgd:lr=0.1"])
        fresh = path.name == "compare.json"
        if not fresh:
            path.unlink()
        assert compared(small, ["sgd:lr=0.1"], fresh=fresh) == first
    Path("out/results.json").write_text("{")
    with pytest.raises(SearchError, match=r"results\.json is damaged"):
        compared(small, ["sgd:lr=0.1"])


def test_a_comparison_under_way_is_not_removed_by_another(small, tmp_path):
    compared(small, ["sgd:lr=0.1"])
    Path("out/results.json").unlink()
    code = "import sys; from descend.search.comparison import compare; " + (
        "compare('small.py', ['sgd:lr=0.1'], folder='out', fresh=True, budget='640steps', jobs=1)"
    )
    held = lock(Path("out").resolve())
    done = python("-c", code, status=1)
    assert "another process trains in" in done.stderr
    held.release()
    assert [*Path("out/trials").iterdir()]
