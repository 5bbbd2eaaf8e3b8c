"""What happens between making a run and its loop."""

import json

import torch
from torch.utils.data import DataLoader

import descend


def run_in(folder, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = descend.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(torch.arange(6.0).view(6, 1), batch_size=2)
    return descend.Run(folder, model=model, optimizer=optimizer, loader=loader, **options)


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def train(run, die=None):
    for _ in run:
        run.log(loss=0.5)
        if run.step == die:
            break


def test_a_line_logged_before_the_loop_is_there_once(tmp_path):
    for die in (2, 3, None):
        run = run_in(tmp_path, epochs=2, every_steps=1)
        run.log(parameters=2)
        train(run, die)
        run.log(test=0.25)
    logged = lines(tmp_path)
    assert [line["step"] for line in logged] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert logged[0] == {"step": 0, "epoch": 1, "parameters": 2}
    assert "test" in logged[-1]


def test_f2_a_death_between_such_a_line_and_the_first_checkpoint(tmp_path):
    run_in(tmp_path).log(parameters=2)
    run = run_in(tmp_path)
    run.log(parameters=2)
    train(run)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]
