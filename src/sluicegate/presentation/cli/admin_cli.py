"""The command line of `sluicegate admin …`: arguments, options and help. `admin_commands` does the work."""

from typing import Annotated

import typer

from sluicegate.presentation.cli import admin_commands

admin_app = typer.Typer(
    name="admin",
    help="Administer a running service.",
    epilog="Exit status: 0 done, 1 not done, 2 usage or bad input.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
)

Server = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        envvar="SLUICEGATE_SERVER",
        help="A service's admin address: http://host:port, https://host:port or unix:/path.",
    ),
]
TokenFile = Annotated[
    str, typer.Option(metavar="FILE", envvar="SLUICEGATE_ADMIN_TOKEN_FILE", help="The file with the admin token.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Policy = Annotated[str, typer.Argument(metavar="POLICY", help="The name of a rule.")]
ForSeconds = Annotated[float, typer.Option(metavar="S", help="After how many seconds it ends by itself.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for people.")]


@admin_app.command(short_help="Show the rules in force, as JSON.")
def rules(*, server: Server, token_file: TokenFile = "") -> None:
    """Show which rules are in force, what is switched off and which overrides were added, as JSON."""
    raise typer.Exit(admin_commands.rules(server, token_file))


@admin_app.command()
def reload(*, server: Server, token_file: TokenFile = "", as_json: AsJson = False) -> None:
    """Read the rules again. If they are invalid, those before stay in force, and the status is 1."""
    raise typer.Exit(admin_commands.write(server, token_file, "/v1/reload", None, as_json=as_json))


@admin_app.command()
def refund(  # noqa: PLR0913 - one parameter for each option
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint, such as 'POST /login'.")],
    identifier: Annotated[str, typer.Argument(metavar="IDENTIFIER", help="The client.")],
    *,
    cost: Annotated[int, typer.Option(metavar="N", help="Tokens; 0: the rule's own cost.")] = 0,
    server: Server,
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Put tokens back into the buckets of an identifier."""
    body = {"endpoint": endpoint, "identifier": identifier, "cost": cost}
    raise typer.Exit(admin_commands.write(server, token_file, "/v1/refund", body, as_json=as_json))


@admin_app.command()
def override(  # noqa: PLR0913 - one parameter for each option
    policy: Policy,
    identifier: Annotated[str, typer.Argument(metavar="IDENTIFIER", help="The client, or a network of addresses.")],
    rate: Annotated[
        str, typer.Argument(metavar="[RATE]", help="Its limit, such as '100/minute'; none: no limit.")
    ] = "",
    *,
    for_seconds: ForSeconds,
    reason: Reason = "",
    server: Server,
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Give one client another limit for a while."""
    body = {"policy": policy, "identifier": identifier, "rate": rate, "for_seconds": for_seconds, "reason": reason}
    raise typer.Exit(admin_commands.write(server, token_file, "/v1/override", body, as_json=as_json))


@admin_app.command()
def take_back_override(
    policy: Policy,
    identifier: Annotated[str, typer.Argument(metavar="IDENTIFIER", help="The client, as it was given.")],
    *,
    server: Server,
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Remove an override that was added."""
    body = {"policy": policy, "identifier": identifier}
    raise typer.Exit(admin_commands.write(server, token_file, "/v1/take-back-override", body, as_json=as_json))


@admin_app.command()
def switch_off(  # noqa: PLR0913 - one parameter for each option
    policy: Annotated[str, typer.Argument(metavar="[POLICY]", help="The name of a rule; none: everything.")] = "",
    *,
    for_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="After how many seconds it ends by itself.")
    ] = None,
    reason: Reason = "",
    server: Server,
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Throw a kill switch: a rule, or everything, lets pass."""
    body = {"policy": policy, "for_seconds": for_seconds, "reason": reason}
    raise typer.Exit(admin_commands.write(server, token_file, "/v1/switch-off", body, as_json=as_json))


@admin_app.command()
def switch_on(
    policy: Annotated[str, typer.Argument(metavar="[POLICY]", help="The name of a rule; none: everything.")] = "",
    *,
    server: Server,
    token_file: TokenFile = "",
    as_json: AsJson = False,
) -> None:
    """Take a kill switch back."""
    raise typer.Exit(admin_commands.write(server, token_file, "/v1/switch-on", {"policy": policy}, as_json=as_json))
