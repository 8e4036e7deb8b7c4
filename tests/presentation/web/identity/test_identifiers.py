"""Different clients never have the same identifier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.arguments import require_identifier
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.identity.identifiers import (
    EVERYBODY,
    anonymous_at,
    identifier_text,
    identify,
    joined,
    provider_of,
    require_names,
    verified_user,
)


@pytest.mark.parametrize(
    ("scopes", "named", "identifier"),
    [
        (("ip",), {}, "192.0.2.1"),
        (("ip",), {"ip": "named"}, "named"),
        (("user",), {"user": 7}, "7"),
        (("user",), {"user": None}, "anonymous@192.0.2.1"),
        (("tenant",), {"tenant": ""}, "anonymous@192.0.2.1"),
        (("user_provider",), {"user": "a:b"}, "a%3Ab:x"),
        (("global",), {}, EVERYBODY),
        ((), {}, EVERYBODY),
        (("ip", "user", "global"), {"user": "a"}, {"ip": "192.0.2.1", "user": "a", "global": EVERYBODY}),
    ],
)
def test_one_identifier_for_each_scope(scopes: tuple[str, ...], named: dict[str, object], identifier: object) -> None:
    """A name counts where the application gave one, else the address."""
    assert identify(scopes, "192.0.2.1", named, "x") == identifier


def test_no_name_and_no_address() -> None:
    """A client without name and address has no identifier, unless everybody is counted together."""
    assert identify(("ip",), None, {}) is None
    assert identify(("user", "global"), None, {}) is None
    assert identify(("user",), None, {"user": "a"}) == "a"
    assert identify(("global",), None, {}) == EVERYBODY


@pytest.mark.parametrize(
    ("endpoint", "path", "provider"),
    [
        ("GET /sync/{provider}/run", "/sync/x/run", "x"),
        ("GET /sync/{provider:int}", "/sync/7", "7"),
        ("GET /sync/<provider>", "/sync/x", ""),
        ("GET /sync/{provider:path}", "/sync/x/y", ""),
        ("GET /sync/{other}", "/sync/x", ""),
        ("send_email", "/sync/x", ""),
    ],
)
def test_the_provider_in_a_path(endpoint: str, path: str, provider: str) -> None:
    """It is the segment where the template has the parameter `{provider}`."""
    assert provider_of(endpoint, path) == provider


def test_a_scope_without_a_function() -> None:
    """A scope that is neither known nor named by a function is refused, and the message names it."""
    require_names(["ip", "user", "user_provider", "global", "tenant"], ["tenant"])
    with pytest.raises(InvalidInputError, match="'tenant'"):
        require_names(["ip", "tenant"], [])


def test_identifiers_never_collide() -> None:
    """Parts, users and those who are not signed in stay apart, whatever they are called."""
    assert joined("a:b", "c") != joined("a", "b:c")
    assert joined("a%3Ab") != joined("a:b")
    users = ["anonymous@192.0.2.1", "~anonymous@192.0.2.1", "~~anonymous@192.0.2.1", "~", "x", "anonymous"]
    assert len({verified_user(user) for user in users} | {anonymous_at("192.0.2.1")}) == len(users) + 1


@given(
    st.sampled_from(["user", "tenant", "user_provider"]),
    st.sampled_from(["~", "anonymous@", "x", "\u20ac"]),
    st.integers(1000, 1030),
)
def test_no_name_is_too_long_to_be_counted(scope: str, start: str, size: int) -> None:
    """Whatever clients call themselves, their identifier is one that the limiter takes."""
    name = start + "x" * (size - len(start.encode()))
    found = identify((scope,), "192.0.2.1", {scope: name, "user": name}, "google" * 100)
    assert isinstance(found, str)
    assert require_identifier(found) == found


def test_texts_of_any_length() -> None:
    """Numbers become texts, nothing stays nothing, and what is too long for a key becomes a digest."""
    assert identifier_text(7) == "7"
    assert identifier_text("") is None
    assert identifier_text(None) is None
    assert identifier_text("x" * 1024) == "x" * 1024
    long, longer = identifier_text("x" * 1025), identifier_text("x" * 1026)
    assert long is not None
    assert long.startswith("blake2b-")
    assert long != longer
    assert identifier_text("\udcff" * 2000) is not None
