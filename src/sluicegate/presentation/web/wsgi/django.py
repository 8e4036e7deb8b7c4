"""The middleware for Django: `MIDDLEWARE = ["sluicegate.django.RateLimitMiddleware", …]`.

Its options are in the settings: `SLUICEGATE = {"rules": {"POST /login/": …}}`.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, ResolverMatch, URLResolver, get_resolver, get_urlconf, resolve
from django.utils import translation

from sluicegate.application.check import Decision
from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.headers import DenialResponse
from sluicegate.presentation.web.request_reader import require_functions
from sluicegate.presentation.web.request_record import claims_in
from sluicegate.presentation.web.wsgi.django_answers import settle_failed, settled_at_the_end, settled_by_the_loop
from sluicegate.presentation.web.wsgi.environ import (
    EnvironLimiter,
    EnvironRequest,
    add_absent,
    fields_to_send,
    join_fields,
)

_LOCALE_MIDDLEWARE: Final = "django.middleware.locale.LocaleMiddleware"


class RateLimitMiddleware:
    """Limit requests.

    `settings.SLUICEGATE` has the options of `EnvironLimiter`, and `on_denied`, which gets Django's request and a
    `DenialResponse`, and returns the response to a denied request in place of the problem details. Rules name routes as Django
    does, after a slash: `path("items/<int:pk>/", …)` is `GET /items/<int:pk>/`, and `re_path("^users/(?P<pk>[0-9]+)/$", …)` is
    `GET /^users/(?P<pk>[0-9]+)/$`; `*` is for requests that no route takes. Rules that name no route are reported when the
    application starts. Functions get Django's request; `user` is by default the user that `AuthenticationMiddleware`, placed
    before this one, has signed in. A `RateLimitedError` that a view raises is answered like a denied request.

    Under ASGI it awaits the storage: `limiter` may be a `TokenBucketAdapter` there, and functions may be coroutine functions.

    Args:
        get_response: The next in the chain.

    Raises:
        ImproperlyConfigured: If an option, a rule or a setting is wrong.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self._get_response: Callable[[HttpRequest], Any] = get_response
        options: dict[str, Any] = dict(getattr(settings, "SLUICEGATE", {}))
        self._on_denied: Callable[[HttpRequest, DenialResponse], HttpResponseBase] | None = options.pop(
            "on_denied", None
        )
        self._awaits: bool = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated] - 3.11 has no other
        user = user_who_signed_in if self._awaits else signed_in_user
        options["identifiers"] = {"user": user, **options.get("identifiers", {})}
        try:
            require_functions({"on_denied": self._on_denied}, awaits=False)
            self._requests = EnvironLimiter(awaits=self._awaits, **options)
        except (InvalidInputError, TypeError) as error:
            raise ImproperlyConfigured(f"SLUICEGATE: {error}") from error
        try:
            routes = known_routes()
        except InvalidInputError as error:  # of a throttle in a view
            raise ImproperlyConfigured(f"{error}") from error
        except Exception as error:  # noqa: BLE001 - Django tells of URLs that cannot be imported, when they are needed
            self._requests.requests.warn("urls", "Rules were not compared with the routes.", error)
        else:
            self._requests.report_unknown_routes(routes)
        if self._awaits:
            markcoroutinefunction(self)

    @property
    def limiter(self) -> SyncTokenBucketAdapter | TokenBucketAdapter:
        """The limiter, for `reset` and the like."""
        return self._requests.any_limiter

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer a denied request; call the application for every other."""
        if self._awaits:
            return self._answer(request)
        decision = self._requests.check_request(incoming(request))
        if decision is not None and not decision.result.allowed:
            return self._deny(request, decision)
        try:
            response = self._get_response(request)
        except BaseException:
            settle_failed(request)
            raise
        return settled_at_the_end(request, self._told(request, response))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer a `RateLimitedError`, which a function that is limited has raised."""
        return self._deny(request, exception.decision) if isinstance(exception, RateLimitedError) else None

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        decision = await self._requests.check_awaiting(incoming(request))
        if decision is not None and not decision.result.allowed:
            return self._deny(request, decision)
        try:
            response = self._told(request, await self._get_response(request))
        except BaseException:
            claims = claims_in(request.META)
            if claims is not None:
                await claims.settle()
            raise
        return await settled_by_the_loop(request, response)

    def _deny(self, request: HttpRequest, decision: Decision) -> HttpResponseBase:
        denial = self._requests.denial(request.META, decision)
        if self._on_denied is not None:
            try:
                response = self._on_denied(request, denial)
                add_absent(response.headers, denial)
            except Exception as error:  # noqa: BLE001 - the request is denied all the same
                self._requests.requests.warn("on_denied", "on_denied failed.", error)
            else:
                return response
        denied = HttpResponse(denial.body, status=denial.status)
        for name, value in denial.headers:
            denied.headers[name] = value
        return denied

    @staticmethod
    def _told(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        join_fields(response.headers, fields_to_send(request.META))
        return response


def incoming(request: HttpRequest) -> EnvironRequest:
    """Return a request as the limiter reads it. Its route stands after a slash; it is the path if no route takes it."""
    match = _match(request)
    if match is None:
        return EnvironRequest(request.META, request.path_info, request.path_info, request)
    return EnvironRequest(request.META, request.path_info, f"/{match.route}", request, match.kwargs, match.func)


def _match(request: HttpRequest) -> ResolverMatch | None:
    urlconf = getattr(request, "urlconf", None) or get_urlconf()
    try:
        # Routes of `i18n_patterns` depend on the language, which `LocaleMiddleware` may not have chosen yet.
        if settings.USE_I18N and _LOCALE_MIDDLEWARE in settings.MIDDLEWARE and not hasattr(request, "LANGUAGE_CODE"):
            with translation.override(_language_of(request, urlconf)):
                return resolve(request.path_info, urlconf)
        return resolve(request.path_info, urlconf)
    except Resolver404:
        return None


def known_routes() -> dict[str, None]:
    """Return the routes of the root URL configuration after a slash, as Django reports them.

    Those of `i18n_patterns` are there in every language.
    """
    return {route: None for route, _ in known_views()}


def known_views() -> list[tuple[str, Any]]:
    """Return the routes as `known_routes` does, each with its view."""
    found: list[tuple[str, Any]] = []
    resolver = get_resolver()
    languages = (
        [settings.LANGUAGE_CODE, *(code for code, _ in settings.LANGUAGES)]
        if is_language_prefix_patterns_used(settings.ROOT_URLCONF)[0]
        else [None]
    )
    for language in languages:
        with translation.override(language) if language else nullcontext():
            found += [(f"/{route}", view) for route, view in _views(resolver)]
    return found


def configured_limiter() -> SyncTokenBucketAdapter | TokenBucketAdapter | None:
    """Return the limiter of the middleware as the settings configure it; None: they do not have the middleware."""
    ours = f"sluicegate.django.{RateLimitMiddleware.__name__}"
    if ours not in settings.MIDDLEWARE:
        return None
    return RateLimitMiddleware(lambda _: HttpResponse()).limiter


def _views(resolver: URLResolver) -> Iterator[tuple[str, Any]]:
    for pattern in resolver.url_patterns:
        route = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            # As `ResolverMatch.route` is made.
            yield from ((route + inner.removeprefix("^") if route else inner, view) for inner, view in _views(pattern))
        else:
            yield route, pattern.callback


def _language_of(request: HttpRequest, urlconf: Any) -> str:  # noqa: ANN401 - whatever Django takes
    """Return the language that `LocaleMiddleware` will choose."""
    prefixed, prefixes_default = is_language_prefix_patterns_used(urlconf or settings.ROOT_URLCONF)
    language = translation.get_language_from_request(request, check_path=prefixed)
    if prefixed and not prefixes_default and not translation.get_language_from_path(request.path_info):
        language = settings.LANGUAGE_CODE
    return str(language)


def signed_in_user(request: HttpRequest) -> object:
    """Return the primary key of the user that authentication has signed in; None if there is none."""
    user = getattr(request, "user", None)
    return user.pk if user is not None and user.is_authenticated else None


async def user_who_signed_in(request: HttpRequest) -> object:
    """Return what `signed_in_user` does, where the user must not be looked up in a plain call."""
    find: Any = getattr(request, "auser", None)
    if find is None:
        return signed_in_user(request)
    user: Any = await find()
    return user.pk if user.is_authenticated else None
