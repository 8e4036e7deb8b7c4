"""How many workers there are, told by the command line and the environment."""

import pytest

from sluicegate import RateLimitRule
from sluicegate.container import build_rate_limit, build_sync_rate_limit
from sluicegate.infrastructure.settings import Settings
from sluicegate.infrastructure.worker_count import worker_count
from sluicegate.testing import RecordingLogger


@pytest.mark.parametrize(
    ("command", "environ", "count"),
    [
        ("/venv/bin/gunicorn app:app", {}, 1),
        ("/venv/bin/gunicorn -w 4 app:app", {}, 4),
        ("/venv/bin/gunicorn -w4 app:app", {}, 4),
        ("gunicorn --workers=4 --threads 8 app:app", {}, 4),
        ("gunicorn --worker-class gthread app:app", {}, 1),
        ("gunicorn app:app", {"WEB_CONCURRENCY": "3"}, 3),
        ("gunicorn -w 2 app:app", {"WEB_CONCURRENCY": "3", "GUNICORN_CMD_ARGS": "--workers 5"}, 2),
        ("gunicorn app:app", {"WEB_CONCURRENCY": "3", "GUNICORN_CMD_ARGS": "--workers 5"}, 5),
        ("gunicorn app:app", {"GUNICORN_CMD_ARGS": "'unclosed"}, 1),
        ("/lib/python3/site-packages/uvicorn/__main__.py --workers 4 app:app", {}, 4),
        ("uvicorn app:app", {"WEB_CONCURRENCY": "2"}, 2),
        ("uvicorn -w 4 app:app", {}, 1),
        ("granian --interface asgi --workers 4 app:app", {}, 4),
        ("hypercorn -w 4 app:app", {}, 4),
        ("fastapi run --workers 4 app.py", {}, 4),
        ("celery -A app worker --concurrency=4", {}, 4),
        ("celery -A app worker -c 4", {}, 4),
        ("gunicorn -w", {}, 1),
        ("gunicorn -w many app:app", {}, 1),
        ("gunicorn -w 0 app:app", {}, 1),
        ("manage.py runserver --workers 4", {"WEB_CONCURRENCY": "3"}, 1),
    ],
)
def test_the_workers_are_counted(command: str, environ: dict[str, str], count: int) -> None:
    """In each of the forms that servers understand; a process of another program is one."""
    assert worker_count(environ, command.split(" ")) == count


def test_no_command_line_is_one_worker() -> None:
    """As in an embedded interpreter."""
    assert worker_count({}, []) == 1


@pytest.mark.parametrize("build", [build_rate_limit, build_sync_rate_limit])
@pytest.mark.parametrize(("url", "warns"), [("memory://", True), ("redis://localhost", False)])
def test_several_workers_with_buckets_of_their_own_are_told(
    monkeypatch: pytest.MonkeyPatch, build: object, url: str, warns: bool
) -> None:
    """Each of four workers would admit the whole limit, which nobody expects; with a shared storage nothing is said."""
    monkeypatch.setattr("sys.argv", ["/venv/bin/gunicorn", "-w", "4", "app:app"])
    logger = RecordingLogger()
    rules = {"GET /": RateLimitRule.per_minute(5)}
    assert callable(build)
    build(Settings(storage_url=url), rules=rules, logger=logger)
    lines = [message for level, message, _ in logger.records if level == "warning"]
    assert len(lines) == warns
    assert all(line.startswith("4 workers count for themselves") and "shm://NAME" in line for line in lines)
