"""`--help` of every command: it teaches by examples, and fits in a terminal."""

import pytest

from cli import commands
from descend.cli import COMMANDS

TAUGHT = {
    "bench": ("Examples:", "descend bench --json > bench.json", "--steps-only", "streaming limit"),
    "compare": (
        "descend compare my_task.py adamw sgd:momentum=0.9 lion --budget 5m", "my_rule.py:Signum",
        "--suite small", "results.json", "Holm's", "Ctrl-C", "Exit status",
    ),
    "convert": (
        "descend convert old.pth checkpoint", "weights_only=True", "Exit status", "--only",
    ),
    "diff": (
        "descend diff runs/a runs/b", "--only model", "old.pth", "--json", "--all",
        "0 equal, 1 different, 2",
    ),
    "find-lr": (
        "Examples:", "descend find-lr my_task.py", "three sweeps", "--out lr.png", "Exit status",
    ),
    "inspect": (
        "descend inspect runs/mine", "old.pth --tensors", "--match exp_avg", "--json",
        "0 done, 1 something is damaged, 2",
    ),
    "new": (
        "descend new digits && cd digits && python main.py", "PROJECT/model/", "new, or an empty",
        "Exit status",
    ),
    "plot": ("Examples:", "descend plot", "one_cycle("),
    "report": ("descend report runs/* --out report.html", "nothing beside itself", "Exit"),
    "train": ("Examples:", "descend train --data", "descend.Task(", "metrics.jsonl", "Ctrl-C"),
    "tune": (
        'descend tune my_task.py --space "lr=log(1e-5,1e-1)" "hidden=int(16,256)"', "choice(",
        "descend train my_task.py --from", "--storage", "Ctrl-C", "fresh seeds",
    ),
    "verify": (
        "descend verify runs/mine", "runs/*", "old.pth", "--json", "rsync",
        "0 all are whole, 1 one is damaged, 2",
    ),
    "watch": ("descend watch runs/* --metric val_loss", "--once > curves.txt", "Ctrl-C"),
    "verify-resume": (
        "descend verify-resume my_script.py", "--kills", "--every-steps", "--seed", "--ignore",
        "--out", "--json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_teaches_and_is_at_most_100_columns_wide(command):
    result = commands.invoke(command, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 100
    for words in TAUGHT[command]:
        assert words in result.stdout, words
