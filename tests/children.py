"""Python in a process of its own."""

import os
import subprocess
import sys


def python(*arguments, status=0, environment=(), **options):
    """A process that is over: its status is the one expected, or what it said is the error.

    Args:
        *arguments: of the interpreter, such as `"-c", CODE`.
        status: that it ends with.
        environment: what it has beside ours.
        **options: of `subprocess.run`.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **dict(environment)},
        **{"timeout": 300, **options},
    )
    assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
    return done
