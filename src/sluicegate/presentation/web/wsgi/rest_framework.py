"""A throttle for Django REST framework: `throttle_classes = [throttle("5/minute per user")]`."""

from typing import Any, ClassVar, Unpack

import msgspec
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.container import get_sync_rate_limit
from sluicegate.presentation.inline_rules import InlineRule, InlineRules
from sluicegate.presentation.web.headers import DenialResponse, Headers, retry_after_seconds
from sluicegate.presentation.web.incoming_request import is_exempt
from sluicegate.presentation.web.request_limiter import RequestLimiter, RequestOptions
from sluicegate.presentation.web.request_reader import IdentifierFunction
from sluicegate.presentation.web.request_record import RECORD, RequestRecord, claims_in
from sluicegate.presentation.web.wsgi.django_answers import settle_failed, settled_at_the_end
from sluicegate.presentation.web.wsgi.environ import EnvironRequest, fields_to_send, join_fields


class RateLimitExceeded(Throttled):
    """A request was denied. The framework's exception handler answers it; the fields of the body are the problem details'.

    Args:
        denial: What other frameworks would answer.
    """

    def __init__(self, denial: DenialResponse) -> None:
        super().__init__()
        self.denial = denial
        self.status_code = denial.status
        self.wait = retry_after_seconds(denial.decision.result.retry_after)
        self.detail = msgspec.json.decode(denial.body)

    def get_codes(self) -> str:
        """Return the code of the framework's own exception."""
        return self.default_code

    def get_full_details(self) -> dict[str, Any]:
        """Return the body's fields, with the code."""
        return {"message": self.detail, "code": self.default_code}


class RateLimitThrottle(BaseThrottle):
    """Throttle a view; `throttle` makes it. The framework's exception handler answers a denied request."""

    rules: ClassVar[InlineRules[SyncTokenBucketAdapter]]
    requests: ClassVar[RequestLimiter]

    def allow_request(self, request: Request, view: Any) -> bool:  # noqa: ANN401 - the framework's
        """Return whether a request may pass.

        Raises:
            RateLimitExceeded: If it may not.
        """
        place = place_of(request, view)
        endpoint, limiter = self.rules.at(place, request)
        match = getattr(request, "resolver_match", None)
        marked = view if match is None or is_exempt(view) else match.func
        incoming = EnvironRequest(request.META, request.path_info, place, request, view.kwargs, marked)
        decision = self.requests.check_blocking(limiter, incoming, endpoint)
        if decision is None or decision.result.allowed:
            self._tell(view, fields_to_send(request.META))
            if claims_in(request.META) is not None:
                _settle_with(view, request)
            return True
        record: RequestRecord | None = request.META.get(RECORD)
        if record is not None:
            record.told(decision)
        denial = self.requests.denial(decision)
        self._tell(view, (*denial.headers[2:], *fields_to_send(request.META)))
        raise RateLimitExceeded(denial)

    @classmethod
    def note_view(cls, route: str, view: Any) -> None:  # noqa: ANN401 - the framework's
        """Note a view for commands; see `InlineRules.note` and `place_of`."""
        methods = [method.upper() for method in getattr(view, "actions", None) or ("*",)]
        for method in methods:
            if method != "HEAD":
                cls.rules.note(f"{method} {route}")

    @staticmethod
    def _tell(view: Any, fields: Headers) -> None:  # noqa: ANN401 - the framework's
        headers = getattr(view, "headers", None)  # which the view adds to whatever response it returns
        if headers is not None:
            join_fields(headers, fields)


def throttle(
    *rules: InlineRule,
    name: str = "",
    limiter: SyncTokenBucketAdapter | None = None,
    identifier: IdentifierFunction | None = None,
    fixed_cost: int = 0,
    **options: Unpack[RequestOptions],
) -> type[RateLimitThrottle]:
    """Return a throttle for a view's `throttle_classes`.

    It throttles a view with all of its methods together, and of a view set each action apart.

    Args:
        rules: Rules, texts such as `5/minute per user` (a text without `per` counts addresses), names of policies of the rules
            file, or functions of the request that return them.
        name: What keys name in the place of an endpoint; empty: the route, such as `* /items/<int:pk>/`. Views of the same name
            and rules share buckets.
        limiter: The limiter whose storage and lists are used; None: that of the settings.
        identifier: A function of the request that names the client for all rules but global ones; None: the address for `ip`,
            the signed-in user for `user`.
        fixed_cost: Tokens that each request takes; 0: the rule's own cost.
        options: See `EnvironLimiter`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """
    if identifier is None:
        options["identifiers"] = {"user": _signed_in_user, **(options.get("identifiers") or {})}
    options.setdefault("trusted_proxies", None)
    requests = RequestLimiter(identifier=identifier, fixed_cost=fixed_cost, awaits=False, **options)
    inline = InlineRules(rules, SyncTokenBucketAdapter, limiter, get_sync_rate_limit, name=name, requests=requests)
    return type("Throttle", (RateLimitThrottle,), {"rules": inline, "requests": requests})


def place_of(request: Request, view: Any) -> str:  # noqa: ANN401 - the framework's
    """Return what users call a view: its route, with the method if it is one of several actions of a view set."""
    match = getattr(request, "resolver_match", None)
    if match is None:
        kind = view.__class__
        return f"{kind.__module__}.{kind.__name__}"  # which a view made of a function shares with it
    method = request.method if getattr(view, "action_map", None) else "*"
    return f"{'GET' if method == 'HEAD' else method} /{match.route}"


def _signed_in_user(request: Request) -> object:
    return request.user.pk if getattr(request.user, "is_authenticated", False) else None


def _settle_with(view: Any, request: Request) -> None:  # noqa: ANN401 - the framework's
    """Settle what was claimed when the view's answer has been sent, whatever the view does."""
    finish, fail = view.finalize_response, view.raise_uncaught_exception

    def finish_and_settle(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the framework's
        return settled_at_the_end(request, finish(*args, **kwargs))

    def settle_and_fail(error: Exception) -> Any:  # noqa: ANN401 - the framework's
        settle_failed(request)
        return fail(error)

    view.finalize_response, view.raise_uncaught_exception = finish_and_settle, settle_and_fail
