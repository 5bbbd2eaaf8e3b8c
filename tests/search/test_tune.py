"""Searches: what they find, and that nothing that stops one changes that."""

import errno
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import descend
from cli.commands import invoke
from descend.checkpoint import load
from descend.errors import OutputError, SearchError
from descend.search import asked_trials, shared_search
from descend.search.asked_trials import Asked, Judge
from descend.search.comparison import News
from descend.search.space import Space, read_space
from descend.search.study_storage import open_storage, quiet, reached
from descend.search.tuning import tune
from search.small_tasks import written

pytest.importorskip("optuna")
SPACE = "lr=log(1e-3,1)"
STEPS = 18


@pytest.fixture(autouse=True)
def without_page(monkeypatch, request):
    if "page" not in request.node.name:
        monkeypatch.setattr("descend.search.tuning._Search._draw", lambda *given: None)


class Told(News):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def tuned(task="small.py", space=SPACE, folder="out", **options):
    usual = {"trials": 6, "steps": STEPS, "confirm": 1, "jobs": 1}
    return tune(task, space, folder=folder, **{**usual, **options}).results


def written_by(folder):
    return [Path(folder, name).read_bytes() for name in ("results.json", "BEST")]


def test_p70_the_number_of_trials_is_the_total(small):
    four = tuned(trials=4, pruner="none")
    again = tuned(trials=4, pruner="none")
    six = tuned(trials=6, pruner="none")
    assert four == again
    assert len(six["trials"]) == 6
    assert six["trials"][:4] == four["trials"]
    assert [one["number"] for one in six["trials"]] == [*range(6)]
    assert len(list(Path("out/trials").iterdir())) == 6
    assert len(tuned(trials=2, pruner="none")["trials"]) == 6  # those there are count


def test_p70_paused_trials_go_on_from_their_checkpoints_where_a_rung_opens(small, monkeypatch):
    whole = tuned(pruner="none", folder="whole")["trials"]
    monkeypatch.setattr(asked_trials, "FIRST", 0)
    monkeypatch.setattr(Judge, "tells", lambda *given: True)
    paused = tuned()["trials"]
    assert [one["params"] for one in paused] == [one["params"] for one in whole]
    assert {one["state"] for one in paused} == {"paused", "done"}
    trained = []
    original = descend.search.trial._trained
    monkeypatch.setattr(
        descend.search.trial, "_trained",
        lambda trial, folder, *rest: trained.append(folder) or original(trial, folder, *rest),
    )  # fmt: skip
    monkeypatch.setattr(Judge, "tells", lambda *given: False)  # short trainings tell nothing now
    opened = tuned()["trials"]
    assert [one["value"] for one in opened] == [one["value"] for one in whole]  # to the bit
    assert {one["state"] for one in opened} == {"done"}
    done = {f"{one['number']:04}" for one in paused if one["state"] == "done"}
    assert done.isdisjoint({folder.name for folder in trained})
    study = only_study("out")
    assert len({one.user_attrs["trial"] for one in study.trials}) == 6  # one that went on is one


def only_study(folder):
    import optuna

    with reached(None, Path(folder)):
        return optuna.load_study(study_name=None, storage=open_storage(None, Path(folder)))


def test_the_first_trial_has_the_defaults_and_the_best_is_the_best(small):
    found = tuned(space={"lr": "log(1e-4,1)", "weight_decay": "log(1e-4,1)"}, pruner="none")
    assert found["trials"][0]["params"] == {"lr": 0.001, "weight_decay": 0.01}
    values = [one["value"] for one in found["trials"]]
    assert found["best"]["value"] == min(values)
    assert found["best"]["number"] == values.index(min(values))
    told = found["confirmation"]
    assert told["seeds"] == [1]  # fresh
    assert told["worse_by"] == pytest.approx(told["mean"] - found["best"]["value"])


def test_the_best_trains_again_to_the_bit_by_its_file(small):
    found = tuned(space=f"{SPACE} warmup=float(0,0.2) beta1=float(0.8,0.95) batch_size=int(8,16)")
    done = invoke("train", small, "--from", "out/BEST", "--threads", 1, "--out", "again")
    assert done.exit_code == 0, done.output
    (one,) = Path("out", found["model"]).iterdir()
    other = max(Path("again/checkpoints").iterdir())
    one, other = load(one)["model"], load(other)["model"]
    assert all(np.array_equal(one[key], other[key]) for key in one)


class Killed(BaseException):
    pass


def test_p70_a_search_killed_before_or_after_any_note_goes_on_to_the_same_end(small, monkeypatch):
    monkeypatch.setattr(asked_trials, "RANDOM", 2)
    monkeypatch.setattr(asked_trials, "FIRST", 2)
    monkeypatch.setattr(asked_trials, "ENOUGH", 2)
    tuned(folder="whole", trials=6)
    left = [0]

    def dying(method):
        def called(self, *given, **named):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            method(self, *given, **named)
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        return called

    for name in ("add", "claim", "report", "end"):
        method = getattr(shared_search.SharedSearch, name)
        monkeypatch.setattr(shared_search.SharedSearch, name, dying(method))
    # Of four that are asked for: before the second, and after it; while they are told; and so on
    for left[0] in (3, 4, 13, 16, 5, 9):
        with pytest.raises(Killed):
            tuned(trials=6)
    left[0] = 0
    tuned(trials=6)
    assert written_by("out") == written_by("whole")


def test_a_training_that_diverges_is_the_worst_and_does_not_go_on(small):
    found = tuned(space="optimizer=sgd lr=choice(1e-2,1e30)", pruner="none", trials=4)
    for one in found["trials"]:
        assert one["state"] == ("diverged" if one["params"]["lr"] > 1 else "done")
    assert {one["state"] for one in found["trials"]} == {"diverged", "done"}
    judge = Judge(Space(read_space(SPACE), {}), 0, False, "halving", (1, 3, 9))
    one = Asked(0, {}, {}, "diverged", {1: 0.5})
    assert judge._shown(one).intermediate_values == {1: float("inf")}


FAILING = """
    import torch, descend

    def task(width: int = 8):
        if width in BAD:
            raise RuntimeError("no such width")
        x = torch.arange(40.0).reshape(20, 2) / 40
        net = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))
        data = (x, x.sum(1, keepdim=True))
        loss = torch.nn.functional.mse_loss
        return descend.Task(model=net, train=data, validation=data, loss=loss, batch_size=5)
"""


def test_a_trial_whose_code_fails_is_told_of_and_the_rest_goes_on(small, tmp_path):
    written(tmp_path, "some.py", FAILING.replace("BAD", "(4,)"))
    news = Told()
    found = tuned("some.py", "width=choice(4,8,12)", news=news, pruner="none")
    for one in found["trials"]:
        assert one["state"] == ("failed" if one["params"]["width"] == 4 else "done")
        assert ("some.py, line" in one["why"]) == (one["state"] == "failed")
    assert any("failed: some.py, line" in line for line in news.lines)
    assert {one["state"] for one in found["trials"]} == {"failed", "done"}


def test_where_all_of_the_first_fail_it_stops_and_goes_on_when_that_is_mended(small, tmp_path):
    file = written(tmp_path, "all.py", FAILING.replace("BAD", "(9, 10, 11, 12)"))
    with pytest.raises(SearchError, match=r"all of the first 4 trials failed: .*no such width"):
        tuned("all.py", "width=int(9,12)")
    file.write_text(file.read_text().replace("(9, 10, 11, 12)", "()"))
    news = Told()
    found = tuned("all.py", "width=int(9,12)", news=news)
    assert "failed" not in {one["state"] for one in found["trials"]}
    assert any("all.py has changed since the search was begun" in line for line in news.lines)


def test_several_seeds_are_averaged_and_a_trial_that_is_surely_worse_is_stopped(small):
    found = tuned(space="lr=choice(0.001,1e-9,1e-8)", seeds=5, trials=4, at_once=1)
    assert found["search"]["pruner"] == "wilcoxon"
    for one in found["trials"]:
        slow = one["params"]["lr"] < 1e-7
        assert one["state"] == ("paused" if slow else "done")
        assert len(one["values"]) == (4 if slow else 5)  # of fewer no test is sure
        if not slow:
            assert one["value"] == pytest.approx(np.mean([*one["values"].values()]))
    assert {one["state"] for one in found["trials"]} == {"paused", "done"}
    assert found["confirmation"]["seeds"] == [5]
    assert Path("out", found["model"]).is_dir()


def test_rungs_prune_only_where_they_tell(small):
    judge = Judge(Space(read_space(SPACE), {}), 0, False, "halving", (1, 3, 9))

    def trials(early, last, start=10.0):
        return [
            Asked(number, {}, {}, "done", {1: one, 3: one, 9: other}, other, start=start)
            for number, (one, other) in enumerate(zip(early, last, strict=True))
        ]

    falling = [*range(8, 0, -1)]
    assert judge.tells(trials(falling, falling), 1)
    assert not judge.tells(trials(falling, falling[::-1]), 1)  # the slower win
    assert not judge.tells(trials([9.9 + one / 100 for one in falling], falling), 1)  # nothing yet
    assert not judge.tells(trials(falling[:5], falling[:5]), 1)  # not known yet
    worse = Asked(8, {}, {}, "running", {1: 9.0}, start=10.0)
    assert judge.prunes([*trials(falling, falling), worse], worse, 1)
    assert not judge.prunes([*trials(falling, falling[::-1]), worse], worse, 1)


def test_what_is_asked_next_hangs_on_the_results_alone(small):
    space = Space(read_space("lr=log(1e-3,1) optimizer=choice(adamw,sgd)"), {})
    judge = Judge(space, 0, False, "none", (9,))
    trials = []
    for number in range(12):
        ask = judge.ask(trials, number)
        assert judge.ask(trials, number).params == ask.params
        trials.append(Asked(number, ask.params, ask.distributions, "done", {9: number}, number))
    assert Judge(space, 1, False, "none", (9,)).ask(trials, 12).params != judge.ask(
        trials, 12).params  # fmt: skip


def test_the_folder_of_another_search_is_refused(small):
    tuned(trials=1, confirm=0)
    with pytest.raises(SearchError, match=r"--space was lr:log\(1e-3,1\) and is lr:log\(1e-3,2\)"):
        tuned(space="lr=log(1e-3,2)")
    with pytest.raises(SearchError, match="--seed was 0 and is 1"):
        tuned(seed=1)
    with pytest.raises(SearchError, match="a search that the storage does not know"):
        tuned(storage="journal.log")
    Path("foreign").mkdir()
    Path("foreign/notes.txt").touch()
    with pytest.raises(OutputError, match="holds files already"):
        tuned(folder="foreign")


def test_trials_in_a_folder_that_others_do_not_see_are_refused(small):
    tuned(storage="journal.log", trials=1, confirm=0)
    with pytest.raises(SearchError, match=r"with its trials in .*/out on .*a path that all"):
        tuned(storage="journal.log", folder="elsewhere")


@pytest.mark.parametrize(
    "storage",
    [
        "nowhere/journal.log",
        "sqlite:////nowhere/study.db",
        "postgresql://me:secret@localhost:1/x",
        "nonsense://me:secret@x",
        "/dev/full",
    ],
)
def test_a_storage_that_cannot_be_reached_or_is_full_is_one_error(small, storage):
    with pytest.raises(SearchError, match="the storage cannot be used") as caught:
        tuned(storage=storage)
    assert "secret" not in str(caught.value)
    assert storage.partition("://")[0] in str(caught.value)


def test_a_full_disk_is_one_error_and_the_search_goes_on_from_there(small, monkeypatch):
    tuned(folder="whole", trials=3)
    monkeypatch.setattr("descend.search.trial._note", failing_once())
    with pytest.raises(OutputError, match="No space left"):
        tuned(trials=3)
    tuned(trials=3)
    assert written_by("out") == written_by("whole")


def failing_once():
    from descend.search.trial import _note

    calls = []

    def note(*given):
        calls.append(1)
        if len(calls) == 2:
            raise OutputError("record.json: cannot be written: No space left on device")
        _note(*given)

    return note


def test_a_storage_that_fills_up_is_one_error_and_the_search_goes_on_from_there(small, monkeypatch):
    from optuna.storages.journal import JournalFileBackend

    tuned(folder="whole", trials=3)
    append, calls = JournalFileBackend.append_logs, []

    def full(self, logs):
        calls.append(1)
        if len(calls) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(SearchError, match=r"journal\.log: the storage .*No space left"):
        tuned(trials=3, storage="journal.log")
    tuned(trials=3, storage="journal.log")
    assert written_by("out") == written_by("whole")


def test_a_process_of_another_machine_is_dead_when_its_heartbeat_is_missed(small, monkeypatch):
    from optuna.storages import RDBStorage, get_storage

    def beating(asked, folder):
        with quiet():
            url = "sqlite:///study.db"
            return get_storage(RDBStorage(url, heartbeat_interval=60, grace_period=1))

    monkeypatch.setattr(shared_search, "open_storage", beating)
    ask = Judge(Space(read_space(SPACE), {}), 0, False, "none", (9,)).ask([], 0)
    shared = shared_search.SharedSearch(Path("out"), "db", {}, {}, False)
    shared.me, mine = "elsewhere-1-abcdef", shared.me
    with shared.changing():
        shared.add(Asked(0, ask.params, ask.distributions, "running"))
        shared.beat(shared.trials())
        shared.me = mine
        assert not shared.orphaned(shared.trials())
    time.sleep(3)
    with shared.changing():
        (one,) = shared.orphaned(shared.trials())
        shared.claim(one)
        shared.beat(shared.trials())
        assert shared.trials()[0].owner == mine
        assert not shared.orphaned(shared.trials())
    shared.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "trials must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"confirm": -1}, "confirm must be"),
        ({"pruner": "hyperband"}, "pruner must be"),
        ({"pruner": "wilcoxon"}, "give several, such as --seeds 6"),
        ({"pruner": "halving", "seeds": 3}, "those of several seeds are compared"),
        ({"metric": "f1"}, "f1:highest or f1:lowest"),
        ({"schedule": "cosin(1)"}, "did you mean cosine?"),
        ({"task": "nowhere.py"}, "there is no such file"),
        ({"metric": "accuracy"}, "measures no such thing"),
    ],
)
def test_bad_input_is_told_in_one_line(small, options, said):
    with pytest.raises(descend.errors.DescendError) as caught:
        tuned(**options)
    assert said in str(caught.value)


def test_without_optuna_the_line_that_installs_it_is_told(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SearchError, match=r"pip install 'descend\[tune\]'"):
        tuned()


def test_the_page_is_whole_in_itself(small):
    found = tune(
        small, f"{SPACE} optimizer=choice(adamw,sgd) momentum=float(0,0.9)",
        trials=6, steps=STEPS, confirm=2, jobs=1, pruner="none",
    )  # fmt: skip
    page = (found.folder / "report.html").read_text()
    for word in ("history", "importances", "parallel coordinates", "momentum", "fresh seeds"):
        assert word in page
    assert "descend train small.py --from" in page
    assert "http" not in page.replace("http-equiv", "")
    json.loads((found.folder / "results.json").read_text())
