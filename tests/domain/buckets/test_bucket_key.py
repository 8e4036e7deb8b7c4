"""Keys: readable, injective, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import InvalidInputError, InvalidTypeError
from sluicegate.domain.arguments import require_text
from sluicegate.domain.buckets.bucket_key import KeyFormat


def key(scope: str, identifier: str, endpoint: str, key_format: KeyFormat | None = None, variant: str = "") -> str:
    """Build a key as the limiter does."""
    key_format = key_format or KeyFormat()
    before, after = key_format.frame(scope, endpoint, variant)
    return before if after is None else before + key_format.encode(identifier) + after


def test_ordinary_keys_are_readable() -> None:
    """The form is `rate_limit:{scope}:{identifier}:{endpoint}`; a global key has no identifier."""
    assert key("ip", "192.168.1.1", "POST /x") == "rate_limit:ip:192.168.1.1:POST /x"
    assert key("global", "ignored", "POST /x") == "rate_limit:global:POST /x"
    assert key("user", "Ünïcode-7_a@b.c", "GET /y:z") == "rate_limit:user:Ünïcode-7_a@b.c:GET /y:z"
    assert key("ip", "1", "GET /", KeyFormat("app1")) == "app1:ip:1:GET /"


def test_separators_are_escaped() -> None:
    """An IPv6 address, a percent sign, braces, control characters and lone surrogates cannot imitate another key."""
    assert key("ip", "2001:db8::1", "GET /") == "rate_limit:ip:2001%3Adb8%3A%3A1:GET /"
    assert key("user", "a%3Ab", "GET /") == "rate_limit:user:a%253Ab:GET /"
    assert key("user", "{a}\r\n\x00\ud800", "GET /") == "rate_limit:user:%7Ba%7D%0D%0A%00%ED%A0%80:GET /"


TEXTS = st.text(st.characters(exclude_categories=()) | st.sampled_from(":%{}~"), min_size=1, max_size=12)
SCOPES = st.sampled_from(["ip", "user", "tenant", "global"])


@given(st.lists(st.tuples(SCOPES, TEXTS, TEXTS, st.sampled_from(["", "2", "x"])), min_size=2, max_size=8, unique=True))
def test_different_triples_never_share_a_key(triples: list[tuple[str, str, str, str]]) -> None:
    """Whatever the identifier and the endpoint hold, the key tells them apart, with and without hash tags."""
    meant = {(s, "" if s == "global" else i, e, v) for s, i, e, v in triples}
    for key_format in (KeyFormat(), KeyFormat(hash_tag=True), KeyFormat(identifier_secret=b"s")):
        assert len({key(s, i, e, key_format, v) for s, i, e, v in meant}) == len(meant)


@given(TEXTS)
def test_a_key_is_always_utf8(identifier: str) -> None:
    """A storage can encode every key."""
    assert key("ip", identifier, "GET /").encode()


def test_hashed_identifiers_show_nothing_and_depend_on_the_secret() -> None:
    """With a secret the key carries 32 hexadecimal digits that another secret changes."""
    one = key("user", "alice@example.com", "GET /", KeyFormat(identifier_secret=b"one"))
    other = key("user", "alice@example.com", "GET /", KeyFormat(identifier_secret=b"two"))
    assert "alice" not in one
    assert one != other
    assert len(one.split(":")[2]) == 32
    assert "one" not in repr(KeyFormat(identifier_secret=b"one"))


def test_a_hash_tag_holds_exactly_the_identifier() -> None:
    """On a Cluster all rules of one identifier share a slot, and an endpoint's braces do not decide it."""
    assert key("ip", "10.0.0.1", "GET /a/{id}", KeyFormat(hash_tag=True)) == "rate_limit:ip:{10.0.0.1}:GET /a/{id}"


@pytest.mark.parametrize("prefix", ["", "a b", "x" * 65, "a\n", "é"])
def test_a_wrong_prefix_is_named(prefix: str) -> None:
    """The prefix is an operator's text and is checked when the limiter is built."""
    with pytest.raises(InvalidInputError, match="key_prefix="):
        KeyFormat(prefix)


def test_a_wrong_secret_is_not_repeated() -> None:
    """The message says how long a secret may be, and does not show it."""
    with pytest.raises(InvalidInputError, match="identifier_secret: expected 1 to 64 bytes") as caught:
        KeyFormat(identifier_secret=b"secret" * 20)
    assert "secretsecret" not in str(caught.value)


def test_texts_are_bounded() -> None:
    """Empty, foreign and overlong values are refused; 1024 bytes are enough, 1025 are not, counted in UTF-8."""
    assert require_text("identifier", "x" * 1024) == "x" * 1024
    with pytest.raises(InvalidInputError, match="identifier='xxxx.*: 1025 bytes long, expected at most 1024"):
        require_text("identifier", "x" * 1025)
    with pytest.raises(InvalidInputError, match="1026 bytes"):
        require_text("identifier", "é" * 513)
    with pytest.raises(InvalidInputError, match="endpoint='': expected a string that is not empty"):
        require_text("endpoint", "")
    with pytest.raises(InvalidTypeError, match="identifier=5: expected a string, not int"):
        require_text("identifier", 5)
