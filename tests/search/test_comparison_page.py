"""The page and the picture of a comparison."""

import re
from html.parser import HTMLParser

import pytest

from descend.report.chart_scale import Scale, scale
from descend.report.comparison_charts import (
    curves_chart,
    ends_chart,
    rate_charts,
    reaches,
    search_chart,
    tunable_span,
)
from descend.report.comparison_page import comparison_page, write_comparison
from search.made_results import KINDS, LENGTH, results, timing, written

VOID = ("meta", "input", "path", "circle", "rect", "br")


class Page(HTMLParser):
    """The words of a page whose tags are all closed, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.loaded, self.drawn = [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [tag] * (tag in ("script", "link", "img", "iframe"))
        self.loaded += [value for name, value in attributes if name in ("src", "href")]
        self.drawn |= {value for name, value in attributes if name == "class" and tag == "g"}

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def page(found, times=None):
    text = comparison_page(found, timing(found) if times is None else times)
    for numbers in re.findall(r' (?:d|x|y|cx|cy|width|height)="([^"]*)"', text):
        assert "nan" not in numbers
        assert "inf" not in numbers
    return Page(text)


@pytest.mark.parametrize(
    "found",
    [
        results(["adamw"]),
        results(["adamw", "lion"]),
        results([*KINDS]),
        results(["adamw", "nadam", "adadelta"], reach=0.3),
        results(["adamw", "adagrad"], steps=True),
    ],
    ids=["alone", "two", "nine", "never", "steps"],
)
def test_h3_the_page_has_the_answer_and_needs_nothing_else(found):
    told = page(found)
    assert not told.loaded
    assert " ".join(found["sentence"].split()) in told.text
    assert told.text.index(found["sentence"]) < told.text.index("The contenders")
    assert found["command"] in told.text
    assert found["again"] in told.text
    assert all(line in told.text for line in found["code"])
    for number, one in enumerate(found["contenders"]):
        assert one["name"] in told.text
        assert any(f"r{number}" in kind.split() for kind in told.drawn)
    unit = "steps" if found["costs"] is None else "time"
    assert f"{unit} to target" in told.text


def test_h3_failures_are_on_the_page():
    found = results(["adamw", "adagrad", "adadelta"], reach=0.3)
    told = page(found).text
    for words in ("3 of 7 diverged", "never learned", "nothing is learned", "diverged", "never"):
        assert words in told
    assert "A diverged training counts as an untrained one." in told
    broken = results(["adamw", "nadam"])
    broken["contenders"][1] |= {
        "error": "ValueError: no", "search": [], "ends": [], "curves": [], "values": [],
        "mean": None, "learned": False, "against": None, "state_bytes": 0, "interval": None,
        "fraction": {"median": None, "low": None, "high": None, "per_seed": [None] * 6},
    }  # fmt: skip
    broken["costs"].pop("nadam")
    assert "nadam fails" in page(broken, {}).text.replace("lr 0.011 ", "")


def test_h3_names_could_be_anything(tmp_path):
    found = results(["adamw", "nadam"])
    for one in found["contenders"]:
        one["name"] += ":note=<script>$x^2$</script>" * 3
    found["recommended"] = found["contenders"][0]["name"]
    found |= {"sentence": "$a < b & \x1b[31mc", "costs": None}
    assert not page(found).loaded
    write_comparison(written(tmp_path, found))
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_h3_the_files_are_the_same_when_written_again(tmp_path):
    folder = written(tmp_path / "comparison", results(["adamw", "adagrad"]))
    write_comparison(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {*first} == {"results.json", "timing.json", "report.html", "comparison.png"}
    write_comparison(folder)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "timing.json").unlink()
    write_comparison(folder)


def test_h3_curves_are_means_over_seeds_with_their_range():
    found = results(["adamw", "lion"])
    found["contenders"][0]["curves"] = [[[10, 1.0], [20, 0.5]], [[10, 3.0], [20, 0.7]], [[10, 9.0]]]
    found["costs"]["lion"] = 0.5
    one = curves_chart(found).series[0]
    assert one.points == [
        (pytest.approx(10 * 0.5 / LENGTH), 2.0), (pytest.approx(20 * 0.5 / LENGTH), 0.6),
    ]  # fmt: skip
    assert [*one.spread] == [(1.0, 3.0), (0.5, 0.7)]  # one that diverged is not in it


def test_h3_ends_stand_at_their_cost_and_say_what_diverged():
    found = results(["adamw", "adagrad"])
    number, one = next((number, one) for number, one in enumerate(found["contenders"])
                       if one["name"] == "adagrad")  # fmt: skip
    shown = ends_chart(found).series[number]
    cost = found["costs"]["adagrad"]
    assert [place for place, _ in shown.points] == pytest.approx(
        [end["length"] * cost / LENGTH for end in one["ends"]]
    )
    assert shown.failed == [pytest.approx(one["length"] * cost / LENGTH)]
    assert shown.notes[-1].endswith("3 of 6 diverged")
    assert ends_chart(found).series[-1].number is None


def test_h3_rates_have_a_line_a_rung_and_a_cross_where_one_diverged():
    chart = rate_charts(results(["adamw"]))[0]
    assert [len(one.points) + len(one.failed) for one in chart.series] == [11, 4, 2]
    assert len(chart.series[0].failed) >= 1
    assert chart.note.startswith("nearly as good from lr ")


def test_h3_the_tunable_span_in_closed_form():
    def tries(*values):
        return [{"lr": 2.0**at, "value": value, "length": 9} for at, value in enumerate(values)]

    assert tunable_span(tries(0.5, 0.02, 0.0, 0.04, None), 1.0) == (2, 8)
    assert tunable_span(tries(0.0, 0.5, 0.0), 1.0) == (1, 1)  # not beyond what is worse
    assert tunable_span(tries(0.9, 0.5), 0.0, highest=True) == (1, 1)
    assert tunable_span(tries(1.0, 2.0, None), 1.0) is None
    assert tunable_span([], 1.0) is None
    assert tunable_span(tries(0.5), None) is None
    longer = [*tries(0.5, 0.01), {"lr": 1.0, "value": 0.0, "length": 27}]
    assert tunable_span(longer, 1.0) == (2, 2)
    early = [*tries(0.99, 0.98, 0.97), {"lr": 2.0, "value": 0.1, "length": 27}]
    assert tunable_span(early, 1.0) == (2, 2)  # where the first rung tells nothing


def test_h3_a_promoted_training_is_spent_once():
    found = results(["adamw"])
    found["contenders"][0]["search"] = [
        {"lr": lr, "settings": {}, "length": length, "value": 0.5}
        for lr, length in ((0.1, 100), (0.2, 100), (0.1, 300))
    ]
    shown = search_chart(found).series[0]
    assert [place * LENGTH for place, _ in shown.points] == pytest.approx([100, 200, 400])


def test_h3_times_to_the_target_say_when_it_is_not_reached():
    found = results(["adamw", "nadam", "adadelta"], reach=0.3)
    assert [one.words for one in reaches(found)] == ["never"] * 3
    found["contenders"][0]["fraction"]["per_seed"][0] = 0.9
    assert reaches(found)[0].words == "1 of 7 seeds"
    assert [one.words for one in reaches(results(["adamw"]))] == ["0.53"]


def test_scales():
    assert Scale(0, 10, 100, 0).at(2.5) == 75
    assert Scale(0.001, 10, 0, 1, log=True).ticks(5) == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert Scale(0.2, 0.9, 0, 1, log=True).ticks(5) == pytest.approx([0.2, 0.3, 0.5, 0.7])
    for values in ([0.5], [0.5, 0.5], [0.0], [3.0, 4.0]):
        one = scale(values, 0, 1, log=min(values) > 0)
        assert all(0 < one.at(value) < 1 for value in values)
