"""`descend new`: a project that runs at once, to change from there."""

from importlib.resources import files
from pathlib import Path

import click

from descend.cli.options import A_PATH
from descend.errors import OutputError
from descend.files import replaced

TEMPLATE = "project_template"
SUFFIX = ".txt"  # so that no tool takes the template for a part of descend

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Make a project that trains at once: a data module with two datasets to choose from by name, a
model with its steps, and a command whose options are the arguments of both.

\b
  PROJECT/data/      the data module, and a file for each dataset
  PROJECT/model/     the network, its steps and its optimizer
  PROJECT/main.py    python main.py --dataset spirals --hidden 128 --max_epochs 50
  PROJECT/test_project.py, README.md

\b
Examples:
  descend new digits && cd digits && python main.py
  python main.py --help                every argument of the data and the model
  descend watch runs/*                 the curves of its runs
  pytest                               its tests

PROJECT must be new, or an empty folder.

\b
Exit status: 0 done, 2 the project cannot be made.
"""


@click.command(help=HELP)
@click.argument("project", metavar="PROJECT", type=A_PATH)
def new(project: Path) -> int:
    """Make a project; the exit status."""
    try:
        project.mkdir(parents=True, exist_ok=True)
        if any(project.iterdir()):
            raise OutputError(
                f"{project} holds files already; give a new or an empty folder for the project"
            )
        for path, text in _template():
            (project / path).parent.mkdir(exist_ok=True)
            with replaced(project / path) as file:
                file.write(text.replace("NAME", project.resolve().name).encode())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{project} cannot be made: {error.strerror or error}; give another folder"
        ) from error
    click.echo(f"{project} is made; now: cd {project} && python main.py")
    return 0


def _template() -> list[tuple[Path, str]]:
    """The files of a project, and what is in them."""
    top = files("descend.cli") / TEMPLATE
    folders = [(Path(), top), *((Path(one.name), one) for one in top.iterdir() if one.is_dir())]
    return [
        (folder / one.name.removesuffix(SUFFIX), one.read_text(encoding="utf-8"))
        for folder, there in folders
        for one in there.iterdir()
        if one.is_file()
    ]
