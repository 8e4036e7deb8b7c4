"""The extension for Flask."""

from typing import Any

from flask import Flask, Response, g, request

from sluicegate.presentation.web.request_limiter import RequestLimiter

_CHECKED = "_sluicegate_checked"


class FlaskRateLimit:
    """Limit an application's requests: `FlaskRateLimit(app, rules={"GET /items/<int:item_id>": …})`.

    Rules name routes as Flask does; `*` is for requests that no route takes. Blueprints' prefixes are part of a route.

    Args:
        app: The application; None: call `init_app` later.
        options: See `RequestLimiter`. Functions get Flask's request; `user` has none by default:
            `identifiers={"user": lambda request: current_user.get_id()}`.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:  # noqa: ANN401 - RequestLimiter's options
        self._gate = RequestLimiter(**options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Limit an application, before its other functions of `before_request` run."""
        app.before_request_funcs.setdefault(None, []).insert(0, self._before)
        app.after_request(self._after)
        app.extensions["sluicegate"] = self

    def _before(self) -> Response | None:
        # The route that Flask has found is what counts: two routers never disagree if there is one.
        route = request.url_rule.rule if request.url_rule is not None else request.path
        checked = self._gate.check(request.environ, request.path, route, request)
        if checked is None:
            return None
        if checked.result.allowed:
            setattr(g, _CHECKED, checked)
            return None
        refusal = self._gate.denial(checked)
        return Response(refusal.body, refusal.status, list(refusal.headers))

    def _after(self, response: Response) -> Response:
        checked = g.pop(_CHECKED, None)
        if checked is not None:
            for name, value in self._gate.fields(checked):
                response.headers.setdefault(name, value)
        return response
