"""A FastAPI application: rules for all of it in one line, and one endpoint with a rule of its own.

Run: `python examples/apps/fastapi_app.py 8000`, then `curl -i -X POST http://127.0.0.1:8000/sessions` six times.
"""

import sys

import uvicorn
from fastapi import Depends, FastAPI, Request

from sluicegate import RateLimitMiddleware, RateLimitRule, install_rate_limits, rate_limit

app = FastAPI()
install_rate_limits(app)  # denials as problem details, and a 429 in OpenAPI


@app.post("/sessions")
async def sign_in() -> dict[str, str]:
    """Sign in: five tries at once, then one in twelve seconds."""
    return {"session": "s3cr3t"}


@app.get("/accounts/{account_id}")
async def account(account_id: int) -> dict[str, int]:
    """Read an account; all accounts share the caller's bucket."""
    return {"account": account_id}


def size(request: Request) -> int:
    """Return what a report costs."""
    return int(request.query_params.get("pages", "1"))


@app.get("/reports", dependencies=[Depends(rate_limit("100/hour", cost=size))])
async def report(pages: int = 1) -> dict[str, int]:
    """Make a report: it costs a token for each page."""
    return {"pages": pages}


app.add_middleware(
    RateLimitMiddleware,
    rules={
        "POST /sessions": RateLimitRule.parse("5/minute"),
        "GET /accounts/{account_id}": RateLimitRule.parse("3/minute"),
        "*": RateLimitRule.parse("300/minute"),
    },
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
