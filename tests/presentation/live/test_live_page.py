"""The live page in a real browser, driven by real traffic: it shows what the service counts, and does what it says."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sluicegate import InlineEventBus, MemoryStorage, TokenBucketAdapter
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.live import live_page
from support.browser import Browser, needs_chromium
from support.live_figures import TOKEN
from support.serving import Serving
from support.uvicorn_server import UvicornServer

pytestmark = needs_chromium

HOSTILE = "<img src=x onerror=document.title='owned'>"
RULES = f"""
[policies]
login = "5/minute"
search = "100/minute burst 20"

[endpoints]
"POST /login" = "login"
"GET /search" = "search"
"GET /tried" = {{ rate = "1/minute", shadow = true }}
"GET /{HOSTILE}" = "2/minute"
"*" = "1000/minute"
"""
AXE = "axe-core@4.14.1"


class Page:
    """The page of a running service in a browser.

    Args:
        serving: The service.
        browser: The browser.
    """

    def __init__(self, serving: Serving, browser: Browser) -> None:
        self.serving, self.browser = serving, browser
        self.url = f"http://{serving.addresses['admin']}/"

    def ask(self, endpoint: str, identifier: str = "192.0.2.1", times: int = 1) -> int:
        """Check over HTTP, and return how often it was allowed."""
        body = {"endpoint": endpoint, "identifier": identifier}
        with httpx.Client(base_url=f"http://{self.serving.addresses['http']}", timeout=20) as client:
            return sum([client.post("/v1/check", json=body).json()["allowed"] for _ in range(times)])

    def counted(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return what Prometheus is told was allowed and denied, by endpoint and rule."""
        text = httpx.get(f"http://{self.serving.addresses['metrics']}/metrics").text
        counts: dict[tuple[str, str], list[int]] = {}
        for found in re.finditer(
            r'^sluicegate_requests_total\{endpoint="(.*?)",policy="(.*?)",reason="\w+",result="(\w+)"\} (\S+)$',
            text,
            re.MULTILINE,
        ):
            endpoint, policy, result, count = found.groups()
            counts.setdefault((endpoint, policy), [0, 0])[result == "denied"] += int(float(count))
        return {key: (allowed, denied) for key, (allowed, denied) in counts.items()}

    def shown(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return what the table of rules shows as allowed and denied, where it shows any."""
        rows = self.browser.evaluate(
            "[...document.querySelectorAll('#rules-table tbody tr')].map((row) => [...JSON.parse(row.dataset.key),"
            " row.cells[6].textContent, row.cells[7].textContent])"
        )
        numbers = {
            (endpoint, policy): (int(allowed.replace(",", "")), int(denied.replace(",", "")))
            for endpoint, policy, allowed, denied in rows
        }
        return {key: value for key, value in numbers.items() if value != (0, 0)}

    def text(self, identifier: str) -> str:
        """Return what an element says."""
        return str(self.browser.evaluate(f"document.getElementById('{identifier}').textContent"))

    def sign_in(self, token: str = TOKEN) -> None:
        """Write the token with the keyboard, where the focus is already."""
        self.browser.wait_for("document.activeElement.id === 'token'")
        self.browser.type(token)
        self.browser.press("Enter")

    def open(self) -> None:
        """Open the page, and wait for the first figures."""
        self.browser.open(self.url)
        self.browser.wait_for("document.getElementById('status').textContent !== 'Connecting …'")
        if not self.browser.evaluate("document.getElementById('sign-in').hidden"):
            self.sign_in()
        self.browser.wait_for("document.querySelectorAll('#rules-table tbody tr').length > 0")

    def explain(self, endpoint: str, client: str) -> str:
        """Fill in the form with the keyboard, send it, and return the answer."""
        self.browser.evaluate(
            "document.getElementById('why-form').reset(); document.getElementById('why-endpoint').focus()"
        )
        self.browser.type(endpoint)
        self.browser.press("Tab")
        self.browser.type(client)
        self.browser.press("Enter")
        return self.answer("why-answer")

    def answer(self, identifier: str) -> str:
        """Return what an action was answered, once it was."""
        self.browser.wait_for(f"!['', '…'].includes(document.getElementById('{identifier}').textContent)")
        return self.text(identifier)

    def confirm(self, *, reason: str = "") -> None:
        """Say yes in the dialog, with the keyboard."""
        self.browser.wait_for("document.getElementById('confirm').open")
        if reason:
            self.browser.evaluate("document.getElementById('reason').focus()")
            self.browser.type(reason)
        self.browser.evaluate("document.getElementById('confirm-do').focus()")
        self.browser.press("Enter")
        self.browser.wait_for("!document.getElementById('confirm').open")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Run a service and a browser."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "rules.toml").write_text(RULES)
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    anywhere = "127.0.0.1:0"
    options = ("--rules", str(folder / "rules.toml"), "--grpc", "off", "--http", anywhere, "--leave-seconds", "0")
    watched = ("--admin", anywhere, "--admin-token-file", str(token), "--metrics", anywhere, "--hot-keys", "raw")
    with Serving(*options, *watched, log=folder / "log") as serving, Browser(folder / "profile") as browser:
        yield Page(serving, browser)


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """Return the script of axe-core, which npm brings once."""
    folder = request.config.cache.mkdir("axe-core") if request.config.cache is not None else None
    if folder is None:
        pytest.skip("there is no cache to keep axe-core in")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        command = [
            "npm",
            "install",
            "--prefix",
            str(folder),
            "--no-save",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            AXE,
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"axe-core cannot be had: {error!r:.200}")
    return script.read_text()


def test_the_page_shows_what_the_service_counts(page: Page) -> None:
    """Rule by rule what Prometheus is told; nothing on the console, and nothing from elsewhere."""
    page.ask("POST /login", times=9)
    page.ask("GET /search", "192.0.2.2", times=12)
    page.ask("GET /tried", times=3)
    page.ask("GET /elsewhere", times=2)
    page.open()
    page.ask("POST /login", "192.0.2.3", times=6)
    page.browser.wait_until(lambda: page.shown() == page.counted(), "equal numbers")
    assert page.counted()["POST /login", "login"] == (10, 5)
    assert (page.text("decisions"), page.text("share")) == ("32", "15.6 %")
    page.browser.wait_for("document.querySelectorAll('.chart canvas').length === 2")
    assert page.text("workers").startswith("One process, counting since ")
    assert page.text("storage-health") == "answers"
    assert page.browser.complaints == []
    assert {url[: len(page.url)] for url in page.browser.requested} == {page.url}


def test_the_table_of_rules_sorts_by_what_is_pressed(page: Page) -> None:
    """At once, and says so to those who cannot see it."""
    page.open()
    for column, key, heading in ((5, "share", "descending"), (5, "share", "ascending"), (0, "endpoint", "descending")):
        told = page.browser.evaluate(
            f"document.querySelector('[data-sort={key}]').click();"
            f"[document.querySelector('[data-sort={key}]').closest('th').getAttribute('aria-sort'),"
            f" [...document.querySelectorAll('#rules-table tbody tr')].map((row) => row.cells[{column}].textContent)]"
        )
        texts = told[1] if key == "endpoint" else [float(text.replace(" %", "").replace("-", "-1")) for text in told[1]]
        assert (told[0], texts) == (heading, sorted(texts, reverse=heading == "descending"))
        assert len(set(texts)) > 1


def test_what_clients_and_rules_are_called_is_text(page: Page) -> None:
    """Nothing of it becomes an element or runs, in tables, answers and dialogs."""
    page.ask(f"GET /{HOSTILE}", HOSTILE, times=4)
    page.open()
    page.browser.wait_until(lambda: page.shown() == page.counted(), "equal numbers")
    page.browser.wait_for(f"document.getElementById('denied-table').textContent.includes({json.dumps(HOSTILE)})")
    page.explain(f"GET /{HOSTILE}", HOSTILE)
    page.browser.evaluate("document.getElementById('reset').click()")
    page.browser.wait_for("document.getElementById('confirm').open")
    assert HOSTILE in page.text("confirm-text")
    page.browser.press("Escape")
    page.browser.wait_for("!document.getElementById('confirm').open")
    assert page.browser.evaluate("[document.title, document.images.length]") == ["sluicegate live", 0]
    assert page.browser.complaints == []


def test_a_denial_is_explained_and_the_buckets_filled(page: Page) -> None:
    """With the keyboard alone; what is not confirmed is not done."""
    page.open()
    page.ask("POST /login", "192.0.2.9", times=7)
    assert page.explain("POST /login", "192.0.2.9").startswith(
        "A check would be denied now by login; it would pass in "
    )
    assert page.browser.evaluate("document.querySelector('#why-table tbody').rows[0].cells[3].textContent") == "0"
    page.browser.evaluate("document.getElementById('reset').focus()")
    page.browser.press("Enter")
    page.browser.wait_for("document.getElementById('confirm').open")
    page.browser.press("Escape")
    page.browser.wait_for("!document.getElementById('confirm').open")
    assert page.browser.evaluate("document.activeElement.id") == "reset"
    assert page.ask("POST /login", "192.0.2.9") == 0
    page.browser.press("Enter")
    page.confirm()
    page.browser.wait_for("document.getElementById('why-answer').textContent === 'Done. A check would pass now.'")
    assert page.ask("POST /login", "192.0.2.9", times=9) == 5
    assert page.explain("POST /login", '{"ip": ') == "The client begins with { and is no JSON object."
    assert page.explain("POST /login", '{"user": "ann"}').startswith("Not explained: ")


def test_a_rule_is_switched_off_and_on(page: Page) -> None:
    """With a reason that all can read; the service says what it did."""
    page.open()
    button = "document.querySelector('#rules-table [aria-label$=\"login …\"]')"
    page.browser.evaluate(f"{button}.click()")
    page.confirm(reason="incident 7")
    assert page.answer("rules-answer") == "Done: login is switched off."
    assert page.ask("POST /login", "192.0.2.4", times=9) == 9
    page.browser.wait_for(
        "document.getElementById('switches').textContent.includes('login is switched off: incident 7')"
    )
    assert page.browser.evaluate(f"{button}.textContent") == "Switch on …"
    page.browser.evaluate("document.getElementById('rules-answer').textContent = ''")
    page.browser.evaluate(f"{button}.click()")
    page.confirm()
    assert page.answer("rules-answer") == "Done: login holds again."
    assert page.ask("POST /login", "192.0.2.5", times=9) == 5
    page.browser.evaluate("document.getElementById('rules-answer').textContent = ''")
    page.browser.evaluate("document.getElementById('everything-off').click()")
    page.browser.evaluate("document.getElementById('for-seconds').value = '1e99'")
    page.confirm()
    assert page.answer("rules-answer").startswith("Not done: for_seconds=1e+99: expected above 0")


def test_people_with_disabilities_can_use_it(page: Page, axe: str) -> None:
    """On a phone and at a desk, in light and dark, axe finds nothing, nor in the dialog; nothing is wider than the window."""
    page.open()
    page.explain("POST /login", "192.0.2.1")
    page.browser.evaluate(f"{axe}; 0")
    for width, height in ((390, 844), (1280, 900)):
        for scheme in ("light", "dark"):
            page.browser.look(width, height, scheme)
            assert violations(page.browser) == [], (width, scheme)
            assert page.browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            if width > height:
                page.browser.evaluate("document.getElementById('everything-off').click()")
                assert violations(page.browser) == [], (width, scheme)
                page.browser.press("Escape")
    page.browser.evaluate("document.getElementById('forget').click()")
    assert violations(page.browser) == []
    assert page.browser.complaints == []


def violations(browser: Browser) -> list[Any]:
    """Return what axe finds wrong, each with the elements."""
    found: list[Any] = browser.evaluate(
        "axe.run().then(({ violations }) => violations.map((one) => [one.id, one.nodes.map((node) => node.html)]))"
    )
    return found


def test_the_page_in_an_application_needs_no_token_and_offers_no_change(page: Page) -> None:
    """Below a path of its own."""
    bus = InlineEventBus()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a": RateLimitRule.per_minute(2)}, event_bus=bus)
    app = Starlette(routes=[Mount("/ops/limits", live_page(limiter, bus))])
    with UvicornServer(app) as server:
        page.browser.open(f"{server.url}/ops/limits")
        page.browser.wait_for("document.querySelectorAll('#rules-table tbody tr').length === 1")
        assert page.browser.evaluate("document.getElementById('sign-in').hidden")
        assert page.browser.evaluate("document.getElementById('everything-off').offsetParent === null")
        assert page.text("hot-note") == "Hot keys are not counted."
        page.browser.open("about:blank")
    assert page.browser.complaints == []


def test_a_wrong_token_and_a_service_that_is_gone_are_said(page: Page) -> None:
    """The last test here, for it ends the service. A page that is open says that its numbers are old."""
    page.open()
    page.browser.evaluate("document.getElementById('forget').click()")
    page.sign_in("wrong")
    page.browser.wait_for("document.getElementById('status').textContent === 'The token is wrong.'")
    page.sign_in()
    page.browser.wait_for("document.getElementById('status').textContent.startsWith('Live: ')")
    assert page.serving.stop() == 0
    page.browser.wait_for("document.getElementById('status').textContent.startsWith('Not live: no connection.')")
    assert page.text("decisions") != "-"
