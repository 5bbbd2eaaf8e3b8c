"""The answer of a comparison in the terminal."""

import pytest

from descend.cli.compare_text import contender_table, geometric_mean, result_lines, suite_lines
from descend.report.tables import Screen
from search.made_results import KINDS, results

FILE = Screen(colour=False, width=None, encoding="utf-8")


def lines(found, on=FILE):
    return [*result_lines(found, on)]


def row(name, found):
    table = contender_table(found, FILE)
    at = next(at for at, line in enumerate(table) if line.startswith(name))
    return table[at : at + 3]


def test_p71_the_answer_comes_first_and_can_be_pasted():
    found = results(["adamw", "sgd:momentum=0.9", "lion"])
    said = lines(found)
    assert said[0] == found["sentence"]
    assert f"train it  {found['command']}" in said
    assert all(f"          {line}" in said for line in found["code"])
    assert any(found["model"] in line for line in said)
    assert lines(found | {"model": None}) == said[:-1]


def test_p71_verdicts_are_in_words_with_their_intervals():
    found = results(["adamw", "sgd:momentum=0.9", "lion"])
    words, ends, _ = row("lion", found)
    assert "better" in words
    assert "-0.0065 to -0.0055" in ends
    assert "worse" in row("sgd", found)[0]
    assert "worse" not in row("adamw", found)[0]
    assert found["contenders"][0]["name"] == "lion"


def test_p71_failures_are_told():
    found = results(["adamw", "adagrad", "adadelta"], reach=0.3)
    assert "3 of 7 diverged" in row("adagrad", found)[2]
    assert "never learned" in row("adadelta", found)[0]
    assert "never" in row("adamw", found)[0]
    assert "A diverged training counts as an untrained one." in contender_table(found, FILE)[-1]
    found["contenders"][-1] |= {"error": "ValueError: no", "against": None, "state_bytes": 0}
    found["costs"].pop("adadelta")
    assert row("adadelta", found)[0].split() == ["adadelta", "fails"]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_p71_as_wide_as_the_terminal(width):
    table = contender_table(results([*KINDS]), Screen(False, width, "ascii"))
    assert max(map(len, table)) <= max(width, 80)
    told = " ".join(table)
    assert ("A wider terminal" in told) == (width < 100)
    assert all(name in told.replace(" ", "") for name in ("adamw", "lion", "adadelta"))


def test_p71_steps_have_no_costs():
    table = contender_table(results(["adamw", "lion"], steps=True), FILE)
    assert "steps to target" in table[0]
    assert "step " not in table[0].replace("steps", "")


def test_p71_a_suite_has_its_means_and_profiles():
    found = {
        "digits": results(["adamw", "lion", "muon"]),
        "words": results(["adamw", "lion", "muon"], seed=1, reach=0.5),
    }
    said = "\n".join(suite_lines(found, FILE))
    medians = [found[task]["contenders"][0]["fraction"]["median"] for task in found]
    mean = (medians[0] * medians[1]) ** 0.5
    assert any(line.split()[0] == "lion" and line.split()[-1] == f"{mean:.2f}"
               for line in said.splitlines() if line)  # fmt: skip
    assert "adamw" in said
    assert all(f"{task}: {one['sentence']}" in said for task, one in found.items())
    shares = [line.split() for line in said.splitlines() if line.startswith("lion") and "%" in line]
    assert shares[-1][1:] == ["100%"] * 6


def test_p71_a_geometric_mean_wants_all():
    assert geometric_mean([0.25, 1.0]) == pytest.approx(0.5)
    assert geometric_mean([0.25, None]) is None


def test_p71_a_target_that_the_shortest_reach_may_be_reached_sooner():
    sooner = "Where the shortest trainings reach the target, it may be reached sooner."
    assert sooner in contender_table(results(["adamw", "lion"], reach=2), FILE)[-1]
    assert sooner not in contender_table(results(["adamw", "lion"]), FILE)[-1]
