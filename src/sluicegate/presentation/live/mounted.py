"""The live page inside an application, behind the application's own authentication."""

from typing import Any, Final, cast

from sluicegate.application.hot_keys import HotKeys
from sluicegate.application.live.worker_figures import WorkerMeter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.infrastructure.redis_figures import redis_figures
from sluicegate.presentation.live.api import LiveApi
from sluicegate.presentation.live.page import PageOptions, page_endpoints
from sluicegate.presentation.service.admin.api import AdminApi
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, build_app, problem
from sluicegate.presentation.service.settings import ServiceLimits

_JSON: Final = "application/json"


def live_page(
    limiter: TokenBucketAdapter, bus: SubscribableBus, *, hot_keys: HotKeys | None = None, changes: bool = False
) -> Any:  # noqa: ANN401 - an ASGI application, which each framework types in its own way
    """Return an ASGI application that shows what a limiter does in this process. It counts from now on.

    Whoever can reach it can watch: mount it where your own authentication stands in front.

    Args:
        limiter: The limiter.
        bus: The bus that it was given; an `InlineEventBus` is right, for nothing here waits.
        hot_keys: Who is hot; None: the page does not show that.
        changes: Whether people may fill buckets and throw kill switches there.

    Raises:
        InvalidTypeError: If the limiter is none that an event loop can use.
    """
    if not isinstance(limiter, TokenBucketAdapter):
        raise InvalidTypeError(f"limiter={limiter!r:.80}: expected a TokenBucketAdapter")
    live = LiveApi(WorkerMeter(limiter, bus, redis_figures, hot_keys))
    admin = AdminApi(limiter, lambda: limiter.rules.version)
    endpoints = [*live.endpoints(), Endpoint("POST", "/v1/explain", admin.explain)]
    if changes:
        endpoints += [
            Endpoint("POST", "/v1/reset", admin.reset),
            Endpoint("POST", "/v1/switch-off", admin.switch_off),
            Endpoint("POST", "/v1/switch-on", admin.switch_on),
        ]
    page = page_endpoints(PageOptions(needs_token=False, changes=changes))
    return cast("Any", build_app(endpoints, ServiceLimits(), guard=_refuse_other_sites, open_endpoints=page))


def _refuse_other_sites(call: Call) -> Reply | None:
    """Refuse what a page of another site could make a signed-in browser send: forms and simple requests are not JSON."""
    if call.method == "GET":
        return None
    types = call.header_lines("content-type")
    sites = call.header_lines("sec-fetch-site")
    if len(types) == 1 and types[0].partition(";")[0].strip().lower() == _JSON and sites in ([], ["same-origin"]):
        return None
    return problem(403, "Not allowed", "Expected JSON that a page of this site sends.")
