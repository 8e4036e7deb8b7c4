"""The code on the page about Litestar and Quart runs, limits, and passes the type checkers."""

import asyncio
from pathlib import Path
from typing import Any

from support.asgi_calls import get
from support.pages import FRAMEWORKS_PAGE, ROOT, python_blocks
from support.typed_code import type_complaints

_CODE = [block.code for block in python_blocks(FRAMEWORKS_PAGE.read_text())]


def test_the_page() -> None:
    """Both applications deny the third request, whatever the item and the spelling."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for code in _CODE:
        exec(compile(code, str(FRAMEWORKS_PAGE), "exec"), namespace)  # noqa: S102 - our own page

    async def statuses(app: Any) -> list[int]:
        headers = [("host", "a.example")]
        return [(await get(app, path, headers=headers)).status for path in ("/items/1", "//items/2", "/items/3/")]

    assert asyncio.run(statuses(namespace["app"])) == [200, 200, 429]
    # Quart redirects the path that it counted, and serves it then.
    assert asyncio.run(statuses(namespace["quart"]))[-1] == 429


def test_the_page_is_typed(tmp_path: Path) -> None:
    """As `tests/docs/test_typed_code.py` holds of the other pages. The tools are those of the environment for development."""
    for number, code in enumerate(_CODE):
        (tmp_path / f"block_{number}.py").write_text(code)
    assert type_complaints(tmp_path, str(ROOT / ".venv" / "bin" / "python")) == ""
