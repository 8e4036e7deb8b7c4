"""The command `top`: the figures of a running service, once or until control-C. It returns the exit status."""

import sys
from collections.abc import Callable
from time import sleep
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live

from sluicegate.application.live.live_figures import LiveFigures
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.admin_commands import call_service
from sluicegate.presentation.cli.terminal import write_json, write_line
from sluicegate.presentation.cli.top_screen import draw

_PATH: Final = "/v1/live"
_FILE_WIDTH: Final = 140  # columns of what goes to a file or a pipe, which have no width of their own

Read = Callable[[], LiveFigures]
"""Returns the figures of the second that ends next. It raises `InvalidInputError` if the service does not answer."""


def top(server: str, token_file: str, *, once: bool, as_json: bool) -> int:
    """Show what a service does now.

    Args:
        server: The service's admin address.
        token_file: The file with its token; empty: it needs none.
        once: Whether to show it once; else it goes on until control-C, unless standard output is no terminal.
        as_json: Whether to print JSON: one object, indented, with `once`; else one a line and second.

    Raises:
        InvalidInputError: If the service does not answer, or does not let this caller in.
    """

    def read() -> LiveFigures:
        status, answer = call_service(server, token_file, "GET", _PATH)
        try:
            return msgspec.convert(answer, LiveFigures)
        except msgspec.ValidationError:
            raise InvalidInputError(f"{server}: status {status}, and no figures of this version") from None

    try:
        return _show(read, once=once, as_json=as_json)
    except KeyboardInterrupt:
        return 0


def _show(read: Read, *, once: bool, as_json: bool) -> int:
    console = Console(highlight=False)
    if as_json and once:
        write_json(read())
    elif as_json:
        while True:
            write_line(msgspec.json.encode(read()).decode())
            sys.stdout.flush()
    elif once or not console.is_terminal:
        if not console.is_terminal:
            console.width = max(console.width, _FILE_WIDTH)
        console.print(draw(read()))
    else:
        watch(read, console)
    return 0


def watch(read: Read, console: Console, *, pause_s: float = 1.0) -> None:
    """Show the figures as they come, until control-C. If the service goes away the last ones stay, and it says so.

    Args:
        read: Returns the figures.
        console: The terminal.
        pause_s: How long to wait before it is asked again, in seconds.

    Raises:
        InvalidInputError: If it does not answer the first time.
    """
    figures = read()
    with Live(draw(figures, console.height), console=console, screen=True, auto_refresh=False) as live:
        while True:
            notice = ""
            try:
                figures = read()
            except InvalidInputError as error:
                notice = f"OLD FIGURES: {error}"
            live.update(draw(figures, console.height, notice), refresh=True)
            if notice:
                sleep(pause_s)
