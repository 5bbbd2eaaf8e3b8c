"""The sentence says what was found, and no more."""

import pytest

from descend.report.comparison_cells import ratio
from descend.search.sentence import sentence
from search.made_results import DIVERGED, KINDS, NEVER, UNTRAINED, results

LIKE_ADAMW = "reaches the validation_loss of adamw with its defaults"


def test_p71_a_contender_that_is_better():
    said = results(["adamw", "lion", "nadam"])["sentence"]
    assert said.startswith(f"lion at lr 0.000548 {LIKE_ADAMW} in 0.2")
    assert "of the time (95 %: 0." in said
    assert said.endswith(
        ", 7 seeds; it ends better than tuned adamw, which takes 0.53 of the time."
    )  # fmt: skip


def test_p71_no_contender_is_better():
    found = results(["adamw", "nadam", "rmsprop"])
    for one in found["contenders"]:
        if one["name"] == "nadam":
            one["against"]["verdict"] = "not separated"
    said = sentence(found)
    assert said.startswith(f"tuned adamw at lr 0.00548 {LIKE_ADAMW}")
    assert said.endswith("7 seeds; not separated from it: nadam; worse: rmsprop.")


def test_p71_the_budget_in_steps_is_told_in_steps():
    assert "of the steps (95 %" in results(["adamw"], steps=True)["sentence"]
    assert results(["adamw"])["sentence"].endswith("5 seeds.")


def test_p71_nobody_reaches_the_target_or_only_once():
    said = results(["adamw", "nadam"], reach=0.3)["sentence"]
    assert "never reaches the validation_loss of adamw with its defaults, 6 seeds" in said
    found = results(["adamw"])
    found["contenders"][0]["fraction"] |= {"median": None, "per_seed": [None, 0.9, None, None]}
    assert " with only 1 of 4 seeds." in sentence(found)
    said = results(["adamw", "lion"], reach=0.58)["sentence"]
    assert said.endswith("it ends better than tuned adamw, which does not reach that.")


def test_p71_a_median_that_is_reached_by_not_all():
    found = results(["adamw"])
    found["contenders"][0]["fraction"] |= {"median": 0.9, "low": 0.8, "high": None}
    assert "in 0.90 of the time (95 %: 0.80 to never)" in sentence(found)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind[-1]])
def test_p71_a_contender_that_fails_is_told(name):
    said = results(["adamw", name])["sentence"]
    told = {NEVER: f"never learned: {name}.", DIVERGED: f"diverged: {name} in 3."}
    assert said.endswith(told[KINDS[name][-1]])


def test_p71_a_contender_whose_code_fails_is_told():
    found = results(["adamw", "nadam"])
    found["contenders"][-1] |= {"against": None, "learned": False, "error": "ValueError: no"}
    assert sentence(found).endswith("; fails: nadam.")


def test_p71_nobody_learns():
    found = results(["adamw", "adadelta"])
    for one in found["contenders"]:
        one |= {"learned": False, "mean": UNTRAINED}
    assert sentence(found).startswith("No contender learned: none ends with a better")


def test_p71_the_chosen_one_diverges_at_times():
    found = results(["adamw"])
    found["contenders"][0]["diverged"] = 2
    found["contenders"][0]["chosen"] = {"weight_decay": 0.01}
    assert "lr 0.00548, weight_decay 0.01 reaches" in sentence(found)
    assert sentence(found).endswith("; 2 of its trainings diverged.")


def test_a_ratio():
    assert [ratio(value) for value in (0.0999, 0.1, 0.004)] == ["0.1", "0.10", "0.004"]
