"""All that an application serves is listed, whatever serves it."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Route

from sluicegate.presentation.cli.app_routes import endpoints_of


async def anything(scope: Any, receive: Any, send: Any) -> None:
    """Stand for an application whose routes are unknown."""


def test_mounts_at_the_root() -> None:
    """An application without known routes is listed wherever it is mounted, at `/` and for a host too."""
    assert endpoints_of(Starlette(routes=[Mount("/", anything)])) == ["* /{path:path}"]
    assert endpoints_of(Starlette(routes=[Host("a.example", anything)])) == ["* /{path:path}"]
    inner = Starlette(routes=[Route("/x", anything, methods=["GET"]), Mount("/", anything)])
    assert endpoints_of(Starlette(routes=[Mount("/sub", inner)])) == ["GET /sub/x", "* /sub/{path:path}"]


def test_frontends_of_fastapi(tmp_path: Path) -> None:
    """Files that FastAPI serves where no other route matches come last, with the prefix of their router."""
    app, router = FastAPI(openapi_url=None), APIRouter()
    if not hasattr(app, "frontend"):
        pytest.skip("this FastAPI has no frontend")
    router.frontend("/ui", directory=str(tmp_path))
    app.include_router(router, prefix="/v1")
    app.frontend("/", directory=str(tmp_path))
    app.get("/a")(lambda: 1)
    assert endpoints_of(app) == ["GET /a", "GET /{path:path}", "GET /v1/ui/{path:path}"]
