"""The command line of `sluicegate`.

The exit status is 0 for allowed or done, 1 for denied or not done, 2 for bad input. Wherever bad input is found,
`InvalidInputError` is raised, and `main` prints it as one line. Typer shows the docstrings of the commands as their help, so
they are written for the person at the terminal.
"""

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from sluicegate import COMPILED
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli import admin_commands, limiter_commands
from sluicegate.presentation.cli.replay.source.time_order import DEFAULT_REORDER_LINES
from sluicegate.presentation.cli.terminal import write_error, write_line

try:
    import typer
except ModuleNotFoundError as missing:
    if missing.name != "typer":
        raise
    write_error("the command line needs more parts: pip install 'sluicegate[cli]'")
    raise SystemExit(2) from None

BAD_INPUT = 2
BROKEN_PIPE = 141
"""The exit status that a shell reports for a program ended by SIGPIPE: 128 plus the signal's number."""

_ASKED_BY_SHELL = "_SLUICEGATE_COMPLETE"
"""Is in the environment where a shell asks how a command line may go on; fish reads the exit status."""

app = typer.Typer(
    name="sluicegate",
    help="Ask a rate limiter, try rules on an access log, and watch a limiter at work.",
    epilog="Exit status: 0 allowed or done, 1 denied or not done, 2 usage or bad input.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def whole_number(text: str) -> int:
    """Parse a whole number from the command line.

    Raises:
        typer.BadParameter: If it is not one. Unlike Typer's own message, this one shows the value.
    """
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:80]!r} is not a whole number.") from None


Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint, such as 'POST /login'.")]
Identifier = Annotated[str, typer.Argument(metavar="IDENTIFIER", help="The client: an address, a user, a tenant.")]
RulesFile = Annotated[
    Path | None, typer.Option("--rules", metavar="FILE", help="The rules file, instead of $SLUICEGATE_RULES.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _show_version(asked: bool) -> None:
    if asked:
        kind = "compiled" if COMPILED else "pure Python"
        write_line(f"sluicegate {version('sluicegate')} ({kind}, Python {platform.python_version()})")
        raise typer.Exit


from sluicegate.presentation.cli.admin_cli import Server, TokenFile, admin_app  # noqa: E402 - it needs typer, which is checked above
from sluicegate.presentation.cli.rules_cli import App, rules_app  # noqa: E402 - it needs typer, which is checked above
from sluicegate.presentation.cli.serve_cli import serve  # noqa: E402 - the same
from sluicegate.presentation.cli.storage_cli import storage_app  # noqa: E402 - the same

app.add_typer(rules_app)
app.add_typer(storage_app)
app.add_typer(admin_app)
app.command()(serve)


@app.callback()
def _sluicegate(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None: ...


@app.command()
def check(
    endpoint: Endpoint,
    identifier: Identifier,
    *,
    cost: Annotated[
        int, typer.Option(parser=whole_number, metavar="N", help="Tokens to take; 0: the rule's own cost.")
    ] = 0,
    rules: RulesFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether a request may pass, and take its tokens.

    SLUICEGATE_STORAGE_URL says where the buckets are. With memory://, the default, they are in this process and end with
    it: every check finds a full bucket, and shows what a rule does to one request and no more.
    """
    raise typer.Exit(limiter_commands.check(endpoint, identifier, cost, rules, as_json=as_json))


@app.command()
def remaining(  # noqa: PLR0913 - one parameter for each option
    endpoint: Endpoint,
    identifier: Identifier,
    *,
    rules: RulesFile = None,
    app: App = "",
    server: Server = "",
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Show how many tokens are left, and take none.

    With SLUICEGATE_STORAGE_URL=memory://, the default, buckets are those of this process, and full; with --server they are those
    of a running service. With --app the rules that an application's code declares are known too.

    Exit status 1 if no rule names the endpoint.
    """
    if server and not app:
        raise typer.Exit(admin_commands.remaining(server, token_file, endpoint, identifier, as_json=as_json))
    raise typer.Exit(limiter_commands.remaining(endpoint, identifier, rules, app, as_json=as_json))


@app.command(short_help="Fill the buckets of an identifier again.")
def reset(  # noqa: PLR0913 - one parameter for each option
    endpoint: Endpoint,
    identifier: Identifier,
    *,
    rules: RulesFile = None,
    app: App = "",
    server: Server = "",
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Fill the buckets of an identifier again; with --server, those of a running service.

    With --app the rules that an application's code declares are known too.

    Exit status 1, and a line that says why, if the storage did not do it, if it is memory://, or if no rule names the
    endpoint.
    """
    if server and not app:
        raise typer.Exit(admin_commands.reset(server, token_file, endpoint, identifier, as_json=as_json))
    raise typer.Exit(limiter_commands.reset(endpoint, identifier, rules, app, as_json=as_json))


@app.command(short_help="Show what a running service does now.")
def top(
    *,
    server: Server,
    token_file: TokenFile = "",
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a line each second, or one object with --once.")
    ] = False,
) -> None:
    """Show what a running service does now: checks a second by rule, who is hot, storage and rules.

    It goes on until control-C. Where standard output is no terminal, it shows it once. The numbers are those of all workers.
    """
    from sluicegate.presentation.cli import top_command  # noqa: PLC0415 - rich is slow to import

    raise typer.Exit(top_command.top(server, token_file, once=once, as_json=as_json))


@app.command(short_help="Try rules on access logs, or have limits suggested.")
def replay(  # noqa: PLR0913 - the options of the command
    access_log: Annotated[
        list[str],
        typer.Argument(metavar="ACCESS_LOG", help="Logs, plain, gzipped or zstd; - is standard input."),
    ],
    *,
    rules: RulesFile = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Another rules file to compare with.")
    ] = None,
    suggest: Annotated[bool, typer.Option("--suggest", help="Print a rules file that the traffic suggests.")] = False,
    share: Annotated[
        str, typer.Option("--share", metavar="PERCENT", help="Honest-looking clients that it may deny.")
    ] = "1",
    window: Annotated[
        int, typer.Option(parser=whole_number, metavar="SECONDS", help="In which its buckets are full again.")
    ] = 600,
    endpoint: Annotated[
        list[str] | None,
        typer.Option("--endpoint", metavar="TEMPLATE", help="Suggest for 'GET /users/{id}'; may be repeated."),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="combined, json, alb, w3c, haproxy or csv, not detected."),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="ROLE=FIELD", help="Where JSON or CSV has time, client, path, ..."),
    ] = None,
    identify: Annotated[
        list[str] | None,
        typer.Option("--identify", metavar="SCOPE=FIELD", help="The field that names a user, a tenant, ..."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option("--trusted-proxy", metavar="NETWORK", help="A proxy, besides private addresses."),
    ] = None,
    top: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Rows of each table; 0: all.")] = 10,
    reorder: Annotated[
        int,
        typer.Option(parser=whole_number, metavar="LINES", help="How many lines too late a request may stand."),
    ] = DEFAULT_REORDER_LINES,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try rules on the requests of access logs, or have limits suggested.

    Each line becomes one check of 'METHOD /path' by the client's address, at the log's own time and in memory: nothing
    outside is asked or changed. Malformed lines are counted, shown and skipped.
    """
    from sluicegate.presentation.cli.replay import command as replay_command  # noqa: PLC0415 - rich is slow to import, and only this command needs it
    from sluicegate.presentation.cli.replay.options import ReplayOptions  # noqa: PLC0415 - as slow

    options = ReplayOptions(
        logs=access_log,
        rules=rules,
        against=against,
        suggest=suggest,
        share=share,
        window_s=window,
        endpoints=endpoint or (),
        log_format=log_format,
        fields=field or (),
        identify=identify or (),
        trusted_proxies=trusted_proxy or (),
        top=top,
        reorder_lines=reorder,
        as_json=as_json,
        html=html,
    )
    raise typer.Exit(replay_command.replay(options))


@app.command(short_help="Protect a small web site, and watch it.")
def demo() -> None:
    """Protect a small web site and send it good and bad clients, for about 8 seconds.

    Real HTTP requests on the loopback interface, from 127.0.0.2 to 127.0.0.5; nothing else is touched.
    """
    from sluicegate.presentation.cli.demo import command as demo_command  # noqa: PLC0415 - it needs a web server

    raise typer.Exit(demo_command.demo())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: The arguments after the program's name; None: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a log may contain characters that the terminal cannot show
            reconfigure(errors="backslashreplace")
    try:
        status = app(arguments, prog_name="sluicegate", standalone_mode=False)
        sys.stdout.flush()
    except InvalidInputError as error:
        write_error(str(error))
        return BAD_INPUT
    except typer.TyperException as error:
        return _bad_usage(error)
    except (BrokenPipeError, SystemExit) as error:  # Typer turns the former into the latter
        if _ASKED_BY_SHELL in os.environ and isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 0
        # Otherwise Python would write what is still buffered at exit, fail again, and print the error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status if isinstance(status, int) else 0


def _bad_usage(error: typer.TyperException) -> int:
    message = error.format_message().replace("?.", "?")  # Typer puts a full stop behind its question
    if message.startswith("Usage:"):  # no arguments: the message is the help
        sys.stderr.write(f"{message}\n")
        return BAD_INPUT
    command: str = getattr(getattr(error, "ctx", None), "command_path", "sluicegate")
    write_error(f"{message if message.endswith(('.', '?')) else f'{message}.'} Try '{command} --help'.")
    return BAD_INPUT
