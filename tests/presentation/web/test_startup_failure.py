"""A mistake in the settings stops a real server with one line, and does not make every request a 500."""

import os
import subprocess
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

import sluicegate.fastapi
import sluicegate.httpx
from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitMiddleware,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    paced,
    rate_limited,
)
from support import django_project
from support.asgi_calls import get

assert django_project.settings.configured, "before what follows is imported"

from sluicegate.rest_framework import throttle  # noqa: E402

ADDED = (
    "from sluicegate import RateLimitMiddleware\napp = FastAPI()\napp.add_middleware(RateLimitMiddleware{options})\n"
)
DEPENDENCY = """from sluicegate.fastapi import install_rate_limits, rate_limit
app = FastAPI()
install_rate_limits(app)
@app.get("/", dependencies=[Depends(rate_limit("login"))])
async def home() -> str: return "home"
"""


def _serve(
    tmp_path: Path, code: str, *, server: Sequence[str] = ("uvicorn", "my_site:app", "--port", "0"), **environ: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "my_site.py").write_text(f"from fastapi import Depends, FastAPI\n{code}")
    return subprocess.run(
        [sys.executable, "-m", *server],
        cwd=tmp_path,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("code", "environ", "line"),
    [
        (ADDED.format(options=""), {"SLUICEGATE_DEADLINE_MS": "soon"}, "SLUICEGATE_DEADLINE_MS='soon': expected whole"),
        (ADDED.format(options=""), {"SLUICEGATE_RULES": "absent.toml"}, "absent.toml: cannot be read"),
        (ADDED.format(options=""), {"SLUICEGATE_TRUSTED_PROXIES": "10.0.0.300"}, "SLUICEGATE_TRUSTED_PROXIES"),
        (ADDED.format(options=", rules={'GET /': '5 a fortnight'}"), {}, "5 a fortnight"),
        (ADDED.format(options=", ruels={}"), {}, "ruels"),
        (DEPENDENCY, {"SLUICEGATE_RULES": "absent.toml"}, "absent.toml: cannot be read"),
        (DEPENDENCY, {}, "login"),
    ],
)
def test_a_mistake_stops_the_server_with_one_line(
    code: str, environ: dict[str, str], line: str, tmp_path: Path
) -> None:
    """The line names what is wrong; no traceback hides it."""
    run = _serve(tmp_path, code, **environ)
    assert run.returncode == 3, run.stderr
    assert [text for text in run.stderr.splitlines() if line in text and "sluicegate: " in text] != [], run.stderr
    assert "Traceback" not in run.stderr


BARE = """app = FastAPI()
from sluicegate.fastapi import rate_limit
@app.get("/", dependencies=[Depends(rate_limit("5/minute"))])
async def home() -> str: return "home"
"""
DECORATED = """app = FastAPI()
from sluicegate import rate_limited
@app.get("/")
@rate_limited("5/minute")
async def home() -> str: return "home"
"""
FLASK = """from flask import Flask
from sluicegate import rate_limited
app = Flask(__name__)
@app.get("/")
@rate_limited("5/minute")
def home() -> str: return "home"
"""
DJANGO = """import sys
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
settings.configure(ROOT_URLCONF="my_urls", SECRET_KEY="x", INSTALLED_APPS=["sluicegate.rest_framework.RateLimitConfig"],
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []})
app = get_wsgi_application()
assert "my_urls" not in sys.modules
"""
URLS = """from django.urls import path
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.response import Response
from sluicegate.rest_framework import throttle
@api_view(["GET"])
@throttle_classes([throttle("5/minute")])
def home(_): return Response()
urlpatterns = [path("", home)]
"""
UVICORN = ["uvicorn", "my_site:app", "--port", "0"]
GUNICORN = ["gunicorn", "my_site:app", "--bind", "127.0.0.1:0"]


@pytest.mark.parametrize(
    ("code", "server", "environ", "line"),
    [
        (BARE, UVICORN, {"SLUICEGATE_DEADLINE_MS": "soon"}, "SLUICEGATE_DEADLINE_MS='soon': expected whole"),
        (DECORATED, UVICORN, {"SLUICEGATE_RULES": "absent.toml"}, "absent.toml: cannot be read"),
        (FLASK, GUNICORN, {"SLUICEGATE_STORAGE_URL": "redis://x:y:z"}, "SLUICEGATE_STORAGE_URL: url: cannot be read"),
        (DJANGO, GUNICORN, {"SLUICEGATE_RULES": "absent.toml"}, "absent.toml: cannot be read"),
    ],
    ids=["dependency", "decorator", "decorator in Flask", "throttle"],
)
def test_what_is_made_with_the_code_stops_the_server(
    code: str, server: list[str], environ: dict[str, str], line: str, tmp_path: Path
) -> None:
    """It is raised while the application is imported: the last line of the error says what is wrong."""
    (tmp_path / "my_urls.py").write_text(URLS)
    run = _serve(tmp_path, code, server=server, **environ)
    assert run.returncode != 0
    assert [text for text in run.stderr.splitlines() if line in text and "Error: " in text] != [], run.stderr


WRONG = [
    ({"SLUICEGATE_DEADLINE_MS": "soon"}, "SLUICEGATE_DEADLINE_MS"),
    ({"SLUICEGATE_RULES": "absent.toml"}, "absent.toml: cannot be read"),
    ({"SLUICEGATE_STORAGE_URL": "shm://a/b?size=x"}, "SLUICEGATE_STORAGE_URL|size="),
    ({"SLUICEGATE_KEY_PREFIX": "a b"}, "key_prefix='a b'"),
    ({"SLUICEGATE_IDENTIFIER_SECRET_FILE": "absent"}, "SLUICEGATE_IDENTIFIER_SECRET_FILE"),
    ({"SLUICEGATE_RULES": "rules.toml"}, "'login': no policy"),
]


PLACES = ["rate_limit", "rate_limited", "rate_limited plain", "throttle", "paced", "httpx"]


@pytest.mark.parametrize(
    ("place", "environ", "line"),
    [
        *[("rate_limited", *wrong) for wrong in WRONG],
        *[(place, *WRONG[1]) for place in PLACES],
        ("throttle", *WRONG[-1]),
    ],
)
def test_each_place_checks_the_settings(
    place: str, environ: dict[str, str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is given a limiter, which has its own; and nothing is built."""
    (tmp_path / "rules.toml").write_text('[policies]\nother = "1/minute"\n')
    monkeypatch.chdir(tmp_path)
    rule = "login" if "rules.toml" in environ.values() else "1/minute"
    awaited, blocking = (
        kind(storage=MemoryStorage(), rules={}) for kind in (TokenBucketAdapter, SyncTokenBucketAdapter)
    )

    async def coroutine() -> None: ...

    make: dict[str, Any] = {
        "rate_limit": lambda rule, given: sluicegate.fastapi.rate_limit(rule, trusted_proxies=(), **given(awaited)),
        "rate_limited": lambda rule, given: rate_limited(rule, **given(awaited))(coroutine),
        "rate_limited plain": lambda rule, given: rate_limited(rule, **given(blocking))(lambda: None),
        "throttle": lambda rule, given: throttle(rule, trusted_proxies=(), **given(blocking)),
        "paced": lambda rule, given: paced(rule, **given(awaited))(coroutine),
        "httpx": lambda rule, given: sluicegate.httpx.RateLimitTransport(rule, transport=sender, **given(awaited)),
    }
    sender = httpx.MockTransport(lambda _: httpx.Response(200))
    made = make[place]
    monkeypatch.setattr("sluicegate.presentation.web.asgi.fastapi._installed", set())
    made("1/minute", lambda _: {})
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInputError, match=line):
        made(rule, lambda _: {})
    made("1/minute", lambda limiter: {"limiter": limiter})


def test_who_constructs_it_at_once_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deferral is for Starlette's late construction only."""
    monkeypatch.setenv("SLUICEGATE_DEADLINE_MS", "soon")
    with pytest.raises(InvalidInputError, match="SLUICEGATE_DEADLINE_MS"):
        RateLimitMiddleware(Starlette())


async def test_a_server_that_does_not_ask_to_start_is_told_with_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is let pass uncounted by mistake."""
    monkeypatch.setenv("SLUICEGATE_DEADLINE_MS", "soon")
    app = Starlette(middleware=[Middleware(RateLimitMiddleware)])
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="SLUICEGATE_DEADLINE_MS"):
            await get(app, "/")


def test_the_signature_of_the_middleware_can_be_read() -> None:
    """Editors and documentation show the options."""
    assert "trusted_proxies" in signature(RateLimitMiddleware).parameters
