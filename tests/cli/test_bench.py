"""`descend bench`: its output, its options, and one clear line for what it cannot do."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest
from click.testing import CliRunner

from descend.cli import bench_output, main
from descend.cli.bench import bench
from descend.format import duration, rounded_count, three_digits
from descend.report.tables import Screen

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def invoke(*arguments):
    return CliRunner().invoke(bench, arguments, catch_exceptions=False)


def test_tables_show_every_contender_and_every_promise(catalogue):
    result = invoke("--all", "--workload", "mlp", "--rounds", "1", "--steps-only", "--threads", "1")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "one step, mlp: 6 tensors, 5.67 k parameters" in result.stdout
    for words in (
        "sgd-momentum", "adamw-clip", "unheard", "torch default", "torch foreach", "torch fused",
        "streaming limit", "1 thread", "float32, 1 round", "what descend promises",
        "rmsprop, 42 M, against torch's best", "not measured", "< 600 ms", "±",
        "the best other over descend", "the slowest of all, 6 tensors", "(rmsprop)",
    ):  # fmt: skip
        assert words in result.stdout, words
    assert max(map(len, result.stdout.splitlines())) <= 100


def cases_of(result):
    return list(dict.fromkeys(steps["case"] for steps in json.loads(result.stdout)["steps"]))


def test_the_short_run_does_not_grow_with_the_catalogue(catalogue, own_rule):
    quick = ("--workload", "mlp", "--rounds", "1", "--steps-only", "--json")
    short = ["adamw", "adamw-clip", "rmsprop", "sgd", "sgd-momentum"]
    rule = f"{own_rule}:MyRule"
    assert cases_of(invoke(*quick)) == short
    assert sorted(cases_of(invoke("--all", *quick))) == sorted([*short, "unheard"])
    assert cases_of(invoke(rule, rule, *quick)) == [rule]
    assert cases_of(invoke(rule, "--optimizer", "sgd", *quick)) == [rule, "sgd"]


def test_a_rule_of_the_users_own_is_printed_without_promises(own_rule, monkeypatch):
    monkeypatch.chdir(own_rule.parent)
    result = invoke("my_file.py:MyRule", "--workload", "mlp", "--rounds", "1", "--steps-only")
    for words in ("my_file.py:MyRule", "AdamW, torch fused", "streaming limit"):
        assert words in result.stdout, words
    assert "promises" not in result.stdout
    assert "the best other" not in result.stdout


def test_what_is_published_is_one_more_contender_or_its_package_is_named(monkeypatch):
    quick = ("lion", "--workload", "mlp", "--rounds", "1", "--steps-only")
    monkeypatch.setattr("descend.bench.packages.find_spec", lambda _: None)
    alone = invoke(*quick)
    monkeypatch.undo()
    note = "pytorch_optimizer, whose optimizers stand beside descend's, is not installed"
    assert note in alone.stdout
    assert "the best other" not in alone.stdout
    pytest.importorskip("pytorch_optimizer")
    beside = invoke(*quick)
    assert "x ±0% published" in beside.stdout
    assert "not installed" not in beside.stdout
    (steps,) = json.loads(invoke(*quick, "--json").stdout)["steps"]
    assert [one["contender"] for one in steps["timings"]] == ["descend", "published"]
    assert steps["best_other"] == "published"


def test_all_leaves_out_what_is_a_matter_of_matrix_products(catalogue, monkeypatch):
    import descend

    catalogue["muon"] = descend.Muon
    quick = ("--workload", "mlp", "--rounds", "1", "--steps-only", "--json")
    assert "muon" not in cases_of(invoke("--all", *quick))
    (steps,) = json.loads(invoke("muon", *quick).stdout)["steps"]
    assert [one["contender"] for one in steps["timings"]] == ["descend", "torch default"]
    assert (steps["tensors"], steps["parameters"]) == (3, 5576)
    assert steps["limit"] is None


def test_a_name_is_an_optimizers_with_the_option_and_without(catalogue, own_rule, monkeypatch):
    monkeypatch.chdir(own_rule.parent)
    rest = ("--workload", "mlp", "--rounds", "1", "--steps-only", "--json")
    rule = f"{own_rule.name}:MyRule"
    assert cases_of(invoke("--optimizer", rule, "sgd", *rest)) == [rule, "sgd"]
    assert cases_of(invoke(rule, "--optimizer", "sgd", *rest)) == [rule, "sgd"]


def test_a_rule_may_lie_where_tables_would_read_markup(own_rule, monkeypatch):
    folder = own_rule.parent / "[b]rules[/i]"
    folder.mkdir(parents=True)
    own_rule.rename(folder / "a.py")
    monkeypatch.chdir(own_rule.parent)
    rule = "[b]rules[/i]/a.py:MyRule"
    result = invoke(rule, "--workload", "mlp", "--rounds", "1", "--steps-only")
    assert result.exit_code == 0
    assert rule in result.stdout


def test_an_output_that_lacks_signs_gets_others(catalogue, monkeypatch):
    ascii_alone = Screen(colour=False, width=None, encoding="ascii")
    monkeypatch.setattr(bench_output, "screen", lambda: ascii_alone)
    result = invoke("--optimizer", "sgd", "--workload", "mlp", "--rounds", "1", "--steps-only")
    assert result.exit_code == 0
    assert "1.00x ~0%" in result.stdout or "us ~0%" in result.stdout
    assert result.stdout.isascii()


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_prints_what_was_measured_before(catalogue, monkeypatch, as_json):
    from descend.bench import suite

    measure = suite.measure_steps

    def until_convnet(case, workload, rounds):
        if workload.name == "convnet":
            raise KeyboardInterrupt
        return measure(case, workload, rounds)

    monkeypatch.setattr(suite, "measure_steps", until_convnet)
    arguments = ["bench", "--optimizer", "sgd", "--rounds", "1", *(["--json"] if as_json else [])]
    result = CliRunner().invoke(main, arguments, prog_name="descend")
    assert result.exit_code == 130
    assert result.stderr == (
        "descend: interrupted; printed is what was measured before: 1 of 4 pairs of an optimizer "
        "and a model\n"
    )
    if as_json:
        read = json.loads(result.stdout)
        assert (read["interrupted"], len(read["steps"])) == (True, 1)
    else:
        assert "one step, mlp" in result.stdout


def test_ctrl_c_at_once_says_that_there_is_nothing(catalogue, monkeypatch):
    from descend.bench import suite

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "measure_steps", interrupted)
    result = CliRunner().invoke(main, ["bench", "--json"], prog_name="descend")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "descend: interrupted before anything was measured\n"


def test_a_real_ctrl_c_ends_a_real_run(tmp_path):
    """In a process of its own, while kernels of descend, of torch and of the limit are running."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from descend.cli import main; main()", "bench", "--json",
         "--optimizer", "rmsprop", "--workload", "transformer", "--rounds", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    sleep(6)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.startswith("descend: interrupted")


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
    for words in ("first step of adamw, empty cache", "500 ms ±20%", "1.57 MB", "not measured"):
        assert words in result.stdout, words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--optimizer", "adan"],
            "--optimizer: there is no 'adan'; did you mean adamw? choose from sgd, sgd-momentum, "
            "adamw, adamw-clip, rmsprop, unheard",
        ),
        (
            ["--workload", "42m"],
            "--workload: there is no '42m'; choose from mlp, convnet, transformer, wide",
        ),
        (
            ["--all", "--optimizer", "sgd"],
            "--all and --optimizer exclude each other: give one of the two",
        ),
        (
            ["--optimizer", "lbfgs"],
            "--optimizer: lbfgs is not measured: it takes its steps with a closure, and the time "
            "is the model's",
        ),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(catalogue, arguments, message):
    result = CliRunner().invoke(main, ["bench", *arguments], prog_name="descend")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"descend: error: {message}; see descend bench --help\n"


COUNTS = {"bench": ["--rounds", "--threads"], "plot": ["--steps", "--steps-per-epoch"],
    "train": ["--epochs", "--batch-size", "--keep"], "verify-resume": ["--kills"]}  # fmt: skip


@pytest.mark.parametrize(("command", "option"), [(a, b) for a in COUNTS for b in COUNTS[a]])
def test_a_count_is_told_in_the_same_words_by_every_command(command, option):
    result = CliRunner().invoke(main, [command, option, "0", "x"], prog_name="descend")
    assert (result.exit_code, result.stdout) == (2, "")
    told = f"{option} 0: it must be a whole number of at least 1, such as {option} "
    assert result.stderr.startswith(f"descend: error: {told}")
    assert result.stderr.endswith(f"; see descend {command} --help\n")


def test_a_rule_that_cannot_be_used_is_one_line_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["bench", "nowhere.py:MyRule"], prog_name="descend")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "descend: error: nowhere.py: there is no such file; give a Python file that defines a "
        "descend.Optimizer\n"
    )


@pytest.mark.parametrize(("load", "said"), [(None, False), (0.5, False), (99.0, True)])
def test_a_busy_machine_is_named(catalogue, monkeypatch, load, said):
    from descend.bench import measurement

    described = dataclasses.replace(measurement.machine(), load=load, cores=2)
    monkeypatch.setattr(measurement, "machine", lambda: described)
    result = invoke("--optimizer", "sgd", "--workload", "mlp", "--rounds", "1", "--steps-only")
    assert ("The machine was busy" in result.stdout) is said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234, "1.23 s"), (0.1956, "196 ms"), (0.02134, "21.3 ms"), (6.9e-6, "6.90 us"),
     (2e-8, "20.0 ns"), (0.9996, "1.00 s"), (0.0099996, "10.0 ms"), (1234.5, "20 min 34 s")],
)  # fmt: skip
def test_times_have_three_digits_and_a_unit(seconds, text):
    assert duration(seconds) == text


def test_other_numbers():
    assert [three_digits(value) for value in (0, 0.905, 9.2, 9.996, 1234.5)] == [
        "0.00",
        "0.905",
        "9.20",
        "10.0",
        "1234",
    ]
    assert [rounded_count(value) for value in (999, 5_670, 999_999, 42_000_384)] == [
        "999",
        "5.67 k",
        "1.00 M",
        "42.0 M",
    ]
