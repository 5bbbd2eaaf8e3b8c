"""`descend verify-resume`: a script in, a verdict out; the check is `descend.resume_check`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from descend.checks import WHOLE
from descend.cli.options import A_PATH, json_option, option, path_option
from descend.cli.progress_bar import progress_bar
from descend.format import counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from descend.resume_check.check import ResumeCheck
    from descend.resume_check.run_comparison import Comparison

MOST = 8
"""How many differences are shown of each kind; --json has all."""

WIDTH = 14
"""Of the column of words on the left."""

RANDOM = "run.random."
"""The beginning of the names of the random states."""

VERDICTS = {
    "bit-exact": "resumes bit for bit.",
    "not bit-exact": "does NOT resume bit for bit.",
    "not repeatable": "is not repeatable: two runs of it differ without any kill.",
    "changed by saving": "is changed by saving: a run that saves more often differs.",
    "fails": "{failed} when it is started again.",
    "starts over": "does not resume: it starts over each time it is started.",
    "never ends": "came to no end when it was started again.",
}

ADVICE = {
    "not repeatable": """
Before its resume can be checked, the script has to repeat itself. Likely causes:
- the model is built before any seed: call torch.manual_seed first (Run seeds the rest)
- a generator of its own without a seed: torch.Generator(), numpy.random.default_rng()
- nondeterministic operations: torch.use_deterministic_algorithms(True) names them
- the order of a set or of a folder's files, the time, or what an earlier run left behind
""",
    "changed by saving": """
Likely cause: the state_dict of one of its objects changes something: it draws random numbers,
averages, or switches between training and evaluation. It has to leave everything as it is.
""",
    "not bit-exact": """
Something carries over from step to step and is not given to Run, or is not in the state of what a
Trainer saves. Likely causes:
- a number or tensor of the script's own: a running mean, an average (EMA)
- a count that begins again in each process, as that of enumerate(run): use run.step
- something done once on the way, if run.step == 1000: do it from there on, with >=
- a second loader: give Run a descend.ResumableLoader(loader, seed=1) of it, by a name of its own
- an object with a state: a scheduler, a GradScaler
- a generator of its own: torch.Generator, numpy.random.default_rng
- something built from what has changed meanwhile: the parameters, the time, a file
- a line that is logged outside of the loop, by every process: ask run.resumed_from before
- with a Trainer: an attribute of a Callback that has no state_dict and load_state_dict, or one of
  the Module that is no buffer

Give Run whatever has state_dict and load_state_dict: Run(..., ema=ema). Make tensors of your own
buffers:
  own = torch.nn.Module()
  own.register_buffer("mean", torch.zeros(()))  # and use own.mean from there on
  run = descend.Run(..., own=own)
Draw random numbers from torch's, NumPy's and Python's global generators, which Run looks after.
Where only a time differs: --ignore KEY, before the script.
""",
    "starts over": """
Likely causes: Run(..., fresh=True), Trainer(resume=False), or the script removes the run's folder
itself. Do so only where it is asked for, such as by an argument of the script.
""",
    "fails": """
A script that resumes is the same command again: it has to bear what it left behind, such as files
and folders that exist already.
""",
    "never ends": """
It was given far more time than the whole run took. Likely cause: it waits for what the killed
process has left behind, such as a lock file.
""",
}

# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
Say whether a script of yours resumes bit for bit: run it whole, run it with kills, compare.

\b
SCRIPT is a Python file that trains with descend.Run, or with a descend.Trainer that has a folder;
what follows it are its arguments.
  1. It runs whole, twice: does it repeat itself at all?
  2. It runs again, and is killed with SIGKILL at random instants, also in the middle of saves,
     and started again each time, until it ends by itself.
  3. All that its newest checkpoint holds and every line of its metrics.jsonl have to be equal to
     those of the whole run, in every bit; so have the rows of a metrics.csv and the values of
     TensorBoard's event files in the run's folder.

\b
Examples:
  descend verify-resume my_script.py
  descend verify-resume my_script.py --epochs 2        the script's own arguments come after it
  descend verify-resume --kills 20 my_script.py        and those of this command before it
  descend verify-resume --out kept my_script.py        to look at what it compared:
  descend diff kept/whole-1 kept/killed-1

\b
It takes as long as three trainings, and for each kill as long as the script takes to start: give
it arguments that make the training short. The run's folder is replaced by one elsewhere, so yours
is not touched; what else the script writes, it writes. It may make one Run, or fit one Trainer
that has a folder, and validate, test and predict after it. What it neither logs nor gives to Run
is not compared.

\b
Exit status: 0 all is equal; 1 it is not, or the script does not repeat itself; 2 the input cannot
be used; 130 interrupted.
"""


@click.command(
    help=HELP,
    # What follows the script is the script's, whatever it looks like
    context_settings={"allow_interspersed_args": False},
)
@click.argument("script", metavar="SCRIPT", type=A_PATH)
@click.argument("arguments", metavar="[ARGUMENTS...]", nargs=-1, type=click.UNPROCESSED)
@option("--kills", default=5, help="How often to kill it. If it ends before, it is run again.")
@option(
    "--every-steps",
    help="Save after each so many steps, in all runs but the first.  [default: often enough for "
    "the kills]",
)
@option(
    "--seed",
    allowed=WHOLE,
    default=0,
    help="Seed of the random instants, which still are never quite the same.",
)
@click.option(
    "--ignore",
    metavar="KEY",
    multiple=True,
    help="A key of metrics.jsonl that need not be equal, such as a time; may be repeated. One that "
    "differs between the two whole runs is left out anyway.",
)
@path_option(
    "--out",
    metavar="FOLDER",
    help="Keep the runs' folders and what they printed here, in a new folder or an empty one.",
)
@json_option
def verify_resume(
    script: Path, arguments: tuple[str, ...], out: Path | None, as_json: bool, **options: Any
) -> int:
    """Check a script; the exit status."""
    from descend.resume_check.check import check_resume
    from descend.resume_check.script_process import Script, ScriptError

    try:
        with progress_bar(stderr=as_json) as (show, say):

            def tell(line: str) -> None:
                say(line)
                show("", 0)

            result = check_resume(Script(script, arguments), keep=out, tell=tell, **options)
    except ScriptError as error:
        if error.output:
            click.echo(_quoted(script, error.output), err=True)
        raise ScriptError(f"{error}{_misplaced(arguments, error)}") from error
    if as_json:
        click.echo(_document(script, arguments, result))
    else:
        click.echo("\n".join(_report(script, result)))
    if out is not None:
        click.echo(f"kept: {out}", err=as_json)
    return 0 if result.verdict == "bit-exact" else 1


def _misplaced(arguments: Sequence[str], error: Exception) -> str:
    """The advice where a script complains of an option that was meant for this command."""
    known = {"--help", *(name for one in verify_resume.params for name in one.opts)}
    given = [argument.partition("=")[0] for argument in arguments]
    names = [name for name in given if name in known and name in str(error)]
    if not names:
        return ""
    return f"; {', '.join(names)} went to the script: options of this command come before it"


def _report(script: Path, result: ResumeCheck) -> Iterator[str]:
    """The verdict and what it rests on, for a reader."""
    yield ""
    yield f"{script} {VERDICTS[result.verdict].format(failed=_how_it_failed(result))}"
    for word, text in _rows(result):
        yield f"  {word:<{WIDTH}}{text}"
    if result.output:
        yield _quoted(script, result.output)
    if result.verdict in ADVICE:
        yield ADVICE[result.verdict].rstrip("\n")


def _how_it_failed(result: ResumeCheck) -> str:
    from descend.resume_check.script_process import how_it_ended

    return f"fails ({how_it_ended(result.status)})" if result.status else "leaves no checkpoint"


def _rows(result: ResumeCheck) -> Iterator[tuple[str, str]]:
    """The grounds of the verdict: a word, and what there is to say to it."""
    compared, equal = result.comparison, result.verdict == "bit-exact"
    yield "whole run", f"{counted(result.steps, 'step')}, {duration(result.seconds)}"
    if compared is not None and result.verdict not in ("not repeatable", "changed by saving"):
        yield "", "a second one was equal"
    if result.kills:
        every = result.every_steps
        saving = "as the script says" if every is None else f"every {counted(every, 'step')}"
        soon = equal and len(result.kills) < result.wanted
        few = f" of {result.wanted}, for it is soon over," if soon else ""
        yield "kills", f"{len(result.kills)}{few} in {counted(result.runs, 'run')}, saving {saving}"
        yield "", f"at steps {', '.join(str(kill.step) for kill in result.kills)}"
        yield "", f"{sum(one.moment == 'save' for one in result.kills)} in the middle of a save"
        names = Counter(kill.resumes_from or "the start" for kill in result.kills)
        times = (one if n == 1 else f"{one} ({n} times)" for one, n in names.items())
        yield "resumed from", ", ".join(times)
    if compared is not None and equal:
        tensors = counted(compared.tensors, "tensor")
        values = counted(compared.values, "other value")
        keys = f" ({', '.join(compared.keys)})" if compared.keys else ""
        yield "compared", f"{', '.join(compared.objects)}: {tensors} and {values}"
        yield "", f"{counted(compared.lines, 'line')} of the log{keys}"
        for name, lines in compared.others.items():
            yield "", f"{counted(lines, 'line')} of {name}"
        yield "", "all equal, every bit"
        yield "not compared", "what the script neither logs nor gives to Run"
    if result.left_out:
        names_left = ", ".join(result.left_out)
        yield "left out", f"{names_left}: differs between whole runs too, or is to be ignored"
    for warning in result.warnings:
        yield "warned of", warning
    if compared is not None and not compared.equal:
        yield from _log_rows(compared, result)
        yield from _state_rows(compared)


def _log_rows(compared: Comparison, result: ResumeCheck) -> Iterator[tuple[str, str]]:
    """The first line in which the logs differ, and from where its run had gone on."""
    found, other = compared.log, "killed run" if result.kills else "second run"
    if found is None:
        yield "log", f"{counted(compared.lines, 'line')}, no difference"
        return
    lines = compared.lines
    if found.file is not None:
        yield "log", f"{counted(lines, 'line')}, no difference; {found.file} differs"
        lines = compared.others.get(found.file, 0)
    line = f"line {found.line}" + ("" if found.step is None else f", step {found.step}")
    if found.first is None:
        yield "log", f"{line} is only in the {other}: {json.dumps(found.second)}"
    elif found.second is None:
        yield "log", f"{line} of {lines} is missing in the {other}"
    else:
        yield "log", f"the first line that differs is {line}"
        for key in found.keys[:MOST]:
            here, there = (
                json.dumps(one[key]) if key in one else "nothing"
                for one in (found.first, found.second)
            )
            yield "", f"{key}: {here} in the whole run, {there} in the {other}"
    last = [kill.resumes_from for kill in result.kills if kill.run == result.runs]
    steps = {int(name.split("-")[1]) if name else 0: name for name in last}
    before = [step for step in steps if found.step is not None and step < found.step]
    if before:
        yield "", f"it had resumed from {steps[max(before)] or 'the start'} before"


def _state_rows(compared: Comparison) -> Iterator[tuple[str, str]]:
    """The tensors and the other values that differ; random states, and what follows, in short."""
    following = ("run.log", "run.metrics.") if compared.log else ()
    tensors = [one for one in compared.state if one.count is not None]
    values = [one for one in compared.state if one.count is None]
    own = [one for one in values if not one.name.startswith((RANDOM, *following))]
    random = sum(one.name.startswith(RANDOM) for one in values)
    for word, found, named, total in (
        ("tensors", tensors, tensors, compared.tensors),
        ("other values", values, own, compared.values),
    ):
        if found or word == "tensors":
            yield word, f"{len(found)} of {total} differ at the end"
        yield from (("", f"{one.name}: {one.what}") for one in named[:MOST])
        if len(named) > MOST:
            yield "", f"and {len(named) - MOST} more"
    if random:
        yield "", f"run.random: {random} in the states of the random generators"
    if len(values) > len(own) + random:
        yield "", "run: what follows from the log"


def _quoted(script: Path, output: str) -> str:
    """The end of what a script wrote, so that it stands out."""
    return "\n".join((f"what {script} wrote, its end:", *(f"| {x}" for x in output.splitlines())))


def _document(script: Path, arguments: Sequence[str], result: ResumeCheck) -> str:
    """The verdict as JSON has it."""
    from descend.format import json_text

    values = asdict(result)
    compared = values.pop("comparison") or {"state": (), "log": None}
    state, log = compared.pop("state"), compared.pop("log")
    if log is not None:
        log |= {"whole": log.pop("first"), "other": log.pop("second")}
    return json_text(
        {
            "script": str(script),
            "arguments": list(arguments),
            "equal": result.verdict == "bit-exact",
            "kills_wanted": values.pop("wanted"),
            **values,
            "seconds": round(result.seconds, 3),
            "compared": compared or None,
            "differences": state,
            "log_difference": log,
            "output": result.output or None,
        }
    )
