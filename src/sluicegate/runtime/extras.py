"""Which extra of the package brings which library, so that a missing one names itself."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

EXTRA_OF: Final = {
    "asgiref": "django",
    "django": "django",
    "fastapi": "fastapi",
    "flask": "flask",
    "hiredis": "redis",
    "httpx": "httpx",
    "httpx2": "httpx2",
    "opentelemetry": "otel",
    "prometheus_client": "metrics",
    "redis": "redis",
    "rest_framework": "drf",
    "starlette": "fastapi",
}
"""The extra that brings a library, by the name that the library is imported by."""


@contextmanager
def needs_extra(what: str) -> Generator[None, None, None]:
    """Say, where an import of the body fails for want of a library, which extra brings it.

    Args:
        what: What is asked for, such as `sluicegate.flask`.

    Raises:
        ModuleNotFoundError: If a library is missing. One that no extra brings is not ours to explain.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        extra = EXTRA_OF.get(library)
        if extra is None or is_installed(library):
            raise
        message = f"{what} needs {library}: pip install 'sluicegate[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from error


def is_installed(*libraries: str) -> bool:
    """Return whether libraries can be imported; none of them is."""
    return all(find_spec(library) is not None for library in libraries)
