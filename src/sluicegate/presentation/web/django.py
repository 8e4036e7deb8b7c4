"""The middleware for Django: `MIDDLEWARE = ["sluicegate.django.RateLimitMiddleware", …]`.

Its options are in the settings: `SLUICEGATE = {"rules": {"POST /login/": …}}`.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, get_urlconf, resolve

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.environ import EnvironLimiter


class RateLimitMiddleware:
    """Limit requests.

    `settings.SLUICEGATE` has the options of `EnvironLimiter`. Rules name routes as Django does, after a slash:
    `path("items/<int:pk>/", …)` is `GET /items/<int:pk>/`; `*` is for requests that no route takes. Functions get
    Django's request; `user` is by default the user that `AuthenticationMiddleware`, placed before this one, has signed in.

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
    try:
        match = resolve(request.path_info, getattr(request, "urlconf", None) or get_urlconf())
    except Resolver404:
        return request.path_info
    return f"/{match.route}"


def signed_in_user(request: HttpRequest) -> object:
    """Return the primary key of the user that authentication has signed in; None if there is none."""
    user = getattr(request, "user", None)
    return user.pk if user is not None and user.is_authenticated else None
