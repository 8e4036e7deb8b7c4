"""Logins of which only the failed ones count: five a minute from an address, ten an hour for an account.

Run: `python examples/apps/login_failures.py 8000`, then six times
`curl -i -d "user=ann&password=wrong" http://127.0.0.1:8000/login`.
"""

import hmac
import sys
from http import HTTPStatus

from flask import Flask, Request, request

from sluicegate import Answer, FlaskRateLimit, RateLimitRule

PASSWORDS = {"ann": "correct horse", "bob": "battery staple"}
"""A real application keeps no passwords, but their hashes."""


def account(request: Request) -> str | None:
    """Return the account that somebody wants to enter, whether it exists or not."""
    return request.form.get("user", "").strip().lower()[:200] or None


def failed(answer: Answer) -> bool:
    """Return whether a login failed."""
    return answer.status == HTTPStatus.UNAUTHORIZED


app = Flask(__name__)
FlaskRateLimit(
    app,
    rules={
        "POST /login": [
            RateLimitRule.parse("5/minute"),
            # While the storage fails each process counts for itself: guesses never go uncounted, and users can still log in.
            RateLimitRule(10, 10 / 60, "account", on_storage_error="local"),
        ]
    },
    identifiers={"account": account},
    count_when=failed,
)


@app.post("/login")
def login() -> tuple[str, int]:
    """Let those in who know the password."""
    expected = PASSWORDS.get(request.form.get("user", ""), "")
    given = request.form.get("password", "")
    if expected and hmac.compare_digest(expected.encode(), given.encode()):
        return "welcome", 200
    return "wrong user or password", 401


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]))
