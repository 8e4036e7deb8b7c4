"""The extension for Flask."""

from typing import Unpack

from flask import Flask, Response, current_app, g, request

from sluicegate.presentation.web.environ import EnvironLimiter, EnvironOptions

_DECISION = "_sluicegate_decision"


class FlaskRateLimit:
    """Limit an application's requests: `FlaskRateLimit(app, rules={"GET /items/<int:item_id>": …})`.

    Rules name routes as Flask does, with the prefixes of blueprints; `*` is for requests that no route takes. Rules that name no
    route are reported when the first request comes.

    Args:
        app: The application; None: call `init_app` later.
        options: See `EnvironLimiter`. Functions get Flask's request. `user` has no function by default; with Flask-Login it is
            `identifiers={"user": lambda request: current_user.get_id()}`.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(self, app: Flask | None = None, **options: Unpack[EnvironOptions]) -> None:
        self._requests = EnvironLimiter(**options)
        self._compared: set[int] = set()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Limit an application, before its other functions of `before_request` run."""
        app.before_request_funcs.setdefault(None, []).insert(0, self._before)
        app.after_request(self._after)
        app.extensions["sluicegate"] = self

    def _before(self) -> Response | None:
        url_map = current_app.url_map
        if id(url_map) not in self._compared:  # before its first request an application may still get routes
            self._compared.add(id(url_map))
            routes: dict[str, frozenset[str]] = {}
            for rule in url_map.iter_rules():
                routes[rule.rule] = routes.get(rule.rule, frozenset()) | frozenset(rule.methods or ())
            self._requests.report_unknown_routes(routes)
        # Flask's router has matched already. To ask it is the only way never to disagree with it.
        route = request.url_rule.rule if request.url_rule is not None else request.path
        decision = self._requests.check(request.environ, request.path, route, request)
        if decision is None:
            return None
        if decision.result.allowed:
            setattr(g, _DECISION, decision)
            return None
        denial = self._requests.denial(decision)
        return Response(denial.body, denial.status, list(denial.headers))

    def _after(self, response: Response) -> Response:
        decision = g.pop(_DECISION, None)
        if decision is not None:
            for name, value in self._requests.headers(decision):
                response.headers.setdefault(name, value)
        return response
