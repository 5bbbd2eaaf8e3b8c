"""Commands called in this process: what they print, and the documents that they give."""

import json
import traceback

from click.testing import CliRunner

from descend.cli import main


def invoke(command, *args, **options):
    """The result; what is no error of ours is shown."""
    result = CliRunner().invoke(main, [command, *map(str, args)], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        traceback.print_exception(*result.exc_info)
        raise AssertionError(f"{command} {args}: {result.exception!r}")
    return result


def document(command, *args, status=0):
    """The JSON document: nothing else on stdout, and nothing in it that JSON has no word for."""

    def refuse(constant):
        raise AssertionError(f"{constant} in the document")

    result = invoke(command, *args, "--json")
    assert result.exit_code == status, (result.stdout, result.stderr)
    return json.loads(result.stdout, parse_constant=refuse)
