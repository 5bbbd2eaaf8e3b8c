"""The README's tables of speed, as `benchmarks/readme_tables.py` fills them."""

from pathlib import Path

from click.testing import CliRunner

import descend
import readme_tables
from bench.test_changing import measured, row
from descend.bench import CHANGES, WORKLOADS, Measurement, Spread, StepTimes, Timing, machine
from readme_tables import changing_markdown, main

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_steps(monkeypatch):
    def times(case, workload, *ratios):
        def timing(name, ratio):
            return Timing(name, Spread(ratio / 1e3, 0, 0), Spread(ratio, 0, 0))

        names = ("descend", "torch default", "torch fused")
        found = tuple(timing(*one) for one in zip(names, (1.0, *ratios), strict=False))
        return StepTimes(case, workload, 6, found, 5670, timing("constant", 0.5), None, None)

    steps = (
        times("sgd", "mlp", 3.0, 2.5),
        times("adamw", "mlp", 4.0, 2.0),
        times("adamw", "convnet", 5.0, 1.5),
        times("lion", "mlp", 7.0),
        times("adafactor", "mlp"),
    )
    found = Measurement(machine(), 1, 1.0, steps)
    monkeypatch.setattr(readme_tables, "measure_parts", lambda *_, **__: found)
    result = CliRunner().invoke(main, [], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "| AdamW and its schedule | descend | torch default | torch foreach | torch fused | "
        "descend, lr constant |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 6 tensors, 5.67 k parameters | 1.00 ms | 4.00 ms | - | 2.00 ms | 500 us |",
        "| 6 tensors, 5.67 k parameters | 1.00 ms | 5.00 ms | - | 1.50 ms | 500 us |",
        "",
        "| the best other over descend | 6 tensors | 450 tensors |",
        "| --- | --- | --- |",
        "| AdamW | 2.00 | 1.50 |",
        "| Lion, beside pytorch_optimizer | 7.00 | - |",
        "| SGD | 2.50 | - |",
    ]
    assert result.stdout.splitlines()[0] in README.splitlines()
    assert "\n| the best other over descend | 6 tensors | 450 tensors |" in README


def test_the_table_of_changes(monkeypatch):
    rows = {
        ("lr", "24 tensors", "adamw"): 2.0,
        ("lr", "450 tensors", "adamw"): 3.0,
        ("lr", "24 tensors", "sgd-momentum"): 1.0,
        ("lr", "24 tensors", "rmsprop"): 4.0,
        ("groups", "1,000 groups", "adamw"): 1.25,
        ("sparse", "2,000 rows", "sgd"): 0.5,
    }
    given = [row(change, ratio, model, case) for (change, model, case), ratio in rows.items()]
    lines = list(changing_markdown(measured(*given)))
    assert lines == [
        "| torch's best over descend, 24 tensors / 450 tensors | AdamW | SGD with momentum "
        "| RMSprop |",
        "| --- | --- | --- | --- |",
        "| lr | 2.00 / 3.00 | 1.00 / - | 4.00 / - |",
        "| groups, 1,000 groups | 1.25 | - | - |",
        "| sparse, 2,000 rows | - | 0.500 | - |",
    ]
    assert lines[0] in README.splitlines()
    assert all(f"| {change.about}" in README for change in CHANGES.values())
    monkeypatch.setattr(readme_tables, "measure_parts", lambda *_, **__: measured(*given))
    result = CliRunner().invoke(main, ["--changing", "--rounds", "1"], catch_exceptions=False)
    assert (result.exit_code, result.stdout.splitlines()) == (0, lines)


def test_the_table_of_optimizers_keeps_what_the_readme_says_of_them(monkeypatch):
    monkeypatch.setattr(readme_tables, "CATALOGUE", {"adam": descend.Adam, "lbfgs": descend.LBFGS})
    monkeypatch.setattr(readme_tables, "_beside_adamw", lambda name, rounds: 1.25 * rounds)
    result = CliRunner().invoke(main, ["--optimizers", "--rounds", "2"], catch_exceptions=False)
    head, _, adam, lbfgs = result.stdout.splitlines()
    assert head in README.splitlines()
    (was,) = (line for line in README.splitlines() if line.startswith("| `Adam` |"))
    before, _, when = was.rpartition(" | ")
    assert adam == f"{before.rpartition(' | ')[0]} | 2.50 | {when}"
    assert lbfgs in README.splitlines()


def test_a_step_is_measured_beside_adamws(monkeypatch):
    monkeypatch.setattr(readme_tables, "MODEL", WORKLOADS["mlp"])
    monkeypatch.setattr(readme_tables, "measure", lambda runs, _: {
        name: [float(run(1) > 0) + (name == "lion")] for name, run in runs.items()
    })  # fmt: skip
    assert readme_tables._beside_adamw("lion", 1) == 2.0
