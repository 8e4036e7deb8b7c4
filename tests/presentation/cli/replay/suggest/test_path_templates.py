"""Inferring endpoint templates from paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.cli.replay.suggest.path_templates import infer

ANY = RateLimitRule(1, 1, "ip")


def endpoints(*paths: str) -> list[str]:
    """Return the templates of `GET` requests."""
    return [one.endpoint for one in infer({("GET", path): 1 for path in paths})]


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/users/17/orders/18", "/users/{id:int}/orders/{id_2:int}"),
        ("/a/0b1c2d3e-0000-4000-8000-00000000abcd", "/a/{uuid:uuid}"),
        ("/a/9f86d081884c7d65", "/a/{token}"),
        ("/a/dQw4w9WgXcQdQw4w9WgXcQ", "/a/{token}"),
        ("/archive/2025-11-26", "/archive/{date}"),
        ("/v1/about", "/v1/about"),
        ("/", "/"),
        ("/a/", "/a/"),
        ("//a", "//a"),
        ("/deadbeef", "/deadbeef"),
        ("/a/{b}", "/a/{slug}"),
        ("/a/b?c", "/a/{slug}"),
        ("/a/[b", "/a/{slug}"),
        ("/a/b$", "/a/{slug}"),
        ("/a/\x1b[31m", "/a/{slug}"),
        ("/a/" + "x" * 70, "/a/{slug}"),
        ("/a/١٢", "/a/١٢"),
    ],
)
def test_a_segment_is_a_parameter_by_what_it_is(path: str, template: str) -> None:
    """Numbers, UUIDs, tokens, dates, and what no template can spell; all else stays as it is."""
    assert endpoints(path) == [f"GET {template}"]


def test_texts_that_spread_become_one_parameter() -> None:
    """Many rare texts at one place are slugs; what is below them is merged too."""
    paths = [f"/blog/{word}/comments" for word in "abcdefghijklmnopqrstuvwxyz"]
    assert endpoints(*paths, "/blog") == ["GET /blog", "GET /blog/{slug}/comments"]


def test_a_frequent_text_stays_beside_the_parameter_and_before_it() -> None:
    """What has a twentieth of the requests is an endpoint of its own."""
    requests = {("GET", f"/blog/{number}-post"): 2 for number in range(40)} | {("GET", "/blog/feed"): 50}
    assert [(one.endpoint, one.requests) for one in infer(requests)] == [
        ("GET /blog/feed", 50),
        ("GET /blog/{slug}", 80),
    ]


@pytest.mark.parametrize("prefix", ["", "/api", "/api/v2"])
def test_resources_are_not_merged_by_a_dozen(prefix: str) -> None:
    """Forty resources with many requests are forty endpoints; three hundred rare first segments are one."""
    resources = {("GET", f"{prefix}/res{number}x"): 100 for number in range(40)}
    assert len(infer(resources)) == 40
    probes = {("GET", f"{prefix}/probe{number}.php"): 1 for number in range(300)}
    assert [one.endpoint for one in infer(probes)] == [f"GET {prefix}/{{slug}}"]


def test_methods_are_apart_and_head_is_get() -> None:
    """And a method that no template may have is left out."""
    requests = {("GET", "/a"): 2, ("HEAD", "/a"): 3, ("POST", "/a"): 1, ("get", "/a"): 1, ("OPTIONS", "*"): 1}
    assert {one.endpoint: one.requests for one in infer(requests)} == {"GET /a": 5, "POST /a": 1}


def test_two_parameters_at_one_place_that_a_router_cannot_tell_apart_are_one() -> None:
    """A date and a token are texts to it."""
    assert endpoints("/a/2025-11-26", "/a/9f86d081884c7d65", "/a/7") == ["GET /a/{id:int}", "GET /a/{slug}"]


segments = st.sampled_from(
    ["a", "b", "17", "x-1", "[", "^", "b$", "0b1c2d3e-0000-4000-8000-00000000abcd", "api", "{", "?", "é", ""]
) | st.text(max_size=6).map(lambda text: text.replace("/", ""))


@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from(["GET", "POST"]),
            st.lists(segments, min_size=1, max_size=4).map(lambda found: "/" + "/".join(found)),
        ),
        st.integers(1, 9),
        max_size=40,
    )
)
def test_every_path_fits_a_template_and_all_of_them_are_rules(requests: dict[tuple[str, str], int]) -> None:
    """The limiter takes all templates, each request is one of them, and none is lost from the counts."""
    found = infer(requests)
    assert sum(one.requests for one in found) == sum(requests.values())
    rules = CompiledRules({one.endpoint: ANY for one in found}, KeyFormat())
    for method, path in requests:
        assert rules.match(method, path) is not None, path


def test_an_endless_path_is_cut() -> None:
    """Its rest is a parameter; a template that is longer than an endpoint may be is left out."""
    assert endpoints("/" + "ab/" * 20_000) == ["GET /ab/ab/ab/ab/ab/ab/ab/ab/{rest:path}"]
    assert endpoints("/" + f"{'ab' * 30}/" * 20) == []
