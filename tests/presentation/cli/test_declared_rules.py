"""`--app`: commands know the rules that an application declares in code. Each process of a test runs several commands."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.redis_servers import RedisServer

FASTAPI = """
from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware
from sluicegate import RateLimitMiddleware, rate_limited
from sluicegate.fastapi import rate_limit

app = FastAPI()
app.add_middleware(RateLimitMiddleware, rules={"GET /items/{item}": "3/minute"})
app.add_middleware(GZipMiddleware)
app.add_middleware(RateLimitMiddleware, rules={"GET /items/{item}": "7/hour", "GET /both": "9/hour"})
router = APIRouter(prefix="/in", dependencies=[Depends(rate_limit("3/minute"))])
router.post("/login", dependencies=[Depends(rate_limit("auth_login"))])(lambda: None)
app.include_router(router)
app.get("/plan", dependencies=[Depends(rate_limit(lambda request: "5/minute"))])(lambda: None)
app.get("/both", dependencies=[Depends(rate_limit("2/minute"))])(lambda: None)
app.get("/items/{item}")(lambda item: item)
inner = FastAPI()
inner.get("/page", dependencies=[Depends(rate_limit("4/minute"))])(lambda: None)
app.mount("/sub", inner)

@rate_limited("6/minute", name="send")
def send(): ...

@rate_limited("8/minute")
async def fetch(): ...
"""

RUN = """
import sys
from sluicegate.presentation.cli.main import main
for line in sys.stdin.read().splitlines():
    arguments = line.split("|")
    print(f"> {arguments[0]}", flush=True)
    print(f"= {main(arguments)}", flush=True)
"""


def run(folder: Path, *commands: str, **environ: str) -> list[tuple[int, str]]:
    """Run commands in one process; return the status of each, and what it printed and complained."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input="\n".join(commands),
        cwd=folder,
        env=kept | {"PYTHONUNBUFFERED": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=120,
    )
    answers: list[tuple[int, str]] = []
    for part in ran.stdout.split("\n> " if ran.stdout.startswith("\n") else "> ")[1:]:
        text, _, status = part.partition("\n")[2].rpartition("= ")
        answers.append((int(status), text))
    return answers


def test_an_application_of_fastapi(tmp_path: Path, redis_server: RedisServer) -> None:
    """Dependencies, also of routers and mounts, decorators and middlewares; the three commands agree, and work on Redis."""
    (tmp_path / "site_a.py").write_text(FASTAPI)
    (tmp_path / "rules.toml").write_text('[policies]\nauth_login = "1/minute"\n[endpoints]\n"GET /file" = "5/day"\n')
    settings = {"SLUICEGATE_STORAGE_URL": redis_server.url, "SLUICEGATE_DEADLINE_MS": "10000"}
    spend = "import site_a; from fastapi.testclient import TestClient as C; c = C(site_a.app)\n"
    spend += "assert [c.get('/both').status_code for _ in range(3)] == [200, 200, 429]\n"
    spend += "assert c.get('/items/7').status_code == 200\n"
    spend += "assert [c.get('/sub/page').status_code for _ in range(5)] == [200] * 4 + [429]; site_a.send()"
    environ = {**os.environ, **settings, "SLUICEGATE_RULES": "rules.toml"}
    subprocess.run([sys.executable, "-c", spend], cwd=tmp_path, check=True, timeout=120, env=environ)
    app = "--app|site_a:app|--rules|rules.toml"
    both, page = "GET /both|testclient", "GET /sub/page|testclient"
    (
        shown,
        as_json,
        remaining,
        of_mount,
        of_function,
        of_middleware,
        reset,
        again,
        of_mount_again,
        unknown,
        unreset,
    ) = run(
        tmp_path,
        "rules|show|--app|site_a:app|rules.toml",
        "rules|show|--app|site_a:app|rules.toml|--json",
        f"remaining|{both}|{app}",
        f"remaining|{page}|{app}",
        f"remaining|send|*|{app}",
        f"remaining|GET /items/7|testclient|{app}|--json",
        f"reset|{both}|{app}",
        f"remaining|{both}|{app}",
        f"remaining|{page}|{app}",
        f"remaining|GET /nowhere|x|{app}",
        f"reset|GET /nowhere|x|{app}",
        **settings,
    )
    assert shown[0] == 0
    names = [line for line in shown[1].splitlines() if not line.startswith(" ")]
    assert sorted(names) == sorted([
        "GET /file", "GET /items/{item}", "GET /both", "POST /in/login", "GET /sub/page", "send", "site_a.fetch",
        "GET /plan: rules that depend on the request",
    ])  # fmt: skip
    assert as_json[0] == 0
    told: Any = json.loads(as_json[1])
    assert [rule["max_tokens"] for rule in dict(told["endpoints"])["GET /both"]] == [9, 2]
    assert told["by_request"] == ["GET /plan"]
    assert remaining == (0, remaining[1])
    assert remaining[1].startswith("0 of 2 left")
    assert of_mount[1].startswith("0 of 4 left")
    assert of_function[1].startswith("5 of 6 left")
    assert (json.loads(of_middleware[1])["limit"], json.loads(of_middleware[1])["remaining"]) == (3, 2)
    assert reset == (0, "reset: the buckets are full\n")
    assert again[1] == "2 of 2 left\n"
    assert of_mount_again[1].startswith("0 of 4 left")
    assert unknown == (1, "sluicegate: no rule names the endpoint 'GET /nowhere'\n")
    assert unreset == (1, "sluicegate: not reset: no rule names the endpoint 'GET /nowhere'\n")


def endpoints_in(text: str) -> dict[str, Any]:
    """Return the endpoints that `rules show --json` printed, and their rules."""
    return dict(json.loads(text)["endpoints"])


FLASK = """
from flask import Blueprint, Flask
from sluicegate import FlaskRateLimit, WSGIRateLimitMiddleware

app = Flask(__name__)
limiter = FlaskRateLimit(app, rules={"GET /items/<int:item>": "7/hour"})
app.get("/view")(limiter.limit("3/minute")(lambda: ""))
pages = limiter.limit("4/minute")(Blueprint("pages", __name__))
pages.get("/page", endpoint="page")(lambda: "")
app.register_blueprint(pages)
app.wsgi_app = WSGIRateLimitMiddleware(app.wsgi_app, rules={"GET /outer": "5/hour"})
"""
DJANGO = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
settings.configure(ROOT_URLCONF="site_urls", SECRET_KEY="x", MIDDLEWARE=["sluicegate.django.RateLimitMiddleware"],
    SLUICEGATE={"rules": {"GET /plain/": "7/hour"}},
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []})
app = get_wsgi_application()
"""
URLS = """
from django.http import HttpResponse
from django.urls import include, path
from rest_framework import routers, viewsets
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.response import Response
from sluicegate.rest_framework import throttle

limit = throttle("3/minute")

@api_view(["GET", "POST"])
@throttle_classes([limit])
def one(_): return Response()

class Users(viewsets.ViewSet):
    throttle_classes = (limit,)
    def list(self, _): return Response([])
    def create(self, _): return Response({})

router = routers.SimpleRouter()
router.register("users", Users, basename="user")
urlpatterns = [path("plain/", lambda _: HttpResponse()), path("one/", one), path("api/", include(router.urls))]
"""


def test_applications_of_other_frameworks(tmp_path: Path) -> None:
    """Flask with views, blueprints and a middleware around it; Django with its settings and with throttles."""
    for name, code in (("site_b", FLASK), ("site_c", DJANGO), ("site_urls", URLS)):
        (tmp_path / f"{name}.py").write_text(code)
    shown, unshared = run(tmp_path, "rules|show|--app|site_b:app|--json", "reset|* /view|x|--app|site_b:app")
    assert set(endpoints_in(shown[1])) == {"GET /items/<int:item>", "* /view", "* /page", "GET /outer"}
    assert unshared[0] == 1
    assert "memory://" in unshared[1]
    shown, remaining = run(
        tmp_path, "rules|show|--app|site_c:app|--json", "remaining|GET /api/users/$|x|--app|site_c:app"
    )
    assert set(endpoints_in(shown[1])) == {"GET /plain/", "* /one/", "GET /api/users/$", "POST /api/users/$"}
    assert remaining == (0, "3 of 3 left\n")


def test_what_cannot_be_imported(tmp_path: Path) -> None:
    """Status 2, and a line that says why."""
    (status, complaint), (unset, _) = run(tmp_path, "remaining|GET /|x|--app|nowhere:app", "rules|show")
    assert status == unset == 2
    assert "importing nowhere failed" in complaint
