"""A terminal to run Python in, and what can be seen on it."""

import os
import re
import sys

import pytest


def in_terminal(*arguments, cwd):
    """Python in a pseudo terminal of 120 columns: its exit status, and all that it wrote.

    Args:
        *arguments: of the interpreter.
        cwd: the folder that it runs in.
    """
    pty = pytest.importorskip("pty", reason="needs a pseudo terminal")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="30")
        os.execv(sys.executable, [sys.executable, *map(str, arguments)])
    content = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's end of a pseudo terminal
            break
        content += part
        if not part:
            break
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), content.decode()


def screen(text):
    """All that a terminal shows after some output, and everything that it showed on the way."""
    rows, row, column, shown = [""], 0, 0, set()
    for part in re.finditer(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        code = part[0]
        if code == "\r":
            column = 0
        elif code == "\n":
            shown.add(rows[row])
            row += 1
            rows += [""] * (row == len(rows))
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
        elif code.endswith("K"):
            shown.add(rows[row])
            rows[row] = ""
        elif not code.startswith("\x1b"):
            rows[row] = rows[row][:column].ljust(column) + code + rows[row][column + len(code) :]
            column += len(code)
    return [one.rstrip() for one in rows], "\n".join(shown)
