"""The command line of `sluicegate rules …`: arguments, options and help. `rules_commands` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from sluicegate.presentation.cli import rules_commands

rules_app = typer.Typer(
    name="rules",
    help="Check, show and explain rules files.",
    epilog="Exit status: 0 fine, 1 findings or denied, 2 usage or bad input.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
)

RulesFile = Annotated[
    Path | None, typer.Option("--rules", metavar="FILE", help="The rules file, instead of $SLUICEGATE_RULES.")
]
App = Annotated[
    str, typer.Option("--app", metavar="MODULE:APP", help="The application whose code declares rules; it is imported.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@rules_app.command()
def lint(files: Annotated[list[Path], typer.Argument(metavar="FILE...")], *, as_json: AsJson = False) -> None:
    """Check rules files: errors with their place, and what is doubtful."""
    raise typer.Exit(rules_commands.lint_files(files, as_json=as_json))


@rules_app.command()
def show(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A rules file, instead of $SLUICEGATE_RULES.")
    ] = None,
    *,
    app: App = "",
    as_json: AsJson = False,
) -> None:
    """Show the effective rules and their version; of code too with --app."""
    raise typer.Exit(rules_commands.show(file, app, as_json=as_json))


@rules_app.command(short_help="Explain which rules apply to a request, and why.")
def explain(  # noqa: PLR0913 - one parameter for each option
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint, such as 'POST /login'.")],
    *,
    ip: Annotated[str, typer.Option("--ip", metavar="ADDRESS", help="The client's address.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="USER", help="The user.")] = "",
    identifiers: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="SCOPE=IDENTIFIER", help="The client's identifier in another scope."),
    ] = None,
    ipv6_prefix: Annotated[
        int, typer.Option("--ipv6-prefix", metavar="BITS", help="Bits of an IPv6 address that make a client.")
    ] = 64,
    cost: Annotated[int, typer.Option("--cost", metavar="N", help="Tokens to take; 0: the rules' own cost.")] = 0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read the path as it is, as Starlette's router does, not in every way.")
    ] = False,
    rules: RulesFile = None,
    as_json: AsJson = False,
) -> None:
    """Explain which rules apply to a request, in which order, with which keys and limits, and why."""
    address = rules_commands.read_address(ip, ipv6_prefix) if ip else ""
    named = [(scope, name) for scope, name in (("ip", address), ("user", user)) if name]
    named += [rules_commands.read_identifier(text) for text in identifiers or []]
    raise typer.Exit(rules_commands.explain(rules, endpoint, named, cost, exact=exact, as_json=as_json))


@rules_app.command()
def routes(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="A Starlette or FastAPI application.")],
    *,
    rules: RulesFile = None,
    as_json: AsJson = False,
) -> None:
    """Show an application's routes that no rule is for."""
    raise typer.Exit(rules_commands.routes(app, rules, as_json=as_json))


@rules_app.command()
def schema() -> None:
    """Print the JSON Schema of rules files, for editors."""
    raise typer.Exit(rules_commands.schema())
