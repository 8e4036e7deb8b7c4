"""The code on the page about Litestar and Quart runs, and limits."""

import asyncio
import re
from typing import Any

from support.asgi_calls import get
from support.pages import ROOT

_PAGE = ROOT / "docs" / "how-to" / "protect-litestar-quart-and-others.md"


def test_the_page() -> None:
    """Both applications deny the third request, whatever the item and the spelling."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL):
        exec(compile(code, str(_PAGE), "exec"), namespace)  # noqa: S102 - our own page

    async def statuses(app: Any) -> list[int]:
        headers = [("host", "a.example")]
        return [(await get(app, path, headers=headers)).status for path in ("/items/1", "//items/2", "/items/3/")]

    assert asyncio.run(statuses(namespace["app"])) == [200, 200, 429]
    # Quart redirects the path that it counted, and serves it then.
    assert asyncio.run(statuses(namespace["quart"]))[-1] == 429
