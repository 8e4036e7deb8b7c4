"""Access logs for tests: single lines, a log that is generated from a seed, and the one that is shared between projects."""

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sluicegate.presentation.cli.replay.formats.client_field import LoggedClients
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest, ReaderOptions
from sluicegate.presentation.cli.replay.source.log_files import LogFiles

RULES = Path(__file__).parents[2] / "examples" / "rules" / "website.toml"
SHARED_LOG = Path(__file__).parents[3] / "shared" / "data" / "access.log"
if not SHARED_LOG.exists():  # a worktree lies one folder deeper than a clone
    SHARED_LOG = Path(__file__).parents[4] / "shared" / "data" / "access.log"

needs_the_shared_log = pytest.mark.skipif(
    not SHARED_LOG.exists(), reason="the shared access.log is not on this machine"
)

MIDNIGHT = datetime(2015, 5, 17, tzinfo=UTC)
MIDNIGHT_US = int(MIDNIGHT.timestamp()) * 1_000_000
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def combined_line(
    second: float,
    request: str = "GET / HTTP/1.1",
    address: str = "192.0.2.1",
    *,
    status: int = 200,
    agent: str | None = None,
) -> str:
    """Return a line in Common format, or in Combined format with an agent, so many seconds after midnight."""
    time = MIDNIGHT + timedelta(seconds=int(second))
    tail = "" if agent is None else f' "-" "{agent}"'
    return f'{address} - - [{time:%d/%b/%Y:%H:%M:%S} +0000] "{request}" {status} 5{tail}\n'


def log_files(folder: Path, lines: Iterable[str | bytes], **options: object) -> LogFiles:
    """Write lines to a file and return its reader."""
    path = folder / "access.log"
    path.write_bytes(b"".join(line.encode() if isinstance(line, str) else line for line in lines))
    return LogFiles([str(path)], reader_options(), **options)  # type: ignore[arg-type]


def reader_options(
    fields: dict[str, str] | None = None, identify: dict[str, str] | None = None, proxies: Sequence[str] = ()
) -> ReaderOptions:
    """Return what readers are told."""
    return ReaderOptions(LoggedClients(proxies), fields or {}, identify or {})


def request_at(second: float, client: str = "192.0.2.1", path: str = "/", **more: object) -> LoggedRequest:
    """Return a `GET` request so many seconds after midnight."""
    return LoggedRequest(MIDNIGHT_US + round(second * 1_000_000), client, "GET", path, **more)  # type: ignore[arg-type]


def generated_lines(count: int, *, clients: int, seed: int, span_s: int = 259_200) -> Iterator[str]:
    """Yield lines of a site that people, robots and a password guesser visit, out of order by up to three seconds."""
    chance = random.Random(seed)
    addresses = [f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(clients)]
    weights = [1 / (rank + 1) ** 0.7 for rank in range(clients)]
    robots = set(addresses[::17])
    paths = ("/", "/login", "/api/v1/items/{}", "/blog/post-{}", "/static/app-{}.js", "/users/{}/orders")
    for number, address in enumerate(chance.choices(addresses, weights, k=count)):
        second = max(0, number * span_s // count - chance.randrange(4))
        path = chance.choice(paths).format(chance.randrange(3_000))
        method = "POST" if path == "/login" else "GET"
        agent = "examplebot/2.1 (+https://bots.example/)" if address in robots else BROWSER
        status = chance.choice((200, 200, 200, 304, 404))
        yield combined_line(second, f"{method} {path} HTTP/1.1", address, status=status, agent=agent)
        if number % 5 == 0:
            guess = combined_line(second, "POST /login HTTP/1.1", "203.0.113.66", status=401, agent=BROWSER)
            yield guess
