"""The alert rules and the dashboard: each metric that they name exists with its labels, and the rules fire when they should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluicegate.application.metrics.catalogue import OF_EVENTS, OF_STATE

PLACE = Path(__file__).parents[2] / "examples" / "servers" / "prometheus"
PROMTOOL = shutil.which("promtool")
FROM_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate"}
WORD = re.compile(r"\bsluicegate_\w+")


def alert_expressions() -> list[str]:
    """Return the expressions of the alert rules."""
    groups = yaml.safe_load((PLACE / "alerts.yaml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    value: dict[str, Any] = json.loads((PLACE / "dashboard.json").read_text())
    return value


def dashboard_expressions() -> list[str]:
    """Return the expressions of the dashboard."""
    board = dashboard()
    variables = [one["definition"] for one in board["templating"]["list"] if one["type"] == "query"]
    return variables + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def labels_of(expression: str) -> Iterator[str]:
    """Yield the labels that an expression selects or groups by."""
    for selector in re.findall(r"\{([^}]*)\}", expression):
        yield from re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)
    for listed in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", expression):
        yield from re.findall(r"\w+", listed)


@pytest.mark.parametrize("expression", [*alert_expressions(), *dashboard_expressions()])
def test_every_metric_and_label_exists(expression: str) -> None:
    """A panel or alert of a metric that is not there would stay silent for ever."""
    known = {metric.prometheus_name: set(metric.labels) for metric in (*OF_EVENTS, *OF_STATE)}
    named = {re.sub(r"_bucket$", "", name) for name in WORD.findall(expression)}
    assert named
    assert named <= known.keys()
    labels = set().union(*[known[name] for name in named]) | FROM_PROMETHEUS
    assert set(labels_of(expression)) <= labels


def test_the_dashboard_shows_nearly_every_metric() -> None:
    """What is measured can be seen; the rest is for queries."""
    shown = {re.sub(r"_bucket$", "", name) for one in dashboard_expressions() for name in WORD.findall(one)}
    missing = {metric.prometheus_name for metric in (*OF_EVENTS, *OF_STATE)} - shown
    assert missing == {
        "sluicegate_uncharged_tokens_total",
        "sluicegate_rules_changes_total",
        "sluicegate_rules_refusals_total",
    }


def test_the_panels_do_not_cover_each_other() -> None:
    """Each has an id and a place of its own."""
    panels = dashboard()["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len({panel["id"] for panel in panels}) == len(places) == len(panels)


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool: Debian's package prometheus brings it")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml"), ("check", "config", "prometheus.yaml")],
    ids=" ".join,
)
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(arguments: tuple[str, ...]) -> None:
    """Quiet while all is well, and each one when everything goes wrong."""
    assert PROMTOOL is not None
    run = subprocess.run([PROMTOOL, *arguments], cwd=PLACE, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tested() -> None:
    """Both that it fires and that it stays quiet."""
    groups = yaml.safe_load((PLACE / "alerts.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    quiet, loud = yaml.safe_load((PLACE / "alerts.test.yaml").read_text())["tests"]
    assert {one["alertname"] for one in quiet["alert_rule_test"]} == alerts
    samples = loud["promql_expr_test"][0]["exp_samples"]
    assert {re.findall(r'"(\w+)"', one["labels"])[0] for one in samples} == alerts
