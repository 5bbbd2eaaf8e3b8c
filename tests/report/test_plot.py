"""Schedules are seen before training: as a figure, in the terminal, as a table, by `descend plot`."""
# ruff: noqa: E501  messages are compared whole

import copy
import csv
import io
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from matplotlib.colors import to_hex

import descend
from children import python
from cli import commands
from descend.cli import main
from descend.errors import OutputError, ScheduleError, ScheduleTypeError
from descend.report import plot_schedules
from descend.report.schedule_chart import HEIGHT, chart
from descend.report.schedule_lines import MOST_POINTS, sampled, shown_steps, table
from descend.report.schedule_values import MOST_WALKED, source_of
from descend.schedules import (
    clip,
    constant,
    cosine,
    cyclic,
    delay,
    exponential,
    function,
    linear,
    one_cycle,
    repeat,
    step,
    until,
    value,
    warmup,
)

JOINED = warmup(500) >> cosine(9500)
torch_lr = torch.optim.lr_scheduler


def optimizer(kind=torch.optim.SGD, lrs=(0.1,), **options):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    return kind(groups, **options)


def lines_of(given, steps, name=""):
    return sampled([source_of(name, given)], steps).lines


def values_of(given, steps, key="lr"):
    return [line.values for line in lines_of(given, steps) if line.key == key]


def drawn(axes):
    """The curves of a panel by name, without the marks."""
    return {
        line.get_label(): list(line.get_ydata())
        for line in axes.get_lines()
        if len(line.get_ydata()) > 2
    }


def marks(axes):
    return [line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2]


invoke = partial(commands.invoke, "plot")


def plotted(*args):
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*args):
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("descend: error: ").rstrip("\n")


@pytest.fixture(autouse=True)
def terminal(own_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


# What is drawn


def test_every_step_is_looked_at_while_they_are_few():
    (values,) = values_of(JOINED, 10_500)
    assert values == JOINED.values(10_500)


def test_the_base_makes_values_of_factors():
    found = sampled([source_of("", {"lr": JOINED, "momentum": linear(9)}, {"lr": 0.25})], 600)
    assert found.lines[0].values == JOINED.values(600, base=0.25)
    assert found.lines[1].values == linear(9).values(600)
    assert found.factors == {"momentum"}


class ByHand(descend.lr_scheduler.LRScheduler):
    """As torch's subclasses are written: from the value before."""

    def get_lr(self):
        if self.last_epoch == 0:
            return list(self.base_lrs)
        return [group["lr"] * 0.5 for group in self.optimizer.param_groups]


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch_lr.StepLR(o, 3),
        lambda o: torch_lr.LambdaLR(o, lambda epoch: 0.9**epoch),
        lambda o: torch_lr.MultiplicativeLR(o, lambda epoch: 0.9),
        lambda o: torch_lr.CosineAnnealingLR(o, 10),
        lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 4),
        lambda o: torch_lr.CyclicLR(o, 0.1, 0.5, 3),
        lambda o: torch_lr.OneCycleLR(o, 0.5, total_steps=21),
        lambda o: torch_lr.SequentialLR(
            o, [torch_lr.LinearLR(o), torch_lr.ExponentialLR(o, 0.9)], [5]
        ),
        lambda o: torch_lr.ChainedScheduler(
            [torch_lr.LinearLR(o), torch_lr.ExponentialLR(o, 0.9)], o
        ),
        lambda o: descend.lr_scheduler.SequentialLR(
            o,
            [descend.lr_scheduler.LinearLR(o), descend.lr_scheduler.ExponentialLR(o, 0.9)],
            [5],
        ),
        lambda o: descend.lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
        lambda o: descend.lr_scheduler.OneCycleLR(o, 0.5, total_steps=21),
        descend.lr_scheduler.ReduceLROnPlateau,
        ByHand,
    ],
)
@pytest.mark.parametrize("kind", [torch.optim.SGD, descend.SGD])
def test_a_scheduler_is_drawn_as_it_will_be_and_left_as_it_is(make, kind):
    one = optimizer(kind, lrs=(0.1, 0.02), momentum=0.9)
    scheduler = make(one)
    groups, state = copy.deepcopy(one.param_groups), copy.deepcopy(scheduler.state_dict())
    found = sampled([source_of("", scheduler)], 20)
    assert one.param_groups[0]["params"][0].equal(groups[0]["params"][0])
    for group, before in zip(one.param_groups, groups, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {
            k: v for k, v in before.items() if k != "params"
        }
    assert str(scheduler.state_dict()) == str(state)
    columns = {(line.key, g): line for line in found.lines for g in line.groups or (0, 1)}
    measured = (1.0,) if isinstance(scheduler, torch_lr.ReduceLROnPlateau) else ()
    for number in range(20):
        for (key, group), line in columns.items():
            assert line.values[number] == pytest.approx(one.param_groups[group][key], rel=1e-15)
        if not measured:
            one.step()
            scheduler.step()


def test_momentum_and_betas_that_a_torch_scheduler_drives_have_panels():
    one = optimizer(torch.optim.Adam)
    found = sampled([source_of("", torch_lr.OneCycleLR(one, 0.1, total_steps=20))], 20)
    assert found.keys == ["lr", "beta1"]


def test_neither_parameters_nor_their_state_are_copied(monkeypatch):
    one = optimizer(torch.optim.Adam)
    one.param_groups[0]["params"][0].grad = torch.ones(2)
    one.step()
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", None)  # not callable: a copy would raise
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", None)
    assert values_of(torch_lr.StepLR(one, 1, 0.5), 3) == [[0.1, 0.05, 0.025]]
    assert one.state


def test_an_lr_that_is_a_tensor_is_read_and_left():
    one = optimizer(torch.optim.AdamW, lrs=(torch.tensor(0.5),), capturable=False, foreach=False)
    assert values_of(torch_lr.StepLR(one, 1, 0.5), 3) == [[0.5, 0.25, 0.125]]
    assert one.param_groups[0]["lr"] == 0.5


def test_a_torch_scheduler_is_drawn_from_where_it_is():
    scheduler = torch_lr.StepLR(optimizer(), 3, 0.5)
    for _ in range(4):
        scheduler.optimizer.step()
        scheduler.step()
    (values,) = values_of(scheduler, 8)
    assert [math.isnan(value) for value in values] == [True] * 4 + [False] * 4
    assert values[4:] == [0.05, 0.05, 0.025, 0.025]
    with pytest.raises(ScheduleError, match="it has left the 4 steps that are shown behind"):
        values_of(scheduler, 4)


def test_where_torch_raises_the_curve_ends():
    scheduler = torch_lr.OneCycleLR(optimizer(momentum=0.9), 0.1, total_steps=10)
    found = sampled([source_of("mine", scheduler)], 12)
    assert [math.isnan(value) for value in found.lines[0].values] == [False] * 10 + [True] * 2
    assert found.notes == [
        "mine: torch's OneCycleLR raises an error in step 10; descend's holds its value"
    ]


@pytest.mark.parametrize("home", [torch_lr, descend.lr_scheduler])
def test_a_plateau_is_level_and_says_why(home):
    found = sampled([source_of("", home.ReduceLROnPlateau(optimizer(momentum=0.9)))], 4)
    assert [(line.key, line.values) for line in found.lines] == [("lr", [0.1] * 4)]
    assert "what it will measure is not known" in found.notes[0]


def test_a_scheduler_that_is_stepped_once_in_an_epoch():
    scheduler = torch_lr.StepLR(optimizer(), 1, 0.5)
    source = source_of("", scheduler, every=3)
    assert sampled([source], 7).lines[0].values == [0.1] * 3 + [0.05] * 3 + [0.025]


def test_groups_with_the_same_values_share_a_line():
    scheduler = torch_lr.StepLR(optimizer(lrs=(0.1, 0.2, 0.1, 0.1, 0.4, 0.4, 0.4)), 3)
    assert [line.label for line in lines_of(scheduler, 5, "mine")] == [
        "mine, groups 0, 2 and 3",
        "mine, group 1",
        "mine, groups 4-6",
    ]
    (line,) = lines_of(torch_lr.StepLR(optimizer(lrs=(0.1, 0.1)), 3), 5)
    assert line.label == ""


def test_of_ten_million_steps_some_thousands_are_looked_at():
    asked = []
    counted = function(lambda time: float(asked.append(time) or 1))
    found = sampled([source_of("", counted)], 10_000_000)
    assert MOST_POINTS <= len(asked) <= MOST_POINTS + 3
    assert found.points == sorted(set(found.points))
    assert found.points[0] == 0
    assert found.points[-1] == 9_999_999


def test_a_wave_between_the_points_shows_as_a_band():
    (line,) = lines_of(cyclic(250, low=0.25), 10_000_000)  # 500 steps, as far as points are apart
    for begin in range(0, MOST_POINTS, 1000):
        part = line.values[begin : begin + 1000]
        assert min(part) < 0.3
        assert max(part) > 0.9


def test_a_join_between_the_points_is_looked_at():
    found = sampled([source_of("", warmup(123_457) >> cosine(9_000_000))], 10_000_000)
    assert 1.0 in found.lines[0].values
    assert {123_456, 123_457} <= set(found.points)


def test_what_can_only_be_stepped_is_refused_where_it_would_take_for_ever():
    for scheduler in (
        torch_lr.StepLR(optimizer(), 3),
        descend.lr_scheduler.MultiplicativeLR(optimizer(), lambda epoch: 0.9),
        ByHand(optimizer()),
    ):
        with pytest.raises(ScheduleError, match="it can only be stepped, so at most 1,000,000"):
            lines_of(scheduler, MOST_WALKED + 1)
    scheduler = descend.Scheduler(optimizer(), lr=JOINED)
    assert len(lines_of(scheduler, 10_000_000)[0].values) < 2 * MOST_POINTS


def test_the_steps_shown_are_those_to_the_last_end_and_a_margin():
    def shown(*given):
        return shown_steps([source_of("", one) for one in given])

    assert shown(JOINED) == 10_500
    assert shown(JOINED, exponential(0.9)) == 10_500
    assert shown(exponential(0.9)) is None
    assert shown(descend.Scheduler(optimizer(), lr=linear(40))) == 42
    assert shown(torch_lr.CosineAnnealingLR(optimizer(), 100)) == 105
    assert shown(torch_lr.StepLR(optimizer(), 3)) is None
    each_epoch = source_of("", torch_lr.CosineAnnealingLR(optimizer(), 100), every=10)
    assert shown_steps([each_epoch]) == 1050


@pytest.mark.parametrize(
    ("schedule", "joins"),
    [
        (warmup(5) >> cosine(10) >> constant(), [5, 15]),
        (cosine(10), []),
        ((warmup(5) >> cosine(10)) * 0.5, [5]),
        (value(warmup(5) >> cosine(10)) * warmup(3), [5]),
        (delay(warmup(5) >> cosine(10), 7), [12]),
        (until(warmup(5) >> cosine(10) >> constant(), 9), [5]),
        (clip(repeat(warmup(2) >> cosine(3), 3), 0.1), [2, 7, 12]),
        (constant(1, 4) >> (warmup(5) >> cosine(10)) * 0.5, [4, 9]),
        (constant(1, 2.5) >> cosine(2), [3]),
    ],
)
def test_parts_are_marked_where_they_begin(schedule, joins):
    assert sampled([source_of("", schedule)], 20).marks.get("lr", []) == joins


def test_the_marks_of_a_scheduler_are_those_of_what_it_is_made_of():
    one = optimizer(momentum=0.9)
    scheduler = descend.Scheduler(one, lr=warmup(3) >> cosine(9), momentum=value(0.5) * linear(9))
    assert sampled([source_of("", scheduler)], 9).marks == {"lr": [3]}
    scheduler = torch_lr.SequentialLR(
        one, [torch_lr.LinearLR(one), torch_lr.ExponentialLR(one, 0.9)], [5]
    )
    assert sampled([source_of("", scheduler)], 9).marks == {"lr": [5]}


# The figure


def test_c3_the_lr_per_epoch_plotted_before_any_training(tmp_path):
    one = optimizer(descend.AdamW)
    scheduler = descend.lr_scheduler.CosineAnnealingLR(one, T_max=30)
    figure = plot_schedules(scheduler, 30, path=tmp_path / "lr.png")
    (panel,) = figure.axes
    (curve,) = drawn(panel).values()
    assert curve == [group[0] for group in scheduler.preview(30)["lr"]]
    assert panel.get_xlabel() == "step"
    assert panel.get_ylabel() == "lr"
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_c5_each_hyperparameter_has_a_panel_and_each_group_a_line():
    one = optimizer(descend.AdamW, lrs=(1e-3, 1e-4))
    scheduler = descend.Scheduler(
        one,
        lr=warmup(3) >> cosine(9),
        weight_decay=[linear(12), constant(0.5)],
        beta2=linear(12, value(0.9), value(0.99)),
    )
    figure = plot_schedules({"mine": scheduler})
    assert [panel.get_ylabel() for panel in figure.axes] == ["lr", "weight_decay", "beta2"]
    lr, decay, beta2 = figure.axes
    assert list(drawn(lr)) == ["mine, group 0", "mine, group 1"]
    assert list(drawn(decay)) == ["mine, group 0", "mine, group 1"]
    assert list(drawn(beta2)) == ["mine"]
    assert marks(lr) == [3]
    assert marks(beta2) == []
    assert [panel.get_xlabel() for panel in figure.axes] == ["", "", "step"]


def test_a_schedule_alone_is_titled_and_several_are_named():
    alone = plot_schedules(JOINED)
    assert alone.get_suptitle() == "warmup(500) >> cosine(9500)"
    assert alone.axes[0].get_ylabel() == "lr (factor)"
    assert not alone.legends
    several = plot_schedules({"a": JOINED, "b": {"lr": linear(9), "momentum": linear(9)}}, 20)
    assert [text.get_text() for text in several.legends[0].get_texts()] == ["a", "b"]
    lr, momentum = several.axes
    colours = {to_hex(line.get_color()) for line in lr.get_lines()}
    assert len(colours) == 2
    assert lr.get_lines()[1].get_color() == momentum.get_lines()[0].get_color()


def test_epochs_are_a_second_scale():
    figure = plot_schedules(JOINED, steps_per_epoch=100)
    figure.canvas.draw()
    (scale,) = figure.axes[0].child_axes
    assert scale.get_xlabel() == "epoch"
    low, high = figure.axes[0].get_xlim()
    assert scale.get_xlim() == (low / 100, high / 100)


def test_a_hundred_groups_have_a_short_legend():
    scheduler = torch_lr.StepLR(optimizer(lrs=[0.9**n for n in range(100)]), 3)
    figure = plot_schedules(scheduler, 9)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == 12
    assert names[0] == "group 0"
    assert names[-1] == "group 99"


def test_few_steps_are_points_and_a_level_curve_is_in_the_middle():
    (panel,) = plot_schedules(step(3), 12).axes
    assert panel.get_lines()[0].get_marker() == "o"
    (panel,) = plot_schedules(constant(0.5), 100).axes
    assert panel.get_lines()[0].get_marker() == ""
    assert panel.get_ylim() == (0.0, 1.0)


def test_the_figure_is_nobody_elses():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot_schedules(JOINED)
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.SVG", b"<?xml")]
)
def test_a_picture_is_the_same_bytes_each_time(tmp_path, name, start):
    plot_schedules(JOINED, path=tmp_path / name)
    once = (tmp_path / name).read_bytes()
    plot_schedules(JOINED, path=str(tmp_path / name))
    assert once.startswith(start)
    assert (tmp_path / name).read_bytes() == once
    assert os.listdir(tmp_path) == [name]


def test_a_picture_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("before")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"a\.png: cannot be written: No space left on device"):
        plot_schedules(JOINED, path=tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "before"


def test_what_cannot_be_drawn_is_refused_in_words():
    with pytest.raises(ScheduleError, match=r"none of the curves ends by itself; .* steps=10_000"):
        plot_schedules(exponential(0.9))
    with pytest.raises(ScheduleTypeError, match=r"got 'cosine\(9\)'; descend.schedules.parse"):
        plot_schedules("cosine(9)")
    with pytest.raises(ScheduleTypeError, match=r"mine: lr must be a schedule, .* got 0.1"):
        plot_schedules({"mine": {"lr": 0.1}})
    with pytest.raises(ScheduleError, match="there is nothing to draw"):
        plot_schedules({})
    for steps in (0, -1, 1.5, True):
        with pytest.raises(ScheduleError, match="steps must be a whole number of at least 1"):
            plot_schedules(JOINED, steps)
    with pytest.raises(
        ScheduleError, match="steps_per_epoch must be a finite number above 0, got 0"
    ):
        plot_schedules(JOINED, steps_per_epoch=0)
    with pytest.raises(OutputError, match=r"a.jpg: a picture is a PNG or an SVG file"):
        plot_schedules(JOINED, path="a.jpg")


def test_what_cannot_be_copied_or_stepped_is_refused_in_words():
    class Own(torch_lr.LRScheduler):
        def get_lr(self):
            if self.last_epoch > 2:
                raise ValueError("no more")
            return [0.1 for _ in self.optimizer.param_groups]

    scheduler = Own(optimizer())
    with pytest.raises(ScheduleError, match="Own cannot be stepped: ValueError: no more"):
        plot_schedules(scheduler, 5)
    scheduler.generator = (n for n in "ab")
    with pytest.raises(ScheduleError, match="Own cannot be copied, so it cannot be shown without"):
        plot_schedules(scheduler, 5)


# The chart


def charted(given, steps=None, **options):
    sources = [source_of(name, one) for name, one in given.items()]
    return chart(sampled(sources, steps or shown_steps(sources)), **options)


def test_a_curve_is_one_line_from_edge_to_edge():
    rows = charted({"": linear(99)}, 100, encoding="ascii").splitlines()
    assert rows[0] == "lr (factor)"
    area = [row[7:].ljust(72) for row in rows[1 : HEIGHT + 1]]
    columns = ["".join(row[n] for row in area) for n in range(72)]
    assert all("*" in column for column in columns)
    heights = [column.index("*") for column in columns]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (0, HEIGHT - 1)


def test_a_steep_curve_has_no_gaps():
    rows = charted({"": step(10, 0.1)}, 30, encoding="ascii").splitlines()
    area = [row[7:].ljust(72) for row in rows[1 : HEIGHT + 1]]
    columns = ["".join(row[n] for row in area) for n in range(72)]
    reach = [(column.index("*"), column.rindex("*")) for column in columns]
    for (_, bottom), (top, _) in itertools.pairwise(reach):
        assert top <= bottom + 1


def test_the_numbers_of_the_chart():
    rows = charted({"": JOINED}, steps_per_epoch=390, encoding="ascii").splitlines()
    assert [row[:7] for row in rows[1 : HEIGHT + 1]] == [
        "    1 +", "      |", "  0.8 +", "      |", "  0.6 +", "      |",
        "      |", "  0.4 +", "      |", "  0.2 +", "      |", "    0 +",
    ]  # fmt: skip
    frame, steps, epochs, course = rows[HEIGHT + 1 :]
    assert steps.split() == ["step", "0", "2,000", "4,000", "6,000", "8,000", "10,000"]
    assert epochs.split() == ["epoch", "0", "5", "10", "15", "20", "25"]
    assert frame.count("+") == 7
    assert frame[7 + round(2000 / 10_499 * 71)] == "+"
    assert course.strip() == "0 at step 0, highest 1 at step 500, 0 at step 10,499"
    mark = 7 + round(500 / 10_499 * 71)
    assert {row.ljust(80)[mark] for row in rows[1 : HEIGHT + 1]} == {":", "*"}


@pytest.fixture(scope="module")
def wide():
    """Curves of a long name and of many steps."""
    name = "a name that is really very long, longer than any terminal would like it to be"
    given = {"b": JOINED * 1e-5, name: {"lr": one_cycle(123_456_789), "beta2": linear(9)}}
    sources = [source_of(name, one) for name, one in given.items()]
    return sampled(sources, shown_steps(sources))


@pytest.mark.parametrize("width", [10, 40, 63, 80, 120, 500])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_terminal(wide, width, encoding):
    text = chart(wide, width=width, encoding=encoding, steps_per_epoch=3)
    assert max(map(len, text.splitlines())) <= min(max(width, 40), 120)


def test_plain_characters_where_the_encoding_has_no_others():
    fine = charted({"ü": linear(9)})
    assert "│" in fine
    assert not fine.isascii()
    for encoding in ("ascii", "no such encoding"):
        assert charted({"ü": linear(9)}, encoding=encoding).isascii()
    assert "ü" in charted({"ü": linear(9), "b": cosine(9)}, encoding="cp1252")


def test_several_curves_are_told_apart_with_and_without_colours():
    given = {"a": linear(50), "b": cosine(50)}
    colourless = charted(given)
    assert "\x1b" not in colourless
    assert "* a:" in colourless
    assert "o b:" in colourless
    coloured = charted(given, colour=True)
    assert "\x1b[34m" in coloured
    assert "\x1b[33m" in coloured
    assert coloured.count("\x1b[0m") == len(re.findall(r"\x1b\[3\dm", coloured))
    assert "\x1b" not in charted({"": linear(50)}, colour=True)


def test_what_is_no_number_leaves_a_gap():
    gap = function(lambda time: math.nan if 30 <= time < 60 else time)
    rows = charted({"": gap}, 90, width=60, encoding="ascii").splitlines()
    area = [row[7:].ljust(52) for row in rows[1 : HEIGHT + 1]]
    filled = ["*" in "".join(row[n] for row in area) for n in range(52)]
    assert filled == [n <= round(29 / 89 * 51) or n >= round(60 / 89 * 51) for n in range(52)]
    assert "no finite number" in charted({"": function(lambda time: math.inf)}, 9)


@pytest.mark.parametrize(
    ("schedule", "course"),
    [
        (constant(0.5), "0.5 in all steps"),
        (linear(9), "1 at step 0, 0 at step 99"),
        (
            linear(9, 0.5, 1) >> cosine(40) >> linear(100),
            "0.5 at step 0, highest 1 at step 9, lowest 0.001541 at step 48, 0.5 at step 99",
        ),
    ],
)
def test_the_chart_says_where_a_curve_turns(schedule, course):
    assert course in charted({"": schedule}, 100, width=120)


# The command


def test_plot_draws_an_expression():
    text = plotted("warmup(500) >> cosine(9500)", "--lr", "3e-4")
    rows = text.splitlines()
    assert rows[0] == "warmup(500) >> cosine(9500)"
    assert rows[2] == "lr"
    assert rows[-1] == "  0 at step 0, highest 0.0003 at step 500, 0 at step 10,499"


def test_plot_imports_neither_torch_nor_matplotlib_for_an_expression(tmp_path):
    code = "from descend.cli import main; main()"
    arguments = ["plot", "warmup(5) >> cosine(95)", "--csv", "x.csv"]
    done = python("-X", "importtime", "-c", code, *arguments)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "descend.schedules.expressions" in imported
    assert not {"torch", "matplotlib", "numpy", "rich", "numba"} & imported


def test_plot_writes_a_table_with_all_digits():
    plotted("warmup(3) >> cosine(9)", "--lr", "0.1", "--csv", "x.csv", "--steps", 15)
    with open("x.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "lr"]
    assert [int(row[0]) for row in rows] == list(range(15))
    assert [float(row[1]) for row in rows] == (warmup(3) >> cosine(9)).values(15, base=0.1)


def test_plot_writes_a_column_for_each_curve_and_nothing_else_to_stdout():
    text = plotted("a b=cosine(2, 1, 0.5)", "momentum:linear(2)", "--csv", "-", "--steps", 3)
    assert list(csv.reader(io.StringIO(text))) == [
        ["step", "a b, lr", "momentum:linear(2), momentum"],
        ["0", "1.0", "1.0"],
        ["1", "0.75", "0.5"],
        ["2", "0.5", "0.0"],
    ]


def test_a_table_goes_on_where_a_scheduler_has_ended():
    sources = [
        source_of("", torch_lr.OneCycleLR(optimizer(momentum=0.9), 0.1, total_steps=2)),
        source_of("b", linear(4)),
    ]
    rows = list(table(sources, sampled(sources, 4)))
    assert [row[0] for row in rows] == [0, 1, 2, 3]
    assert all(math.isnan(number) for row in rows[2:] for number in row[1:-1])
    assert [row[-1] for row in rows] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(("name", "start"), [("lr.png", b"\x89PNG"), ("lr.svg", b"<?xml")])
def test_plot_writes_a_picture(name, start):
    text = plotted("mine=warmup(5) >> cosine(95)", "beta2:linear(9)", "--picture", name)
    assert text.endswith(f"\npicture: {name}\n")
    with open(name, "rb") as file:
        assert file.read(5).startswith(start)


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (
            ["warmup(1) >> cosine(3)", "--unit", "epoch", "--steps-per-epoch", 10],
            (warmup(10) >> cosine(30)).values(42),
        ),
        (
            ["warmup(0.25) >> cosine(0.75)", "--unit", "fraction", "--steps", 40],
            (warmup(10) >> cosine(30)).values(40),
        ),
        (["warmup(10) >> cosine(30)"], (warmup(10) >> cosine(30)).values(42)),
    ],
)
def test_times_are_steps_epochs_or_fractions(arguments, same):
    rows = plotted(*arguments, "--csv", "-").splitlines()[1:]
    assert [float(row.split(",")[1]) for row in rows] == same


FILE = """
import torch, descend
from descend.schedules import cosine, function, warmup
weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
schedule = warmup(5) >> cosine(5)
sgd = torch.optim.SGD([{"params": [w], "lr": 0.1 * n} for n, w in enumerate(weights, 1)])
steps = torch.optim.lr_scheduler.StepLR(sgd, 2, 0.5)
def both():
    adam = descend.AdamW(weights, lr=0.5)
    return descend.Scheduler(adam, lr=schedule, weight_decay=cosine(5))
def fails():
    return [][0]
def of_time(epoch):
    return 1 / (epoch - 3)
late = function(of_time)
number = 5
class Class: pass
wrong = lambda: "cosine(5)"
"""


@pytest.fixture
def my_file(tmp_path):
    (tmp_path / "my.py").write_text(FILE)


@pytest.mark.usefixtures("my_file")
def test_plot_takes_what_a_file_defines():
    text = plotted("my.py:schedule", "--csv", "-")
    assert [float(row.split(",")[1]) for row in text.splitlines()[1:]] == (
        warmup(5) >> cosine(5)
    ).values(12)
    rows = list(csv.reader(plotted("my.py:steps", "--steps", 4, "--csv", "-").splitlines()))
    assert rows[0] == ["step", "lr, group 0", "lr, group 1"]
    assert rows[4] == ["3", "0.05", "0.1"]
    rows = list(csv.reader(plotted("x=my.py:both", "--csv", "-").splitlines()))
    assert rows[0] == ["step", "x, lr", "x, weight_decay"]
    assert rows[6] == ["5", "0.5", "0.0"]
    text = plotted("my.py:steps", "beta2:my.py:schedule", "--steps", 4, "--csv", "-")
    assert text.splitlines()[0].endswith('"beta2:my.py:schedule, beta2"')


@pytest.mark.usefixtures("my_file")
def test_a_scheduler_is_stepped_once_in_each_unit():
    command = ["my.py:steps", "--steps", 9, "--unit", "epoch", "--steps-per-epoch", 2, "--csv", "-"]
    values = [row.split(",")[1] for row in plotted(*command).splitlines()[1:]]
    assert values == ["0.1"] * 4 + ["0.05"] * 4 + ["0.025"]


@pytest.mark.usefixtures("my_file")
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("my.py", "my.py: which name? needed is a schedule, a scheduler, or a function without arguments that returns one; give my.py:schedule (it defines schedule, steps, late, both, fails, wrong)"),
        ("my.py:schedul", "my.py defines no 'schedul'; did you mean schedule? needed is a schedule, a scheduler, or a function without arguments that returns one (it defines schedule, steps, late, both, fails, wrong)"),
        ("my.py:fails", "my.py, line 12: fails() fails: IndexError: list index out of range"),
        ("my.py:of_time", "my.py, line 13: of_time needs epoch, and is called without arguments; as a function of the time: schedules.function(of_time)"),
        ("my.py:late", "my.py, line 14: ZeroDivisionError: division by zero"),
        ("my.py:number", "my.py, line 16: number is 5, and needed is a schedule, a scheduler, or a function without arguments that returns one (it defines schedule, steps, late, both, fails, wrong)"),
        ("my.py:Class", "my.py, line 17: Class is the class Class, and needed is a schedule, a scheduler, or a function without arguments that returns one (it defines schedule, steps, late, both, fails, wrong)"),
        ("my.py:wrong", "my.py, line 18: what wrong() returns is 'cosine(5)', and needed is a schedule, a scheduler, or a function without arguments that returns one (it defines schedule, steps, late, both, fails, wrong)"),
        ("no.py:x", "no.py: there is no such file; give a Python file that defines a schedule, a scheduler, or a function without arguments that returns one"),
        ("momentum:my.py:steps", "momentum:my.py:steps: my.py:steps is a scheduler, which drives hyperparameters of its own; leave out momentum:"),
    ],
)  # fmt: skip
def test_what_a_file_does_not_give_is_one_line(argument, message):
    assert refused(argument, "--steps", 9) == message


def test_what_cannot_be_read_is_one_line():
    assert refused("cosine(9") == "column 7 of cosine«(»9: '(' was never closed"
    assert refused("a=cosine(9").startswith("a= column 7 of cosine«(»9: ")
    assert refused("momentum:cosine(9").startswith("momentum: column 7 of cosine«(»9: ")
    assert refused("my:schedule").endswith("(a name in a Python file is written my.py:schedule)")
    assert refused("=cosine(9)") == "'=cosine(9)': a name stands before =, such as mine=cosine(9)"
    assert refused("a=cosine(9)", "a=linear(9)") == (
        "two curves of lr are named a; give one of them another name"
    )
    assert refused() == "Missing argument 'EXPR...'; see descend plot --help"
    assert refused("exponential(0.9)") == (
        "exponential(0.9) never ends by itself: say how many steps to draw, such as --steps 10000; "
        "see descend plot --help"
    )
    assert "--lr 0: it must be a finite number above 0" in refused("cosine(9)", "--lr", "0")
    assert "--lr nan: it must be a finite number" in refused("cosine(9)", "--lr", "nan")
    assert "say how many steps an epoch has" in refused("cosine(9)", "--unit", "epoch")
    assert "say how many steps the run has" in refused("cosine(1)", "--unit", "fraction")
    assert "end its name in .png or .svg" in refused("cosine(9)", "--picture", "lr.jpg")


def test_an_expression_is_not_executed():
    assert "the name exit stands for nothing" in refused("exit()") + refused("exit")


def test_likely_mistakes_are_warned_of_and_the_curve_is_drawn():
    result = invoke("warmup(500) >> cosine(500)", "--steps", 100)
    assert result.exit_code == 0
    assert result.stdout.startswith("warmup(500) >> cosine(500)\n\nlr (factor)\n")
    assert re.match(r"(descend: warning: lr: .*\n)+\Z", result.stderr)
    named = invoke("a=warmup(500) >> cosine(500)", "b=cosine(100)", "--steps", 100).stderr
    assert re.match(r"(descend: warning: a: lr: .*\n)+\Z", named)
    assert invoke("warmup(500) >> cosine(9500)").stderr == ""


def test_a_name_that_is_a_hyperparameter_is_warned_of():
    result = invoke("weight_decay=cosine(9)")
    assert result.exit_code == 0
    assert result.stderr == (
        "descend: warning: weight_decay=... is a curve of the lr with that name; the "
        "hyperparameter is written weight_decay:...\n"
    )


def test_plot_help_tells_the_words_that_a_function_takes():
    text = " ".join(invoke("--help").stdout.split())
    assert "kind: 'linear' or 'cosine' or 'exponential' or 'constant'" in text
    assert "mode: 'triangular'" in text


def test_plot_help_has_every_function_and_examples_that_run(monkeypatch):
    text = CliRunner().invoke(main, ["plot", "--help"]).stdout
    for name in ("warmup", "cosine", "one_cycle", "piecewise", "until", "value", "wsd"):
        assert re.search(rf"^  {name}\(", text, re.MULTILINE)
    assert "join(" not in text
    examples = re.findall(r'^    descend plot (".*)$', text, re.MULTILINE)
    assert len(examples) > 4
    for example in examples:
        words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', example)]
        result = invoke(*words)
        assert (result.exit_code, result.stderr) == (0, "")
    assert "plot" in CliRunner().invoke(main, ["--help"]).stdout


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", "from descend.cli import main; main()", "plot", *arguments],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_ctrl_c_leaves_no_part_of_a_table():
    process = start("cosine(9e8)", "--csv", "x.csv")
    for _ in range(1000):
        if any(name.endswith(".tmp") for name in os.listdir()):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "descend: interrupted\n")
    assert os.listdir() == []


def test_a_reader_that_leaves_is_no_error():
    process = start("cosine(9e8)", "--csv", "-")
    assert process.stdout.readline() == "step,lr\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1
    process.stderr.close()
