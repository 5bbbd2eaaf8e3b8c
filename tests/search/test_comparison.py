"""Comparisons: what they find, that they do not lie, and that nothing stops them for good."""

import json
import math
from pathlib import Path

import pytest

import descend
from checkpoint.bits import assert_same
from children import python
from descend.checkpoint import load
from descend.checkpoint.randomness import last_seed, random_states, randomness_kept
from descend.errors import DescendError
from descend.search import comparison_results
from descend.search.comparison import News, compare
from descend.search.contender import read_contender
from descend.search.ends import schedule_text, train_ends
from descend.search.halving import Search, halve
from descend.search.trial import Trial, train_trial
from descend.search.tuning import tune
from descend.search.workers import Workers
from search.small_tasks import SMALL, written

STEPS = "640steps"  # trainings of some 30


@pytest.fixture(autouse=True)
def without_page(monkeypatch):
    monkeypatch.setattr("descend.search.comparison._draw", lambda folder: None)


class Told(News):
    def __init__(self, stop_at=None):
        self.lines, self.shown, self.stop_at = [], 0, stop_at

    def say(self, line):
        self.lines.append(line)

    def show(self, text, done=None, total=None):
        self.shown += 1
        if self.shown == self.stop_at:
            raise KeyboardInterrupt


def compared(task, contenders, folder="out", **options):
    options = {"budget": STEPS, "jobs": 1, **options}
    return compare(task, contenders, folder=folder, **options).results


def test_p71_every_contender_is_tuned_on_as_many_tries_and_compared_at_its_ends(whole):
    found = json.loads(whole)
    names = [one["name"] for one in found["contenders"]]
    assert sorted(names) == ["adamw", "lion"]  # tuned AdamW always stands among them
    assert len({len(one["search"]) for one in found["contenders"]}) == 1
    for one in found["contenders"]:
        tried = [each["lr"] for each in one["search"] if each["length"] == one["length"] // 3]
        assert max(tried) / min(tried) > 800
        full = {each["lr"]: each["value"] for each in one["search"] if each["length"] > 20}
        assert full[one["lr"]] == min(full.values())
        assert len(one["values"]) == len(found["budget"]["seeds"]) == 6
        assert one["ends"][-1]["values"] == one["values"]
        assert [curve[-1][1] for curve in one["curves"]] == one["values"]
    assert found["budget"]["search_seed"] not in found["budget"]["seeds"]  # fresh ones


def test_p71_equal_seeds_mean_equal_first_weights_whatever_the_optimizer(small, tmp_path):
    records = [
        train_trial(Trial(small, {}, name, None, {}, {}, 8, 3), tmp_path / name)
        for name in ("adamw", "lion", "rules.py:Nothing")
    ]
    assert len({record.start for record in records}) == 1
    assert records[2].value == records[2].start


def test_ends_that_branch_off_a_trunk_are_those_of_trainings_of_their_own(small, tmp_path):
    text = schedule_text(None, 32, 32)
    trial = Trial(small, {}, "adamw", 0.03, {}, {"lr": text}, 32, 1)
    lengths = [4, 8, 16, 32]
    ends = train_ends(trial, lengths, tmp_path / "ends", None, "validation_loss")
    for length, end in zip(lengths, ends, strict=True):
        own = Trial(
            small, {}, "adamw", 0.03, {}, {"lr": schedule_text(None, 32, length)}, length, 1
        )
        assert train_trial(own, tmp_path / f"own-{length}").value == end.value
    whole = [load(tmp_path / name) for name in ("ends", "own-32")]
    for part in ("model", "optimizer"):
        assert not descend.checkpoint.diff(*({part: state[part]} for state in whole))


@pytest.mark.parametrize("shape", ["cosine(1)", "constant"])
def test_with_another_schedule_each_length_ends_its_own(shape, small, tmp_path):
    text = schedule_text(shape, 16, 16)
    trial = Trial(small, {}, "sgd", 0.1, {}, {"lr": text} if text else {}, 16, 1)
    ends = train_ends(trial, [4, 16], tmp_path / "ends", shape, "validation_loss")
    assert [end.step for end in ends] == [4, 16]
    text = schedule_text(shape, 16, 4)
    own = Trial(small, {}, "sgd", 0.1, {}, {"lr": text} if text else {}, 4, 1)
    assert train_trial(own, tmp_path / "own").value == ends[0].value


@pytest.mark.parametrize("at", [3, 12, 30, 45])
def test_p70_stopped_anywhere_it_goes_on_to_the_same_results(at, small, whole):
    with pytest.raises(KeyboardInterrupt):
        compared(small, ["lion"], folder="stopped", news=Told(stop_at=at))
    assert json.dumps(compared(small, ["lion"], folder="stopped")) == whole


def test_p70_the_results_do_not_depend_on_the_number_of_processes(small, whole):
    assert json.dumps(compared(small, ["lion"], folder="two", jobs=2)) == whole


def test_a_script_without_a_guard_is_run_once(small):
    Path("script.py").write_text(
        "print('once')\n"
        "import descend\n"
        "from descend.search import comparison\n"
        "comparison._draw = lambda folder: None\n"
        "found = descend.compare('small.py', ['lion:lr=1e-3'], budget='640steps', jobs=2)\n"
        "print(found.results['recommended'])\n"
    )
    done = python("script.py")
    assert done.stdout.splitlines()[0] == "once"
    assert len(done.stdout.splitlines()) == 2


def test_the_generators_and_the_seed_of_who_asks_stay_as_they_are(small):
    with randomness_kept():
        descend.seed_everything(41)
        before = random_states()
        compared(small, ["sgd:lr=0.1"], seeds=2)
        tune(small, "lr=log(1e-3,1)", trials=1, steps=20, confirm=1, jobs=1, folder="sought")
        assert_same(random_states(), before)
        assert last_seed() == 41
        with pytest.raises(DescendError):
            compared(small, ["sgd:lr=0.1"], folder="other", arguments={"width": 3})
        assert_same(random_states(), before)
        assert last_seed() == 41


def test_too_few_seeds_for_any_verdict_are_warned_of(small):
    news = Told()
    found = compared(small, ["adamw:lr=3e-2", "adamw:lr=3e-4"], seeds=2, news=news)
    assert {one["against"]["verdict"] for one in found["contenders"] if one["against"]} == {
        "not separated"
    }
    assert any(
        "with 2 seeds no verdict" in line and "7 are the least" in line for line in news.lines
    )


def test_p70_a_plan_within_a_time_stays_with_other_jobs(small):
    contenders = ["adamw:lr=0.03", "sgd:lr=0.1"]
    with pytest.raises(KeyboardInterrupt):
        compared(small, contenders, budget="10.6s", news=Told(stop_at=4))
    times = json.loads((Path("out") / "timing.json").read_text())
    for one in times["steps"].values():  # as of steps that take long: the budget is scarce
        one |= {"processor_us": 3000.0, "wall_us": 3000.0, "validation_us": 0.0}
    (Path("out") / "timing.json").write_text(json.dumps(times))
    found = compared(small, contenders, budget="10.6s")
    assert found["budget"]["length"] < 32
    (Path("out") / "results.json").unlink()
    assert compared(small, contenders, budget="10.6s", jobs=2) == found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a comparison that nobody stopped, in `out`."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("descend.search.comparison._draw", lambda folder: None)
        written(folder, "small.py", SMALL)
        compared("small.py", ["lion"])
    return folder


@pytest.fixture
def whole(place):
    """Its results."""
    return json.dumps(json.loads((place / "out/results.json").read_text()))


def test_nothing_is_trained_twice(place, whole, monkeypatch):
    monkeypatch.chdir(place)
    (place / "out/results.json").rename("before.json")
    monkeypatch.setattr("descend.search.trial.Trainer", None)
    assert json.dumps(compared("small.py", ["lion"])) == whole


def test_the_checkpoints_of_the_model_to_take_are_the_only_ones_left(place, whole):
    found = json.loads(whole)
    assert found["model"]
    left = {path.parent for path in place.glob("out/**/step-*")}
    assert left == {place / "out" / found["model"]}


def test_the_weight_decay_is_searched_on_request(small):
    found = compared(small, ["sgd:weight_decay=0"], weight_decay=True)
    own, fixed = sorted(found["contenders"], key=lambda one: one["name"] != "adamw")
    tried = {each["settings"].get("weight_decay") for each in own["search"]}
    assert {None, 0.0, 0.01, 0.1, 0.5} <= tried
    assert not any(each["settings"] for each in fixed["search"])
    last = {
        (each["lr"], each["settings"].get("weight_decay")): each["value"]
        for each in own["search"]
        if each["length"] == own["length"]
    }
    chosen = own["lr"], own["chosen"].get("weight_decay")
    assert last[chosen] == min(last.values())


@pytest.mark.parametrize(
    ("fractions", "recommended"),
    [([0.2, 0.21, 0.19], "lion"), ([0.4, 0.41, 0.39], "adamw"), ([0.2, 0.2, None], "adamw")],
)
def test_better_in_the_end_and_later_at_the_target_is_not_recommended(fractions, recommended):
    def entry(name, per_seed, against):
        return {"name": name, "fraction": {"per_seed": per_seed}, "against": against}

    contenders = [
        entry("lion", fractions, {"verdict": "better"}),
        entry("adamw", [0.3, 0.3, 0.3], None),
    ]
    assert comparison_results._recommended(contenders)[0]["name"] == recommended


def test_adamw_under_another_name_is_not_separated_from_it(small):
    found = compared(small, ["rules.py:Same"])
    same, own = sorted(found["contenders"], key=lambda one: one["name"] == "adamw")
    assert same["against"]["verdict"] == "not separated"
    assert same["values"] == own["values"]
    assert found["recommended"] == "adamw"


def test_adamw_at_a_hundredth_of_its_lr_is_separated(small):
    found = compared(small, ["adamw:lr=3e-2", "adamw:lr=3e-4"])
    verdicts = {one["name"]: one["against"] for one in found["contenders"]}
    assert verdicts["adamw:lr=3e-4"]["verdict"] == "worse"
    assert not any(one["search"] for one in found["contenders"] if one["fixed_lr"])


def test_a_contender_that_never_learns_is_told(small):
    found = compared(small, ["rules.py:Nothing"])
    (nothing,) = (one for one in found["contenders"] if one["name"] != "adamw")
    assert not nothing["learned"]
    assert "never learned: rules.py:Nothing" in found["sentence"]
    assert nothing["lr"] == nothing["default_lr"]  # of equals, and nothing is beyond an edge


def test_a_training_that_diverges_counts_as_an_untrained_one(small):
    found = compared(small, ["sgd:lr=1e30"])
    (wild,) = (one for one in found["contenders"] if one["name"] != "adamw")
    assert wild["diverged"] == len(wild["values"])
    assert wild["mean"] == pytest.approx(found["untrained"])
    assert wild["against"]["verdict"] == "worse"


QUADRATIC = """
    import torch, descend

    HIGH, NOISE, STEPS = 1.0, {noise}, {steps}

    class Point(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = torch.nn.Parameter(torch.ones(400))

        def forward(self, x):
            return self.theta - x

    noise = NOISE * torch.randn(STEPS, 400)
    task = descend.Task(
        model=Point(),
        train=(noise, torch.zeros(STEPS)),
        validation=(torch.zeros(1, 400), torch.zeros(1)),
        loss=lambda out, _: out.square().sum() / 2,
        batch_size=1,
        epochs=1,
    )
"""


def best_lr(noise, steps):
    """Of SGD on theta^2 / 2 from 1, with noisy gradients: the lr of the least expected end."""

    def end(lr):
        kept = (1 - lr) ** (2 * steps)
        return kept + (lr * noise) ** 2 * (1 - kept) / (1 - (1 - lr) ** 2)

    return min((10 ** (-4 + number / 500) for number in range(2000)), key=end)


@pytest.mark.parametrize("seed", range(20))
def test_h3_the_best_lr_of_a_noisy_quadratic_is_found(seed, tmp_path):
    noise, steps = 0.3 * 1.5 ** (seed % 5), 60
    task = written(tmp_path, "quadratic.py", QUADRATIC.format(noise=noise, steps=steps))
    contender = read_contender("sgd:schedule=constant")

    def make(candidate):
        return Trial(str(task), {}, "sgd", candidate.lr, {}, {}, steps, seed)

    search = Search(contender, steps, make, tmp_path / "trials", False, "constant")
    with Workers(1) as workers:
        halve([search], (9, 4), lambda stage, work: dict(workers.run(work)), lambda line: None,
              metric="validation_loss", weight_decay=False)  # fmt: skip
    assert abs(math.log(search.best.lr / best_lr(noise, steps))) < math.log(1.5)


@pytest.mark.slow
def test_of_forty_comparisons_of_adamw_with_itself_at_most_three_separate_it(small):
    separated = 0
    for number in range(40):
        found = compared(small, ["rules.py:Same"], folder=f"out{number}", seed=100 * number)
        (same,) = (one for one in found["contenders"] if one["name"] != "adamw")
        separated += same["against"]["verdict"] != "not separated"
    assert separated <= 3


@pytest.mark.slow
def test_of_twenty_comparisons_with_a_hundredth_of_the_lr_all_separate_it(small):
    for number in range(20):
        found = compared(
            small, ["adamw:lr=3e-2", "adamw:lr=3e-4"], folder=f"out{number}", seed=100 * number
        )
        verdicts = {one["name"]: one["against"] for one in found["contenders"]}
        assert verdicts["adamw:lr=3e-4"]["verdict"] == "worse"
