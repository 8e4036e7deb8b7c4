"""Identifiers: the texts by which rules count clients, made of addresses and of what the application knows."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

from sluicegate.domain.arguments import MAX_TEXT_BYTES, Identifier, plain_text
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.template import cut, parse_endpoint
from sluicegate.domain.rules.rule import RateLimitScope

EVERYBODY = "*"
"""The identifier where a rule counts all clients together; no key contains it."""

BY_ADDRESS = ("ip",)
"""The scopes of an endpoint whose requests are counted by address alone, as most are."""

_IP = str(RateLimitScope.IP)
_USER = str(RateLimitScope.USER)
_USER_PROVIDER = str(RateLimitScope.USER_PROVIDER)
_GLOBAL = str(RateLimitScope.GLOBAL)
KNOWN_SCOPES = frozenset((_IP, _USER, _USER_PROVIDER, _GLOBAL))
"""The scopes that need no function of the application."""

_PROVIDER = "provider"


@lru_cache(maxsize=1024)
def names_to_ask(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scopes for which functions of the application may name the client: all but `global`, each once."""
    names = [_USER if scope == _USER_PROVIDER else scope for scope in scopes if scope != _GLOBAL]
    return tuple(dict.fromkeys(names))


def identify(
    scopes: tuple[str, ...], address: str | None, named: Mapping[str, object], provider: str = ""
) -> Identifier | None:
    """Return the identifier that a check of these scopes needs.

    Args:
        scopes: The scopes of the endpoint's rules.
        address: The client's address, from `ClientAddresses`.
        named: What the application's functions returned, by scope. Where that is None or empty the address is counted: a client
            that does not sign in is limited all the same.
        provider: What `user_provider` counts beside the user.

    Returns:
        One text for one scope or none, else one for each scope; None if there is neither a name nor an address.
    """
    found: dict[str, str] = {}
    for scope in scopes:
        if scope == _GLOBAL:
            found[scope] = EVERYBODY
            continue
        name = identifier_text(named.get(_USER if scope == _USER_PROVIDER else scope))
        if scope == _IP:
            name = name or address
        elif name is not None:
            name = verified_user(name)
        elif address is not None:
            name = anonymous_at(address)
        if name is None:
            return None
        if scope == _USER_PROVIDER:
            name = joined(name, provider)
        found[scope] = identifier_text(name) or name  # again, for what was put before or behind it makes it longer
    if len(found) > 1:
        return found
    return next(iter(found.values()), EVERYBODY)


def is_name(value: object) -> bool:
    """Return whether a value names a client: a text, a whole number or a UUID, or None, which stands for no client.

    Anything else is refused: the text of an object may be its address in memory, another one in each process.
    """
    return value is None or (isinstance(value, str | int | UUID) and not isinstance(value, bool))


def identifier_text(value: object) -> str | None:
    """Return a value as a rule may count it.

    Args:
        value: What `is_name` accepts; None or an empty text if there is none.

    Returns:
        Its text, or a digest of it if it is longer than 1,024 bytes; None if there is none.
    """
    if value is None or value == "":
        return None
    # The members of enumerations print in ways of their own, and would name other buckets than what they stand for.
    text = plain_text(value) if isinstance(value, str) else str(int(value) if isinstance(value, int) else value)
    if len(text) * 4 > MAX_TEXT_BYTES:
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > MAX_TEXT_BYTES:
            return f"blake2b-{blake2b(data, digest_size=16).hexdigest()}"
    return text


def verified_user(text: str) -> str:
    """Return a user's name so that it never equals an `anonymous_at`, whatever users call themselves."""
    return f"~{text}" if text.startswith(("~", "anonymous@")) else text


def anonymous_at(address: str) -> str:
    """Return what a rule for users counts for a client who is not signed in: the address."""
    return f"anonymous@{address}"


def joined(*parts: str) -> str:
    """Return one identifier for several parts, different for each combination: `("a:b", "c")` is not `("a", "b:c")`."""
    return ":".join([part.replace("%", "%25").replace(":", "%3A") for part in parts])


def provider_of(endpoint: str, path: str) -> str:
    """Return the value of the parameter `{provider}` in a path.

    Args:
        endpoint: The endpoint whose template matches the path.
        path: The path.

    Returns:
        That segment; empty if the template has no such parameter.
    """
    place = _segment_of_provider(endpoint)
    if place is None:
        return ""
    segments = path.split("/")
    return segments[place] if place < len(segments) else ""


def require_names(scopes: Iterable[str], given: Iterable[str]) -> None:
    """Check that every scope of the rules is a known one or has a function of the application.

    Args:
        scopes: The scopes that the rules count.
        given: The scopes with a function.

    Raises:
        InvalidInputError: If one has none; the message names it.
    """
    named = set(given)
    missing = sorted(set(scopes) - KNOWN_SCOPES - named)
    if missing:
        raise InvalidInputError(f"{describe_nameless(missing[0], named)}; expected identifiers={{{missing[0]!r}: …}}")


def describe_nameless(scope: str, given: Iterable[str]) -> str:
    """Return what to say of a scope that nothing names, with the known scope that is nearest to it.

    Args:
        scope: The scope.
        given: The scopes with a function.
    """
    nearest = get_close_matches(scope, sorted(KNOWN_SCOPES | set(given)), n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return f"identifiers: has no function for the scope {scope!r}, which a rule or list counts{hint}"


@lru_cache(maxsize=1024)
def _segment_of_provider(endpoint: str) -> int | None:
    template = parse_endpoint(endpoint)
    path = endpoint.partition(" ")[2] or endpoint
    if template is None:
        return None
    for place, (written, tokens) in enumerate(zip(path.split("/"), cut(template.tokens), strict=True)):
        if any(not isinstance(token, str) and token.converter == "path" for token in tokens):
            return None
        if written.strip("{}").partition(":")[0] == _PROVIDER and len(tokens) == 1 and not isinstance(tokens[0], str):
            return place
    return None
