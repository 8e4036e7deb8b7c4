"""The extension for Flask."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeAlias, TypeVar, Unpack, cast

from flask import Blueprint, Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException, ServiceUnavailable, TooManyRequests

from sluicegate.application.check import Decision
from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.presentation.decorated import require_unregistered
from sluicegate.presentation.inline_rules import InlineRule, InlineRules
from sluicegate.presentation.web.answer import AnswerCost, AnswerTest
from sluicegate.presentation.web.headers import DenialResponse
from sluicegate.presentation.web.incoming_request import exempt, is_exempt
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.request_reader import CostFunction, IdentifierFunction, RequestTest, require_functions
from sluicegate.presentation.web.wsgi.environ import (
    EnvironLimiter,
    EnvironOptions,
    EnvironRequest,
    add_absent,
    fields_to_send,
    join_fields,
)
from sluicegate.presentation.web.wsgi.settled_body import claimed_so_far, settle

V = TypeVar("V")

DenialFunction: TypeAlias = Callable[[Any, DenialResponse], Any]
"""Return what answers a denied request, as a view would; it gets Flask's request."""

_DENIAL = "_sluicegate_denial"
_RULES = "_sluicegate_rules"


class RateLimitExceeded(TooManyRequests):
    """A request was denied. Flask gives it to the application's `errorhandler(429)`, if there is one."""

    def __init__(self, denial: DenialResponse) -> None:
        super().__init__()
        self.denial = denial

    def get_response(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - Werkzeug's signature changes
        """Return problem details."""
        return Response(self.denial.body, self.denial.status, list(self.denial.headers))


class RateLimitUnavailable(ServiceUnavailable):
    """A request was denied because the storage failed and the rule's policy is `deny`; see `RateLimitExceeded`."""

    def __init__(self, denial: DenialResponse) -> None:
        super().__init__()
        self.denial = denial

    def get_response(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - Werkzeug's signature changes
        """Return problem details."""
        return Response(self.denial.body, self.denial.status, list(self.denial.headers))


class FlaskRateLimit:
    """Limit an application's requests: `FlaskRateLimit(app, rules={"GET /items/<int:item_id>": "60/minute"})`.

    Rules name routes as Flask does, with the prefixes of blueprints; `*` is for requests that no route takes. Rules that name no
    route are reported when the first request comes. A denied request goes to the application's `errorhandler(429)`, if there is
    one, and so does a `RateLimitedError` that a view raises.

    Args:
        app: The application; None: call `init_app` later.
        on_denied: Returns the response to a denied request in place of the problem details. Header fields that it leaves out
            are added.
        after_authentication: Whether the check runs after all functions of `before_request`, so that they have signed the user
            in. Requests that one of them answers are not counted then.
        options: See `EnvironLimiter`. Functions get Flask's request. `user` has no function by default; with Flask-Login it is
            `identifiers={"user": lambda request: current_user.get_id()}`.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        on_denied: DenialFunction | None = None,
        after_authentication: bool = False,
        **options: Unpack[EnvironOptions],
    ) -> None:
        require_functions({"on_denied": on_denied}, awaits=False)
        options.setdefault("trusted_proxies", None)
        self._on_denied = on_denied
        self._after_authentication = after_authentication
        self._requests = EnvironLimiter(**options)
        self._compared: set[int] = set()
        own = ("rules", "limiter", "cost", "exempt_when", "exempt", "count_when", "answer_cost", "reserves")
        self._options: dict[str, Any] = {name: value for name, value in options.items() if name not in own}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Limit an application, before its other functions of `before_request` run, or after all of them."""
        if self._after_authentication:
            dispatch = app.dispatch_request

            def check_and_dispatch(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Flask's signature changes
                self._before()
                return dispatch(*args, **kwargs)

            app.dispatch_request = check_and_dispatch  # type: ignore[method-assign]
        else:
            app.before_request_funcs.setdefault(None, []).insert(0, self._before)
        app.after_request(self._after)
        inner: Any = app.wsgi_app

        def settling(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401 - PEP 3333
            return settle(inner, environ, start_response, claimed_so_far(environ))

        app.wsgi_app = settling  # type: ignore[method-assign]  # as Flask's documentation wraps it
        app.register_error_handler(RateLimitedError, self._answer)
        app.extensions["sluicegate"] = self

    @property
    def limiter(self) -> SyncTokenBucketAdapter:
        """The limiter, for `reset` and the like."""
        return self._requests.limiter

    def limit(  # noqa: PLR0913 - options, given by name
        self,
        *rules: InlineRule,
        identifier: IdentifierFunction | None = None,
        cost: int | CostFunction = 0,
        count_when: AnswerTest | None = None,
        answer_cost: AnswerCost | None = None,
        reserves: bool = False,
        name: str = "",
        methods: Iterable[str] = (),
        exempt_when: RequestTest | None = None,
    ) -> Callable[[V], V]:
        """Limit a view, all of its methods together, or each view of a blueprint.

        Its decorator stands below `@app.route`, next to the view. What the extension was told of proxies, identifiers and
        header fields holds here too.

        Args:
            rules: Rules, texts such as `5/minute; 100/hour`, names of policies of the rules file, or functions of the request
                that return them.
            identifier: A function of the request that names the client for all rules but global ones; None: as the extension
                does.
            cost: Tokens that a request takes; 0: the rule's cost. Or a function of the request, whose 0 means none.
            count_when: Returns whether a request counts, as a function of its `Answer`; None: all count.
            answer_cost: What a request cost in the end: a header field that no client sees, or a function of the `Answer`.
            reserves: Whether the cost is reserved until the view tells it by `request.rate_limit.commit`.
            name: What keys name in the place of an endpoint; empty: the route. Views of the same name and rules share buckets.
            methods: The methods whose requests count; none: all.
            exempt_when: Returns whether a request is not counted; None: all others are.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        requests = RequestLimiter(
            identifier=identifier,
            cost=cost if callable(cost) else None,
            fixed_cost=0 if callable(cost) else cost,
            count_when=count_when,
            answer_cost=answer_cost,
            reserves=reserves,
            exempt_when=exempt_when,
            awaits=False,
            **self._options,
        )
        inline = InlineRules(
            rules, SyncTokenBucketAdapter, self.limiter, lambda: self.limiter, name=name, requests=requests
        )
        counted = frozenset(method.upper() for method in methods)

        def check() -> None:
            if counted and request.method not in counted:
                return
            route = request.url_rule.rule if request.url_rule is not None else request.path
            endpoint, limiter = inline.at(f"* {route}", request)
            incoming = EnvironRequest(request.environ, request.path, route, request, request.view_args, _view())
            self._require(requests.check_blocking(limiter, incoming, endpoint))

        def decorate(view: V) -> V:
            if isinstance(view, Blueprint):
                view.before_request(check)
                setattr(view, _RULES, inline)
                return cast("V", view)
            require_functions({"view": view})
            require_unregistered(view)
            function = cast("Callable[..., Any]", view)

            @wraps(function)
            def limited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the view's own
                check()
                return current_app.ensure_sync(function)(*args, **kwargs)

            setattr(limited, _RULES, inline)
            return cast("V", limited)

        return decorate

    @staticmethod
    def exempt(view: V) -> V:
        """Decorate a view, or a blueprint, whose requests are not counted; below `@app.route`."""
        return exempt(view)

    def _before(self) -> None:
        url_map = current_app.url_map
        if id(url_map) not in self._compared:  # before its first request an application may still get routes
            self._compared.add(id(url_map))
            routes: dict[str, frozenset[str]] = {}
            for rule in url_map.iter_rules():
                routes[rule.rule] = routes.get(rule.rule, frozenset()) | frozenset(rule.methods or ())
            self._requests.report_unknown_routes(routes)
        # Flask's router has matched already. To ask it is the only way never to disagree with it.
        route = request.url_rule.rule if request.url_rule is not None else request.path
        self._require(self._requests.check(request.environ, request.path, route, request, request.view_args, _view()))

    def _require(self, decision: Decision | None) -> None:
        """Raise what answers a denied request."""
        if decision is not None and not decision.result.allowed:
            raise self._exception(decision)

    def _exception(self, decision: Decision) -> HTTPException:
        denial = self._requests.denial(request.environ, decision)
        setattr(g, _DENIAL, denial)
        return RateLimitExceeded(denial) if denial.status == TooManyRequests.code else RateLimitUnavailable(denial)

    def _answer(self, error: RateLimitedError) -> Any:  # noqa: ANN401 - what views return
        """Answer what a view raised as if the extension had denied the request."""
        return current_app.handle_user_exception(self._exception(error.decision))

    def _after(self, response: Response) -> Response:
        denial: DenialResponse | None = g.pop(_DENIAL, None)
        if denial is not None:
            if self._on_denied is not None:
                try:
                    response = current_app.make_response(self._on_denied(request, denial))
                except Exception as error:  # noqa: BLE001 - the request is denied all the same
                    self._requests.requests.warn("on_denied", "on_denied failed.", error)
            add_absent(response.headers, denial)
        join_fields(response.headers, fields_to_send(request.environ))
        return response


def note_views(app: Flask) -> None:
    """Note the rules of views and blueprints for commands; see `InlineRules.note`."""
    for rule in app.url_map.iter_rules():
        blueprints = [app.blueprints.get(name) for name in [rule.endpoint.rpartition(".")[0]] if name]
        for limited in (app.view_functions.get(rule.endpoint), *blueprints):
            inline: InlineRules[SyncTokenBucketAdapter] | None = getattr(limited, _RULES, None)
            if inline is not None:
                inline.note(f"* {rule.rule}")


def _view() -> object:
    """Return the view that Flask calls for the request, or a blueprint of it that is exempt."""
    for name in request.blueprints:
        blueprint = current_app.blueprints.get(name)
        if is_exempt(blueprint):
            return blueprint
    return current_app.view_functions.get(request.endpoint or "")
