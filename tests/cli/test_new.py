"""`descend new`: the project that it makes runs, is tested, and reads like an example."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import descend
from cli import commands

HOME = Path(descend.__file__).parents[1]
FILES = {
    "README.md", "main.py", "test_project.py", "data/__init__.py", "data/data_module.py",
    "data/digits.py", "data/spirals.py", "model/__init__.py", "model/classifier.py",
}  # fmt: skip


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = commands.invoke("new", "demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "demo is made; now: cd demo && python main.py\n"
    return tmp_path / "demo"


def test_h5_the_project_has_data_a_model_and_a_command_and_runs_at_once(project):
    there = {str(one.relative_to(project)) for one in project.rglob("*") if one.is_file()}
    assert there == FILES
    assert "# demo" in (project / "README.md").read_text()
    first = run(project, "main.py", "--max_epochs", "3", "--dataset", "spirals", "--hidden", "16")
    assert first.returncode == 0, first.stderr
    assert "epoch 3/3" in first.stdout
    folder = project / "runs" / "datasetspirals-hidden16"
    assert (folder / "metrics.jsonl").exists()
    again = run(project, "main.py", "--max_epochs", "3", "--dataset", "spirals", "--hidden", "16")
    assert "is over after 3 epochs" in again.stdout
    words = run(project, "main.py", "--help").stdout
    for name in ("--dataset {digits,spirals}", "--batch_size", "--hidden", "--dropout", "--lr"):
        assert name in words


def test_its_own_tests_pass(project):
    result = run(project, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout


def test_its_files_are_clean(project):
    for command in (("check", "--select", "E,F,I,B,UP"), ("format", "--check")):
        result = run(project, "-m", "ruff", *command, "--line-length", "100", "--isolated", ".")
        assert result.returncode == 0, result.stdout


def test_a_folder_with_files_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    result = commands.invoke("new", "full")
    assert result.exit_code == 2
    assert result.stderr == (
        "descend: error: full holds files already; give a new or an empty folder for the project\n"
    )
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "file").write_text("")
    result = commands.invoke("new", "file")
    assert (result.exit_code, "cannot be made: File exists" in result.stderr) == (2, True)
