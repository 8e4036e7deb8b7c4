"""The page: self-contained, safe with hostile logs, and at work in a real browser."""

import html.parser
import json
import re
import subprocess
from pathlib import Path

import pytest

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.cli.main import main
from sluicegate.presentation.cli.replay.clients import Clients
from sluicegate.presentation.cli.replay.comparison import Comparison
from sluicegate.presentation.cli.replay.engine import Replay, client_of
from sluicegate.presentation.cli.replay.report.builder import build_report
from sluicegate.presentation.cli.replay.report.figures import ReplayReport
from sluicegate.presentation.cli.replay.report.page import render_page, write_page
from support.access_logs import BROWSER, combined_line, generated_lines, log_files
from support.browser import CHROMIUM, FLAGS, needs_chromium

ATTACKS = (
    "</script><script>document.title='owned'</script>",
    "<img/src=x/onerror=document.title='owned'>",
    "'\"><svg/onload=document.title='owned'>",
    "{{7*7}}{%print(7)%}",
    "<!--<script>",
    "\u2028document.title='owned'",
)


def hostile_report(folder: Path) -> ReplayReport:
    """Return a report whose clients, paths, names, malformed lines and file names attack the page."""
    lines: list[str] = list(generated_lines(400, clients=30, seed=1))
    for attack in ATTACKS:
        encoded = "".join(f"%{byte:02x}" for byte in attack.encode())
        for second in range(4):
            lines.append(combined_line(second, f"GET /{encoded} HTTP/1.1", attack.replace(" ", "_"), agent=BROWSER))
            lines.append(combined_line(second, "GET /login HTTP/1.1", attack.replace(" ", "_"), agent=attack))
        lines.append(f"{attack}\n")
    files = log_files(folder, lines)
    rules = {
        f"GET /{ATTACKS[0]}": RateLimitRule.parse("1/hour"),
        f"GET /{ATTACKS[4]}": RateLimitRule.parse("1/hour"),
        "GET /{anything:path}": RateLimitRule.parse("1/hour"),
    }
    run = Replay(rules, measure_needs=True)
    comparison = Comparison(run, Replay({"GET /login": RateLimitRule.parse("1/minute")}))
    clients = Clients()
    for request in files.requests():
        clients.observe(client_of(request), request)
        comparison.check(request)
    return build_report(
        replay=run, clients=clients, files=files, top=0, comparison=comparison, against_name=f"{ATTACKS[1]}.toml"
    )


class _Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the elements of a page with their attributes."""
    parser = _Elements()
    parser.feed(page)
    return parser.found


def test_nothing_that_a_client_wrote_is_an_element_or_a_script(tmp_path: Path) -> None:
    """Four scripts, no image, no handler, whatever stands in the log."""
    page = render_page(hostile_report(tmp_path))
    found = elements(page)
    assert [tag for tag, _ in found].count("script") == 4
    assert not {"img", "svg", "iframe", "object", "embed", "link", "base", "form"} & {tag for tag, _ in found}
    assert not [name for _, attributes in found for name in attributes if name.startswith("on") or name == "style"]
    assert "&lt;img/src=x/onerror" in page
    assert "49" not in re.findall(r">(49)<", page)
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert not set("<>&\u2028\u2029") & set(data[1])
    assert {row["endpoint"] for row in json.loads(data[1])["needs"]} >= {f"GET /{ATTACKS[0]}", f"GET /{ATTACKS[4]}"}


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    """No attribute, style or policy names another address."""
    page = render_page(hostile_report(tmp_path))
    for tag, attributes in elements(page):
        assert not {"src", "href", "srcset", "action", "data", "poster"} & set(attributes), (tag, attributes)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    (policy,) = [attributes["content"] for tag, attributes in elements(page) if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_licence_of_the_chart_library_is_on_the_page(tmp_path: Path) -> None:
    """As it demands."""
    page = render_page(hostile_report(tmp_path))
    assert "Copyright (c) 2022 Leon Sorokin" in page
    assert "uPlot 1.6.32" in page


def test_a_log_without_a_request_under_a_rule_has_a_page(tmp_path: Path) -> None:
    """Its charts are left out, and it says what has no rule."""
    files = log_files(tmp_path, [combined_line(0, "GET /somewhere HTTP/1.1")])
    run = Replay({"GET /nowhere": RateLimitRule.parse("1/hour")}, measure_needs=True)
    run.run(files.requests())
    page = render_page(build_report(replay=run, clients=Clients(), files=files, top=10))
    assert "GET /somewhere" in page
    assert 'class="chart' not in page


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """It names the option and the file."""
    with pytest.raises(InvalidInputError, match="html='.*nowhere.*': cannot be written: No such file"):
        write_page(hostile_report(tmp_path), tmp_path / "nowhere" / "page.html")


@pytest.fixture(scope="module")
def suggested_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a suggestion for a generated log."""
    folder = tmp_path_factory.mktemp("page")
    log, page = folder / "access.log", folder / "page.html"
    log.write_text("".join(generated_lines(3_000, clients=150, seed=9)))
    assert main(["replay", str(log), "--suggest", "--html", str(page), "--json"]) == 0
    return page


# What the script looks at once the page has drawn itself; it is put into a copy of the page and names itself in the policy.
PROBE = """
setTimeout(() => {
  const table = document.querySelector("table.sortable");
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => ["requests denied", "denied"].includes(cell.textContent));
  table.tHead.rows[0].cells[column].querySelector("button").click();
  const sorted = [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.v));
  document.body.dataset.probe = JSON.stringify({
    title: document.title,
    charts: document.querySelectorAll(".chart").length,
    drawn: document.querySelectorAll(".chart canvas").length,
    sorted,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  });
}, 300);
"""


def probed(page: Path, size: str, scheme: str) -> dict[str, object]:
    """Open a page in Chromium and return what the probe saw."""
    assert CHROMIUM is not None
    text = page.read_text()
    copy = page.with_name("probed.html")
    text = text.replace("script-src ", "script-src &#39;nonce-probe&#39; ", 1)
    copy.write_text(text.replace("</body>", f'<script nonce="probe">{PROBE}</script></body>'))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    run = subprocess.run(
        [
            CHROMIUM, *FLAGS, *dark, f"--user-data-dir={page.parent / 'profile'}", f"--window-size={size}",
            "--virtual-time-budget=3000", "--dump-dom", "--enable-logging=stderr", f"file://{copy}",
        ],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "CONSOLE" not in run.stderr, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'data-probe="([^"]*)"', run.stdout)
    assert found is not None, run.stderr[-2000:]
    seen: dict[str, object] = json.loads(found[1].replace("&quot;", '"'))
    return seen


@needs_chromium
@pytest.mark.parametrize(("size", "scheme"), [("500,900", "light"), ("1280,900", "dark")])
def test_a_browser_draws_every_chart_and_sorts_the_tables(suggested_page: Path, size: str, scheme: str) -> None:
    """Within its own policy, without a message on the console or a request, and no wider than the window."""
    seen = probed(suggested_page, size, scheme)
    assert seen["charts"] == seen["drawn"]
    assert int(str(seen["charts"])) > 5
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)  # type: ignore[call-overload]
    assert seen["wide"] == 0
    assert seen["fetched"] == []


@needs_chromium
def test_an_attack_in_the_log_does_not_run_in_a_browser(tmp_path: Path) -> None:
    """The title is what the page says."""
    page = tmp_path / "page.html"
    write_page(hostile_report(tmp_path), page)
    assert probed(page, "1280,900", "light")["title"] == "sluicegate: what the limits would have done"
