"""The command line of `sluicegate storage …`: arguments, options and help. `storage_commands` does the work."""

from typing import Annotated

import typer

storage_app = typer.Typer(
    name="storage",
    help="Look into shared memory (shm://), and empty it.",
    epilog="Exit status: 0 done, 1 not done, 2 usage or bad input.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
)

Url = Annotated[
    str, typer.Argument(metavar="URL", help="shm://NAME or shm:///path, instead of $SLUICEGATE_STORAGE_URL.")
]


@storage_app.command(short_help="Show how full the file is.")
def info(url: Url = "", *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show how full the file is, and whether buckets were lost for want of room."""
    from sluicegate.presentation.cli import storage_commands  # noqa: PLC0415 - not on every system

    raise typer.Exit(storage_commands.info(url, as_json=as_json))


@storage_app.command()
def clear(url: Url = "") -> None:
    """Make every bucket full, for all processes that use the file.

    A file that was made by another version is removed, if no process uses it.
    """
    from sluicegate.presentation.cli import storage_commands  # noqa: PLC0415 - not on every system

    raise typer.Exit(storage_commands.clear(url))
