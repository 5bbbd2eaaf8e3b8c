"""`descend bench`: its output, its options, and one clear line for what it cannot do."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

from descend.cli import main
from descend.cli.bench import _count, _digits, _seconds, _size, bench


def invoke(*arguments):
    return CliRunner().invoke(bench, arguments, catch_exceptions=False)


def test_tables_show_every_contender_and_every_promise(catalogue):
    result = invoke("--workload", "mlp", "--rounds", "1", "--steps-only", "--threads", "1")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "one step, mlp: 6 tensors, 5.67 k parameters" in result.stdout
    for words in (
        "sgd-momentum", "adamw-clip", "unheard", "torch default", "torch foreach", "torch fused",
        "streaming limit", "1 threads", "float32, 1 rounds", "what descend promises",
        "rmsprop, 42 M, against torch's best", "not measured", "< 600 ms", "±",
    ):  # fmt: skip
        assert words in result.stdout, words
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_json_is_one_document_and_nothing_else(catalogue):
    result = invoke("--optimizer", "sgd", "--workload", "mlp", "--rounds", "1", "--steps-only",
                    "--json")  # fmt: skip
    read = json.loads(result.stdout)
    assert [steps["case"] for steps in read["steps"]] == ["sgd"]
    assert result.stderr == ""


def test_start_up_and_memory_are_printed(catalogue, monkeypatch):
    from descend.bench import Spread, StartUp, StepMemory, suite

    one = Spread(0.5, 0.4, 0.6)
    monkeypatch.setattr(suite, "start_up", lambda: StartUp(one, one, one, one))
    monkeypatch.setattr(
        suite,
        "step_memory",
        lambda case, workload, _: [
            StepMemory(case, workload, "descend", 3 << 19),
            StepMemory(case, workload, "torch default", None),
        ],
    )
    result = invoke("--optimizer", "sgd", "--workload", "mlp", "--rounds", "1")
    for words in ("first step of adamw, empty cache", "500 ms ±20%", "1.5 MiB", "not measured"):
        assert words in result.stdout, words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--optimizer", "adan"],
            "--optimizer: there is no 'adan'; choose from sgd, sgd-momentum, adamw, adamw-clip, "
            "rmsprop, unheard",
        ),
        (
            ["--workload", "42m"],
            "--workload: there is no '42m'; choose from mlp, convnet, transformer, wide",
        ),
        (["--rounds", "0"], "Invalid value for '--rounds': 0 is not in the range x>=1"),
        (["--threads", "0"], "Invalid value for '--threads': 0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(catalogue, arguments, message):
    result = CliRunner().invoke(main, ["bench", *arguments], prog_name="descend")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"descend: error: {message}; see descend bench --help\n"


@pytest.mark.parametrize(("load", "said"), [(None, False), (0.5, False), (99.0, True)])
def test_a_busy_machine_is_named(catalogue, monkeypatch, load, said):
    from descend.bench import suite

    described = dataclasses.replace(suite.machine(), load=load, cores=2)
    monkeypatch.setattr(suite, "machine", lambda: described)
    result = invoke("--optimizer", "sgd", "--workload", "mlp", "--rounds", "1", "--steps-only")
    assert ("The machine was busy" in result.stdout) is said


def test_help_teaches():
    result = invoke("--help")
    assert result.exit_code == 0
    for words in (
        "Examples:",
        "descend bench --json > bench.json",
        "--steps-only",
        "streaming limit",
    ):
        assert words in result.stdout, words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234, "1.23 s"), (0.1956, "196 ms"), (0.02134, "21.3 ms"), (6.9e-6, "6.90 us"),
     (2e-8, "20.0 ns")],
)  # fmt: skip
def test_times_have_three_digits_and_a_unit(seconds, text):
    assert _seconds(seconds) == text


def test_other_numbers():
    assert [_digits(value) for value in (0, 0.905, 9.2, 1234.5)] == [
        "0.00",
        "0.905",
        "9.20",
        "1234",
    ]
    assert [_count(value) for value in (999, 5_670, 42_000_384)] == ["999", "5.67 k", "42.0 M"]
    assert _size(None) == "not measured"
