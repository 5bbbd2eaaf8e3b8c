"""The suggested learning rates beside the best ones, for one pair."""

import re

from learning_rates import main


def test_a_pair_is_compared(capsys):
    assert main(["--models", "linear", "--optimizers", "sgd"]) == 0
    shown = capsys.readouterr().out
    row = re.search(r"^linear sgd +(.*)$", shown, re.MULTILINE)
    best, steepest, valley, confirmed, low, high, loss = map(float, row[1].split())
    assert low < best < high
    assert valley < steepest <= confirmed
    assert loss < 2
    assert "the best is in the range 1 times of 1" in shown
