"""The table at the end: for which applications how many of the served requests were counted under another rule as well."""

from typing import Any

from frameworks.tallies import COUNTED_TOO_MUCH, SERVED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, on all servers together."""
    if not SERVED:
        return
    total = sum(SERVED.values())
    terminalreporter.write_line(f"{total} requests served, all counted; under another rule as well, of the served:")
    cells = [f"{app} {count} of {SERVED[app]}" for app, count in sorted(COUNTED_TOO_MUCH.items())]
    for at in range(0, len(cells), 3):
        terminalreporter.write_line("  " + "".join(f"{cell:40}" for cell in cells[at : at + 3]).rstrip())
