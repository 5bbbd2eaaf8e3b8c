"""The command line as a whole: how it is started, and the characters of what it prints."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import descend
from descend import checkpoint as ck
from descend.cli import COMMANDS, main
from descend.cli.text import SPELT_OUT
from descend.format import printable
from descend.run.metrics_log import MetricsLog


def python(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_package_is_a_command():
    status, out, err = python("-m", "descend", "--help")
    assert (status, err) == (0, b"")
    assert out.startswith(b"Usage: descend [OPTIONS]")
    assert all(name.encode() in out for name in COMMANDS)
    status, out, err = python("-m", "descend", "trian")
    assert (status, out) == (2, b"")
    assert err.startswith(b"descend: error: there is no command 'trian'; did you mean train? ")


def test_help_is_an_option():
    result = CliRunner().invoke(main, ["help"])
    assert result.stderr.startswith(
        "descend: error: there is no command 'help'; did you mean --help? the commands: bench, "
    )


def test_the_version_is_the_packages():
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"descend, version {descend.__version__}\n"


# Terminals of other encodings

NAME = "\u6570\u636e"  # Chinese
EVERY = """
import sys
from descend.cli import main
for arguments in (["inspect", NAME], ["verify", NAME], ["diff", NAME, NAME],
                  ["inspect", NAME + "x"], ["inspect", NAME, "--json"],
                  ["convert", NAME, NAME + ".pth"], ["train", NAME + ".py"],
                  ["bench", NAME + ".py:A"], ["plot", NAME + ".py:a"]):
    try:
        main(arguments)
    except SystemExit as end:
        print(arguments[0], end.code, flush=True)
"""


@pytest.mark.parametrize(
    ("environment", "encoding", "readable"),
    [
        ({"LC_ALL": "C"}, "utf-8", True),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "utf-8", True),
        ({"PYTHONIOENCODING": "ascii"}, "utf-8", True),
        ({"PYTHONIOENCODING": "gbk"}, "gbk", True),
        ({"PYTHONIOENCODING": "big5"}, "big5", False),  # which lacks the second one
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1", False),
    ],
    ids=str,
)
def test_names_are_readable_wherever_the_terminal_has_them(
    tmp_path, monkeypatch, environment, encoding, readable
):
    monkeypatch.chdir(tmp_path)
    ck.save(NAME, {NAME: {"w": torch.ones(2)}, "epoch": 3})
    name = f"import os\nNAME = os.fsdecode({NAME.encode()!r})\n"
    status, out, err = python("-c", name + EVERY, **environment)
    assert status == 0
    text, errors = out.decode(encoding), err.decode(encoding)
    lines = [line for line in text.splitlines() if (line.split() or [""])[0] in COMMANDS]
    assert lines == ["inspect 0", "verify 0", "diff 0", "inspect 2", "inspect 0", "convert 0",
                     "train 2", "bench 2", "plot 2"]  # fmt: skip
    assert "Traceback" not in errors
    escaped = NAME.encode("ascii", "backslashreplace").decode()
    shown = NAME if readable else NAME.encode(encoding, "backslashreplace").decode(encoding)
    plain = "\n".join(line for line in text.splitlines() if not line.startswith((" ", "{", "}")))
    for printed in (plain, errors):
        assert shown in printed
        assert (escaped in printed) is (shown == escaped)
        assert "\\udc" not in printed
    document = text[text.index("{\n") : text.index("\n}\n") + 2]
    assert os.fsencode(json.loads(document)["path"]).decode() == NAME


def test_a_name_that_is_no_text_is_printed_as_it_is():
    assert "a\udcff\U0001f600\u6570".encode("gbk", SPELT_OUT) == b"a\xff\\U0001f600\xca\xfd"


def test_what_would_command_a_terminal_is_spelt_out():
    assert printable("a\x1b[31m") == "a\\x1b[31m"
    assert printable(NAME.encode().decode("ascii", "surrogateescape")) == NAME
    assert printable(b"\x1b".decode("ascii", "surrogateescape") + NAME) == "\\x1b" + NAME
    assert printable("a\udcff") == "a\\udcff"
    assert printable("a\ud800") == "a\\ud800"


def test_the_log_has_names_as_they_are(tmp_path):
    log = MetricsLog(tmp_path / "log")
    log.write({NAME: 1.5, "odd": "a\udcff"})
    assert (tmp_path / "log").read_text("utf-8") == f'{{"{NAME}": 1.5, "odd": "a\\udcff"}}\n'
    assert json.loads((tmp_path / "log").read_bytes()) == {NAME: 1.5, "odd": "a\udcff"}


def test_characters_without_a_font_are_told_of_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("descend.report.fonts._wide", lambda: [])
    (tmp_path / "t.py").write_text(
        f"""
import torch, descend
x = torch.randn(8, 2)
task = descend.Task(torch.nn.Linear(2, 2), (x, x), (x, x), torch.nn.functional.mse_loss,
                    {{"{NAME}": lambda outputs, targets: 0.5}})
""",
        encoding="utf-8",
    )
    result = CliRunner().invoke(main, ["train", "t.py", "--epochs", "1"])
    assert result.exit_code == 0
    assert result.stderr == (
        f"descend: warning: runs/t/curves.png: no font of this system has {NAME}, and boxes stand "
        f"there; install one, such as Noto Sans CJK\n"
    )
    assert f"validation {NAME} 0.5" in result.stdout
