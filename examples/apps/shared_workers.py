"""A site whose four workers share one limit, with no server for it.

Run: `SLUICEGATE_STORAGE_URL=shm://example gunicorn --workers 4 --threads 4 --chdir examples/apps shared_workers:app`, then
`for n in $(seq 8); do curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:8000/report; done`: five times 200, then 429,
whichever workers answer. `SLUICEGATE_STORAGE_URL=memory://` in its place shows what happens without: each worker admits five,
and the log says so at the start. `sluicegate storage info shm://example` looks into the file, `sluicegate storage clear
shm://example` empties it.

REPORTS_PER_DAY changes the limit.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from sluicegate import RateLimitRule, WSGIRateLimitMiddleware

LIMIT = int(os.environ.get("REPORTS_PER_DAY", "5"))


def site(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Tell which worker made the report."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"a report by worker {os.getpid()}\n".encode()]


app = WSGIRateLimitMiddleware(site, rules={"GET /report": RateLimitRule.per_day(LIMIT, scope="global")})
