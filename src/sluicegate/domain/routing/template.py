"""Parse an endpoint's path template into literals and parameters with Starlette's converters."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from sluicegate.domain.errors import InvalidInputError

CONVERTERS = ("str", "int", "float", "uuid", "path")
"""What may stand after a parameter's colon. All but `path` stay within one segment of a path."""

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_][A-Za-z0-9_]*))?\}")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*|\*")
_EXPRESSION = re.compile(r"[\^\\\[]|\(\?|\$$")  # what Django's `re_path` writes and no path of Starlette's
_METHODS = frozenset({
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET", "*",
})  # fmt: skip
MESSAGE: Final = "MESSAGE"
"""The method of an endpoint that stands for the messages of a websocket."""

A_MESSAGE: Final = "message"
"""The method of such a message. No request has it: those of HTTP are in capitals, also one that a client calls `MESSAGE`."""

_MUST_PRECEDE = "expected a path that begins with / after the method, such as 'GET /accounts/{account_id}'"


class Parameter(NamedTuple):
    """A parameter of a template.

    Args:
        converter: One of `CONVERTERS`.
    """

    converter: str


Token: TypeAlias = str | Parameter
"""A piece of a template: a literal text that is not empty, or a parameter."""


class RouteTemplate(NamedTuple):
    """An endpoint that stands for many paths.

    Args:
        endpoint: The endpoint as its rule names it.
        method: Its method in capitals; `*` for any.
        tokens: Its path, beginning with a literal that begins with a slash.
    """

    endpoint: str
    method: str
    tokens: tuple[Token, ...]


def parse_endpoint(endpoint: str) -> RouteTemplate | None:
    """Parse an endpoint such as `GET /accounts/{account_id:int}`.

    Args:
        endpoint: A method in capitals, `WEBSOCKET`, `MESSAGE` or `*` for any, a space, and a path as Starlette's and FastAPI's
            routes write it. A path alone means any method. A regular expression, as Django reports routes of `re_path` and of
            REST framework's routers, is a literal text: these are looked up by what Django calls them.

    Returns:
        The template; None for a name that is no route, such as `send_email`.

    Raises:
        InvalidInputError: If it is a route whose method or path cannot be read.
    """
    method, space, path = endpoint.partition(" ")
    if endpoint.startswith("/"):
        method, path = "*", endpoint
    elif not space or not (path.startswith("/") or method.upper() in _METHODS):
        return None
    if not _METHOD.fullmatch(method):
        raise InvalidInputError(f"endpoint={endpoint!r}: expected a method in capitals, such as {method.upper()}, or *")
    if not path.startswith("/"):
        raise InvalidInputError(f"endpoint={endpoint!r}: {_MUST_PRECEDE}")
    return RouteTemplate(endpoint, method, _tokens(endpoint, path))


def sample_method(template: RouteTemplate) -> str:
    """Return a request's method that a template fits."""
    return {"*": "GET", MESSAGE: A_MESSAGE}.get(template.method, template.method)


def cut(tokens: Sequence[Token]) -> list[tuple[Token, ...]]:
    """Cut tokens at their slashes into the segments of a path."""
    segments: list[list[Token]] = [[]]
    for token in tokens:
        if isinstance(token, str):
            for place, text in enumerate(token.split("/")):
                if place:
                    segments.append([])
                if text:
                    segments[-1].append(text)
        else:
            segments[-1].append(token)
    return [tuple(segment) for segment in segments]


def join(segments: Sequence[tuple[Token, ...]]) -> tuple[Token, ...]:
    """Join segments by slashes: the inverse of `cut`."""
    tokens = list(segments[0])
    for segment in segments[1:]:
        for token in ("/", *segment):
            if isinstance(token, str) and tokens and isinstance(tokens[-1], str):
                tokens[-1] += token
            else:
                tokens.append(token)
    return tuple(tokens)


def _tokens(endpoint: str, path: str) -> tuple[Token, ...]:
    if _EXPRESSION.search(path):
        return (path,)
    tokens: list[Token] = []
    names: set[str] = set()
    end = 0
    for found in _PARAMETER.finditer(path):
        name, converter = found[1], found[2] or "str"
        if converter not in CONVERTERS:
            raise InvalidInputError(
                f"endpoint={endpoint!r}: unknown converter {converter!r}, expected one of {', '.join(CONVERTERS)}"
            )
        if name in names:
            raise InvalidInputError(f"endpoint={endpoint!r}: the parameter {name!r} occurs twice")
        names.add(name)
        tokens += [_literal(endpoint, path[end : found.start()]), Parameter(converter)]
        end = found.end()
    tokens.append(_literal(endpoint, path[end:]))
    return tuple(token for token in tokens if token != "")


def _literal(endpoint: str, text: str) -> str:
    if "{" in text or "}" in text:
        raise InvalidInputError(
            f"endpoint={endpoint!r}: braces that hold no parameter in {text!r}, expected {{name}} or {{name:converter}}"
        )
    if "?" in text or "#" in text:
        raise InvalidInputError(f"endpoint={endpoint!r}: expected a path alone, without query and fragment")
    return text
