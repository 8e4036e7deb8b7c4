"""Say in sentences what came of a replay."""

from collections.abc import Iterator
from typing import NamedTuple

from sluicegate.presentation.cli.replay.report.figures import ReplayReport


class SummaryLine(NamedTuple):
    """A line of the summary.

    Args:
        text: The text, which may contain what clients wrote.
        style: How it is shown on a terminal.
        is_sample: Whether it shows a line of the log, which is cut and not folded.
    """

    text: str
    style: str = ""
    is_sample: bool = False


def summary_lines(report: ReplayReport) -> Iterator[SummaryLine]:
    """Yield the summary, one fact a line."""
    for file in report.files:
        if file.format is not None:
            yield SummaryLine(f"{file.path}: {file.lines:,} lines, format {file.format}")
    span = ""
    if report.first and report.last:
        span = f" from {_time(report.first)} to {_time(report.last)} UTC"
    counted = report.allowed + report.denied
    yield SummaryLine(
        f"{report.lines:,} lines{span}: {report.requests:,} requests, {counted:,} under a rule, {report.no_rule:,} without one."
    )
    yield SummaryLine(
        f"{report.allowed:,} allowed, {report.denied:,} denied ({report.denied_share:.1%} of those under a rule).",
        "red" if report.denied else "green",
    )
    if report.honest_clients:
        share = report.honest_clients_denied / report.honest_clients
        yield SummaryLine(
            f"{report.honest_clients_denied:,} of {report.honest_clients:,} honest-looking clients were denied at least once"
            f" ({share:.1%})."
        )
    aside = ", ".join(f"{count:,} {kind}" for kind, count in report.client_kinds.items() if kind != "honest" and count)
    if aside:
        yield SummaryLine(f"Clients that do not look honest: {aside}.")
    yield from _comparison(report)
    yield from _doubts(report)


def _comparison(report: ReplayReport) -> Iterator[SummaryLine]:
    compared = report.comparison
    if compared is not None:
        yield SummaryLine(
            f"{compared.rules} denies {compared.denied:,}: {compared.both:,} are denied by both,"
            f" {compared.only_here:,} only by these rules ({compared.clients_only_here:,} clients that it never denies),"
            f" {compared.only_against:,} only by {compared.rules} ({compared.clients_only_against:,} clients)."
        )


def _doubts(report: ReplayReport) -> Iterator[SummaryLine]:
    if report.malformed.count:
        shown = len(report.malformed.first)
        more = ":" if shown == report.malformed.count else f", the first {shown} of them:"
        yield SummaryLine(f"{report.malformed.count:,} malformed lines were skipped{more}", "yellow")
        several = len(report.files) > 1
        for sample in report.malformed.first:
            where = f"{sample.path}, line {sample.line}" if several else f"line {sample.line}"
            yield SummaryLine(f"  {where}: {sample.reason}: {sample.text[:100]}", is_sample=True)
    if report.late:
        yield SummaryLine(
            f"{report.late:,} requests came too late to be put in order and were checked at the time of the request before"
            " them; a larger --reorder avoids that.",
            "yellow",
        )
    for warning in report.warnings:
        yield SummaryLine(warning, "yellow")
    if report.evicted_unfull:
        yield SummaryLine(
            f"{report.evicted_unfull:,} buckets were evicted before they were full: the memory storage cannot hold so many"
            " clients at once, so fewer requests were denied than should be.",
            "yellow",
        )


def _time(iso: str) -> str:
    return iso.replace("T", " ").removesuffix("Z")
