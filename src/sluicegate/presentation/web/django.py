"""The middleware for Django: `MIDDLEWARE = ["sluicegate.django.RateLimitMiddleware", …]`.

Its options are in the settings: `SLUICEGATE = {"rules": {"POST /login/": …}}`.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, Final

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, URLResolver, get_resolver, get_urlconf, resolve
from django.utils import translation

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.environ import EnvironLimiter

_LOCALE_MIDDLEWARE: Final = "django.middleware.locale.LocaleMiddleware"


class RateLimitMiddleware:
    """Limit requests.

    `settings.SLUICEGATE` has the options of `EnvironLimiter`. Rules name routes as Django does, after a slash:
    `path("items/<int:pk>/", …)` is `GET /items/<int:pk>/`, and `re_path("^users/(?P<pk>[0-9]+)/$", …)` is
    `GET /^users/(?P<pk>[0-9]+)/$`; `*` is for requests that no route takes. Rules that name no route are reported when the
    application starts. Functions get Django's request; `user` is by default the user that `AuthenticationMiddleware`, placed
    before this one, has signed in.

    Under ASGI Django runs it in a thread, like all middlewares that are not async.

    Args:
        get_response: The next in the chain.

    Raises:
        ImproperlyConfigured: If an option, a rule or a setting is wrong.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response
        options: dict[str, Any] = dict(getattr(settings, "SLUICEGATE", {}))
        options["identifiers"] = {"user": signed_in_user, **options.get("identifiers", {})}
        try:
            self._requests = EnvironLimiter(**options)
        except (InvalidInputError, TypeError) as error:
            raise ImproperlyConfigured(f"SLUICEGATE: {error}") from error
        try:
            routes = known_routes()
        except Exception as error:  # noqa: BLE001 - Django tells of URLs that cannot be imported, when they are needed
            self._requests.requests.warn("urls", "Rules were not compared with the routes.", error)
        else:
            self._requests.report_unknown_routes(routes)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a denied request; call the application for every other."""
        decision = self._requests.check(request.META, request.path_info, route_of(request), request)
        if decision is None:
            return self._get_response(request)
        if not decision.result.allowed:
            denial = self._requests.denial(decision)
            denied = HttpResponse(denial.body, status=denial.status)
            for name, value in denial.headers:
                denied.headers[name] = value
            return denied
        response = self._get_response(request)
        for name, value in self._requests.headers(decision):
            response.headers.setdefault(name, value)
        return response


def route_of(request: HttpRequest) -> str:
    """Return a request's route after a slash, or its path if no route takes it."""
    urlconf = getattr(request, "urlconf", None) or get_urlconf()
    try:
        # Routes of `i18n_patterns` depend on the language, which `LocaleMiddleware` may not have chosen yet.
        if settings.USE_I18N and _LOCALE_MIDDLEWARE in settings.MIDDLEWARE and not hasattr(request, "LANGUAGE_CODE"):
            with translation.override(_language_of(request, urlconf)):
                return f"/{resolve(request.path_info, urlconf).route}"
        return f"/{resolve(request.path_info, urlconf).route}"
    except Resolver404:
        return request.path_info


def known_routes() -> dict[str, None]:
    """Return the routes of the root URL configuration after a slash, as Django reports them.

    Those of `i18n_patterns` are there in every language.
    """
    found: dict[str, None] = {}
    resolver = get_resolver()
    languages = (
        [settings.LANGUAGE_CODE, *(code for code, _ in settings.LANGUAGES)]
        if is_language_prefix_patterns_used(settings.ROOT_URLCONF)[0]
        else [None]
    )
    for language in languages:
        with translation.override(language) if language else nullcontext():
            found.update((f"/{route}", None) for route in _routes(resolver))
    return found


def _routes(resolver: URLResolver) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        route = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            # As `ResolverMatch.route` is made.
            yield from (route + inner.removeprefix("^") if route else inner for inner in _routes(pattern))
        else:
            yield route


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
