"""A mistake in the settings stops a real server with one line, and does not make every request a 500."""

import os
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from sluicegate import InvalidInputError, RateLimitMiddleware
from support.asgi_calls import get

ADDED = (
    "from sluicegate import RateLimitMiddleware\napp = FastAPI()\napp.add_middleware(RateLimitMiddleware{options})\n"
)
DEPENDENCY = """from sluicegate.fastapi import install_rate_limits, rate_limit
app = FastAPI()
install_rate_limits(app)
@app.get("/", dependencies=[Depends(rate_limit("login"))])
async def home() -> str: return "home"
"""


def _serve(tmp_path: Path, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "my_site.py").write_text(f"from fastapi import Depends, FastAPI\n{code}")
    return subprocess.run(
        [sys.executable, "-m", "uvicorn", "my_site:app", "--port", "0"],
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
