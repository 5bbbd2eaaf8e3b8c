"""The command that asks the question of a comparison again."""

import shlex

import pytest

from cli.commands import invoke
from descend.errors import SearchError
from descend.search.comparison_results import compare_command


@pytest.mark.parametrize(
    "command",
    [
        "compare small.py adamw lion",
        "compare adamw --budget 5m",
        "compare small.py adamw sgd:momentum=0.9 rules.py:Same --budget 640steps --metric "
        "mae:lowest --schedule 'cosine(1)' --batch-size 8 --seed 3 --seeds 7 --threads 2 "
        "--weight-decay",
        "compare small.py adamw --schedule constant --metric accuracy",
    ],
)
def test_h3_the_command_of_a_question_asks_it_again(small, monkeypatch, command):
    asked = []

    def caught(question, *rest):
        asked.append(question)
        raise SearchError("that is enough")

    monkeypatch.setattr("descend.search.comparison._compared", caught)
    invoke(*shlex.split(command))
    again = shlex.split(compare_command(asked[0]))
    assert again[0] == "descend"
    invoke(*again[1:], "--fresh")
    assert asked[0] == asked[1]
    assert compare_command(asked[1]) == compare_command(asked[0])
