"""Arguments in, records out; the only place that prints. Importing it costs no torch."""

import errno
import os
import sys

import typer

from eyechart import __version__
from eyechart.cli import bench, compare, doctor, exam, lists, locate, mine, report, score, train, world, zoo
from eyechart.cli.console import fail
from eyechart.core.errors import UserError

INTERRUPTED = 130
"""The exit code of a command that was stopped by Ctrl-C: 128 + SIGINT."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when there is no room on a disk, or none left for this person."""

app = typer.Typer(
    name="eyechart",
    help="An eye exam for vision-language models: find what they cannot see, score it, locate it, fix it.\n\n"
    "Start with: eyechart exam",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("exam")(exam.run_exam)
app.command("score")(score.run_score)
app.command("locate")(locate.run_locate)
app.command("compare")(compare.run_compare)
app.command("mine")(mine.run_mine)
app.command("report")(report.render_again)
app.command("train")(train.run_training)
app.add_typer(bench.app, name="bench")
app.add_typer(zoo.app, name="zoo")
app.add_typer(world.app, name="world")
app.add_typer(lists.app, name="list")
app.command("doctor")(doctor.check_machine)


def _version(value: bool | None) -> None:  # noqa: FBT001 -- typer calls it with the flag's value
    if value:
        print(f"eyechart {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: bool | None = typer.Option(
        None, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Common entry of all commands."""


def main(args: list[str] | None = None) -> None:
    """Run the command line: 0 done, 1 a bug (with its traceback), 2 something the person can mend, 130 interrupted."""
    try:
        code = app(args=args, prog_name="eyechart", standalone_mode=False)
    except UserError as error:
        sys.exit(fail(str(error), code=2))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL:
            raise
        sys.exit(
            fail(
                f"the disk is full ({error}); what was done is kept: make room and give the same command",
                code=2,
            )
        )
    except Exception as error:
        shown = getattr(error, "show", None)  # click's own usage errors know how to print themselves
        if shown is None:
            raise
        shown()
        sys.exit(getattr(error, "exit_code", 2))
    if code == INTERRUPTED:  # typer turns an interrupt into this exit code
        fail("interrupted; the same command continues where this one stopped", code=code)
    sys.exit(code or 0)
