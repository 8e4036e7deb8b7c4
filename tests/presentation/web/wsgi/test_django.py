"""Django and REST framework applications are limited by their own routes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path, re_path
from django.utils.translation import gettext_lazy

from sluicegate import InvalidInputError, MemoryStorage, RateLimitRule, RuleBook, SyncTokenBucketAdapter
from sluicegate.domain.rules.rule_book_entries import Listing
from sluicegate.testing import FakeClock, RecordingLogger
from support import django_project

assert django_project.settings.configured, "before what follows is imported"

from rest_framework import routers, viewsets  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from sluicegate.django import RateLimitMiddleware  # noqa: E402
from sluicegate.rest_framework import throttle  # noqa: E402

ONE = RateLimitRule(1, 1, "ip", name="one")
TWO = RateLimitRule(2, 2, "ip", name="two")


@pytest.fixture(autouse=True)
def own_routes() -> Iterator[None]:
    """Django's routes are those of this module."""
    with override_settings(ROOT_URLCONF=__name__):
        yield


def limiter_of(rules: Any) -> SyncTokenBucketAdapter:
    """Return a limiter on a clock that stands still."""
    return SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=rules)


def view(_: HttpRequest, *__: Any, **___: Any) -> HttpResponse:
    """Answer."""
    return HttpResponse("hello")


class Throttled(APIView):
    """A view with a throttle of its own."""

    throttle_classes = (throttle("2/minute", limiter=limiter_of({})),)

    def get(self, _: Request, **__: Any) -> Response:
        """Answer."""
        return Response({"it": "ran"})


class Users(viewsets.ViewSet):
    """A view set, whose routes a router makes."""

    def list(self, _: Request, **__: Any) -> Response:
        """Answer."""
        return Response([])

    def retrieve(self, _: Request, pk: str, **__: Any) -> Response:
        """Answer."""
        return Response({"user": pk})


ROUTER = routers.DefaultRouter()
ROUTER.register("users", Users, basename="user")

urlpatterns = [
    *ROUTER.urls,
    path("api/", include((ROUTER.urls, "users"), namespace="api")),
    re_path(r"^articles/(?P<year>[0-9]{4})/$", view),
    re_path(r"^old/(\d+)", view),
    *i18n_patterns(path("things/<int:pk>/", view), path(gettext_lazy("other/"), view)),
    path("items/<int:pk>/", view),
    path("v1/", include([path("lines/<path:rest>", view)])),
    path("throttled/<int:pk>/", Throttled.as_view()),
]


def client_of(rules: Any, **options: Any) -> Client:
    """Return a client of an application with these rules."""
    with override_settings(SLUICEGATE={"limiter": limiter_of(rules), **options}):
        client = Client()
        client.handler.load_middleware()
        return client


def test_by_its_own_routes() -> None:
    """Rules name routes as Django does after a slash, those of includes too."""
    client = client_of({"GET /items/<int:pk>/": TWO, "GET /v1/lines/<path:rest>": ONE})
    answers = [client.get(f"/items/{number}/") for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit"] == '"two";r=1;t=30'
    assert answers[2].headers["Retry-After"] == "30"
    assert answers[2].headers["Cache-Control"] == "no-store"
    assert answers[2].headers["Content-Type"] == "application/problem+json"
    assert json.loads(answers[2].content)["violated-policies"] == ["two"]
    assert client.head("/items/9/").status_code == 429
    assert [client.get(place).status_code for place in ("/v1/lines/a", "/v1/lines/b/c")] == [200, 429]


def test_unmatched_paths_exemptions_and_proxies() -> None:
    """What no route takes belongs to `*`; exempt paths are not counted; trusted proxies are believed."""
    client = client_of({"*": TWO}, exempt=["/health"], trusted_proxies=["127.0.0.1"])
    assert [client.get("/health").status_code for _ in range(3)] == [404] * 3
    assert [client.get(place).status_code for place in ("/x", "/y", "/z")] == [404, 404, 429]
    assert client.get("/x", headers={"X-Forwarded-For": "1.1.1.1, 203.0.113.9"}).status_code == 404


def test_users_that_django_signed_in() -> None:
    """`user` is the signed-in user's key; an anonymous client is counted by address."""

    class User:
        pk = 7
        is_authenticated = True

    with override_settings(SLUICEGATE={"limiter": limiter_of({"GET /items/<int:pk>/": RateLimitRule(1, 1, "user")})}):
        middleware = RateLimitMiddleware(view)

    def status(address: str, user: object) -> int:
        request = RequestFactory().get("/items/1/", REMOTE_ADDR=address)
        if user is not None:
            request.user = user  # type: ignore[assignment]
        return middleware(request).status_code

    user = User()
    assert [status("192.0.2.1", user), status("192.0.2.2", user)] == [200, 429]
    assert [status("192.0.2.1", None), status("192.0.2.1", None), status("192.0.2.2", None)] == [200, 429, 200]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rules": {"GET /{id": ONE}}, "braces"), ({"rule": {}}, "rule"), ({"rules": {}, "headers": "x"}, "headers='x'")],
)
def test_bad_settings(options: Any, message: str) -> None:
    """A wrong option is Django's own kind of error when it starts."""
    with override_settings(SLUICEGATE=options), pytest.raises(ImproperlyConfigured, match=message):
        RateLimitMiddleware(view)


def test_rest_framework() -> None:
    """A throttle limits its view, all paths of it together, and its wait is rounded up."""
    client = client_of({})
    answers = [client.get(f"/throttled/{number}/") for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "30"


def test_bad_throttles() -> None:
    """A throttle with a rule that cannot be read, or with an unknown scope, is an error where it is made."""
    with pytest.raises(InvalidInputError, match="at least one"):
        throttle()
    with pytest.raises(InvalidInputError, match="'tenant'"):
        throttle("5/minute per tenant")


@pytest.mark.parametrize(
    ("endpoint", "places"),
    [
        (r"GET /^users/(?P<pk>[^/.]+)/$", ["/users/1/", "/users/2/"]),
        (r"GET /^users/$", ["/users/", "/users/"]),
        (r"GET /api/users/(?P<pk>[^/.]+)/$", ["/api/users/1/", "/api/users/2/"]),
        (r"GET /api/users/(?P<pk>[^/.]+)\.(?P<format>[a-z0-9]+)/?$", ["/api/users/1.json", "/api/users/2.json"]),
        (r"GET /^articles/(?P<year>[0-9]{4})/$", ["/articles/2025/", "/articles/2026/"]),
        (r"GET /^old/(\d+)", ["/old/1", "/old/22/more"]),
        ("GET /en-us/things/<int:pk>/", ["/en-us/things/1/", "/en-us/things/2/"]),
    ],
)
def test_every_route_that_django_reports_can_be_named(endpoint: str, places: list[str]) -> None:
    """Regular expressions, routers' routes, included namespaces and translated prefixes are names like any other."""
    log = RecordingLogger()
    client = client_of({endpoint: ONE}, logger=log)
    assert [client.get(place).status_code for place in places] == [200, 429]
    assert log.records == []


def test_a_language_that_is_not_chosen_yet() -> None:
    """A limiter before `LocaleMiddleware` finds the route in the language that this one will choose, from the path or a field."""
    middleware = ["sluicegate.django.RateLimitMiddleware", "django.middleware.locale.LocaleMiddleware"]
    with override_settings(MIDDLEWARE=middleware, LANGUAGES=[("en", "English"), ("de", "Deutsch")]):
        client = client_of({"GET /de/things/<int:pk>/": ONE, "GET /en/things/<int:pk>/": TWO})
        assert [client.get(f"/de/things/{number}/").status_code for number in range(2)] == [200, 429]
        assert [client.get(f"/en/things/{number}/").status_code for number in range(3)] == [200, 200, 429]


def test_rules_that_name_no_route_are_reported() -> None:
    """A rule that can match nothing is reported when the application starts, with the route that it may mean."""
    log = RecordingLogger()
    client_of({"GET /item/<int:pk>/": ONE, "POST /items/<int:pk>/": ONE, "*": ONE, "send_mail": ONE}, logger=log)
    assert [record[1] for record in log.records] == [
        "The rule for 'GET /item/<int:pk>/' is for no route of the application; the nearest is '/items/<int:pk>/'."
    ]


def test_a_scope_that_nothing_can_name() -> None:
    """A misspelt scope of a rule or of a list is an error at start, with the scope that it may mean."""
    for rules in ({"*": RateLimitRule(1, 1, "ipp")}, RuleBook({}, deny=[Listing(scope="ipp", identifier="192.0.2.1")])):
        with pytest.raises(
            ImproperlyConfigured, match="the scope 'ipp', which a rule or list counts \\(did you mean 'ip'"
        ):
            client_of(rules)
