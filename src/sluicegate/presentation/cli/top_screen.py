"""Draw the figures of a service in a terminal: what the live page shows, in tables."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sluicegate.application.live.hot_list import HotList
from sluicegate.application.live.live_figures import Latency, LiveFigures, RuleRow
from sluicegate.presentation.cli.terminal import printable

_HOT_ROWS = 5
_OTHER_LINES = 22  # of a screen, beside the rows of the rules
_LEAST_RULES = 3


def draw(figures: LiveFigures, height: int | None = None, notice: str = "") -> RenderableType:
    """Return what to print.

    Args:
        figures: The figures.
        height: The lines that there are; None: as many as it takes.
        notice: What else to say, such as that these figures are old; empty: nothing.
    """
    return Group(*_parts(figures, height, notice))


def _parts(figures: LiveFigures, height: int | None, notice: str) -> Iterator[RenderableType]:
    if notice:
        yield _line(notice, "red")
    yield _line(_head(figures))
    yield _line(_state(figures))
    for warning in _warnings(figures):
        yield _line(warning, "red")
    most = len(figures.rules) if height is None else max(_LEAST_RULES, height - _OTHER_LINES)
    yield _rules(figures.rules, most, figures.rules_left_out)
    if figures.hot is not None:
        hot_rows = None if height is None else _HOT_ROWS
        yield _hot(f"ask most ({figures.hot.identifiers})", figures.hot.asked, hot_rows)
        yield _hot(f"are denied most ({figures.hot.identifiers})", figures.hot.denied, hot_rows)


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def _head(figures: LiveFigures) -> str:
    traffic = figures.traffic
    return (
        f"{_rate(traffic.allowed_per_second)} allowed/s, {_rate(traffic.denied_per_second)} denied/s"
        f" ({_share(traffic.deny_share_now)}); in all {traffic.allowed + traffic.denied:,} checks,"
        f" {_share(traffic.deny_share)} denied; p99 {_p99(figures.latency_now)}"
    )


def _state(figures: LiveFigures) -> str:
    storage, workers = figures.storage, len(figures.workers)
    breaker = {None: "", 0: ", breaker closed"}.get(storage.breakers_open, ", breaker OPEN")
    since = min(one.started for one in figures.workers)
    processes = f"{workers} of {workers + figures.workers_missing} processes"
    return (
        f"{storage.kind} {'does not answer' if storage.faults else 'answers'}{breaker}; rules {figures.in_force.version},"
        f" {len(figures.in_force.overrides)} overrides added; {processes} since {_time(since)}"
    )


def _warnings(figures: LiveFigures) -> Iterator[str]:
    rules = figures.in_force
    for switch in rules.switched_off:
        until = f" until {_time(switch.until)}" if switch.until else ""
        yield f"SWITCHED OFF: {', '.join(switch.policies) or 'everything'}{until} {switch.reason}".rstrip()
    if figures.storage.faults:
        yield f"the storage does not answer: {', '.join(figures.storage.faults)}"
    if rules.last_error:
        yield f"rules were refused, those before hold: {rules.last_error}"
    if figures.rules_differ:
        yield "processes have rules of different versions"
    if figures.workers_missing:
        yield f"{figures.workers_missing} processes did not answer: their numbers are missing"
    if figures.events_dropped:
        yield f"{figures.events_dropped:,} events were lost: the numbers are too low"


def _rules(rules: Sequence[RuleRow], most: int, left_out: int) -> Table:
    table = _table("endpoint", "rule", "held now")
    in_shadow = any(row.shadow_denied for row in rules)
    for name in ("allowed/s", "denied/s", "allowed", "denied", "share", *(["in shadow"] if in_shadow else [])):
        table.add_column(name, justify="right", no_wrap=True)
    busiest = sorted(rules, key=lambda row: (-(row.denied_per_second or 0), -row.denied, -row.allowed))[:most]
    for row in busiest:
        mode = "switched off" if row.switched_off else "" if row.mode == "enforced" else row.mode
        name = f"{row.policy or '-'}{f' ({mode})' if mode else ''}"
        checks = row.allowed + row.denied
        table.add_row(
            _line(row.endpoint),
            _line(name),
            _line(_held(row)),
            _rate(row.allowed_per_second),
            Text(_rate(row.denied_per_second), "red" if row.denied_per_second else ""),
            f"{row.allowed:,}",
            f"{row.denied:,}",
            _share(row.denied / checks if checks else None),
            *([f"{row.shadow_denied:,}"] if in_shadow else []),
        )
    _more(table, len(rules) - len(busiest) + left_out)
    return table


def _hot(title: str, hot: HotList, most: int | None) -> Table:
    table = _table(title, "client")
    table.add_column("times", justify="right", no_wrap=True)
    for one in hot.keys[:most]:
        least = f"{one.count - one.error:,} to " if one.error else ""
        table.add_row(_line(one.endpoint), _line(one.identifier), f"{least}{one.count:,}")
    _more(table, len(hot.keys[most:]) if most is not None else 0)
    return table


def _table(*texts: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for text in texts:
        table.add_column(text, no_wrap=True, overflow="ellipsis")
    return table


def _more(table: Table, hidden: int) -> None:
    if hidden > 0:
        table.caption = f"and {hidden:,} more"
        table.caption_justify = "left"


def _held(row: RuleRow) -> str:
    if row.in_flight is not None:
        return f"{row.in_flight:,} in flight"
    return "" if row.reserved is None else f"{row.reserved:,} reserved"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _p99(latency: Latency) -> str:
    if not latency.count:
        return "-"
    return "over 1 s" if latency.p99_ms is None else f"{latency.p99_ms:g} ms"


def _time(moment: datetime) -> str:
    return moment.astimezone().isoformat(" ", "seconds")
