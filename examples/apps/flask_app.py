"""A Flask application. Rules name routes as Flask does.

Run: `python examples/apps/flask_app.py 8000`, then `curl -i http://127.0.0.1:8000/items/1` four times.
"""

import sys

from flask import Flask

from sluicegate import FlaskRateLimit, RateLimitRule

app = Flask(__name__)
FlaskRateLimit(
    app,
    rules={"GET /items/<int:item_id>": RateLimitRule.parse("3/minute"), "*": RateLimitRule.parse("300/minute")},
    exempt=["/health"],
)


@app.get("/items/<int:item_id>")
def item(item_id: int) -> dict[str, int]:
    """Read an item."""
    return {"item": item_id}


@app.get("/health")
def health() -> str:
    """Answer as often as somebody asks."""
    return "up"


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]))
