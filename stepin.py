"""The front door: ``stepin`` on the command line.

Progress goes to stderr, results to stdout; ``--json`` gives one JSON document on stdout. Exit status 0 is
done, 1 refused or failed, 2 wrong usage. The commands stand in ``stepin_cli``; each imports a floor only
when it needs it.
"""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from stepin_cli import journal_commands, key_commands, model_commands, table_commands


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one sentence and status 1, wrong usage in status 2."""
    from features.problems import UserError

    try:
        with _sigterm_as_ctrl_c():
            status = cli.main(arguments, prog_name="stepin", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as asked:
        asked.show()
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "stepin"
        _end(f"{error.format_message().rstrip('.')}. See: {where} --help", 2)
    except click.ClickException as error:
        _end(error.format_message())
    except click.Abort:
        _end("stopped before it was done.")
    except UserError as error:
        _end(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        _end(
            f"this command needs {error.name}, which is not installed. "
            "Install what learning needs with: pip install 'stepin[train]'"
        )
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
    if isinstance(status, int) and status:  # from Exit, which click turns into its status
        sys.exit(status)


_OURS = ("features", "training", "serving", "stepin_cli")


def _end(sentence: str, status: int = 1) -> NoReturn:
    click.echo(f"stepin: {sentence}", err=True)
    sys.exit(status)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl+C does, so that nothing half-written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="stepin")
def cli() -> None:
    """Step in, or step back? Learns from past partner deals when vendor involvement raised the
    probability of winning, and says so deal by deal.
    """


for command in (
    model_commands.demo,
    table_commands.simulate,
    table_commands.import_,
    table_commands.features,
    model_commands.train,
    model_commands.score,
    model_commands.serve,
    model_commands.promote,
    model_commands.rollback,
    key_commands.key,
    journal_commands.journal,
):
    cli.add_command(command)


if __name__ == "__main__":
    main()
