"""`check` answers as `is_allowed` does, and tells why."""

from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.domain.result import Success
from sluicegate.testing import FailingStorage, FakeClock

BURST = RateLimitRule(2, 60, "ip", name="burst")
SUSTAINED = RateLimitRule(10, 1, "ip", name="sustained")
RULES = {"GET /a/{id}": (BURST, SUSTAINED), "* /b": RateLimitRule(1, 1, "global"), "GET /c": RateLimitRule(3, 1, "ip")}


async def test_names_the_binding_rule_and_all_that_were_asked() -> None:
    """The answer is `is_allowed`'s; with it come the rules of the endpoint and the one that binds."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES)
    other = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES)
    for _ in range(3):
        checked = await limiter.check(endpoint="GET /a/{id}", identifier="x")
        assert Success(checked.result) == await other.is_allowed(endpoint="GET /a/{id}", identifier="x")
        assert checked.rules == (BURST, SUSTAINED)
        assert checked.binding == BURST
        assert checked.degraded is None
    assert not checked.result.allowed


async def test_without_a_rule() -> None:
    """Where no rule holds there is none to name."""
    checked = await TokenBucketAdapter(storage=MemoryStorage(), rules=RULES).check(endpoint="nothing", identifier="x")
    assert checked.result.allowed
    assert checked.rules == ()
    assert checked.binding is None


async def test_a_cost_that_never_fits() -> None:
    """A cost beyond the capacity is laid on the rule with the least of it."""
    checked = await TokenBucketAdapter(storage=MemoryStorage(), rules=RULES).check(
        endpoint="GET /a/{id}", identifier="x", cost=9
    )
    assert not checked.result.allowed
    assert checked.binding == BURST


async def test_says_that_the_storage_did_not_answer() -> None:
    """While the storage fails, the policy that answered is named."""
    for policy in ("allow", "local", "deny"):
        limiter = TokenBucketAdapter(storage=FailingStorage(), rules=RULES, on_storage_error=policy)
        checked = await limiter.check(endpoint="GET /c", identifier="x")
        assert checked.degraded == policy
        assert checked.result.allowed == (policy != "deny")
        assert checked.binding == RULES["GET /c"]
        assert limiter.failures == {"connection": 1}


def test_the_plain_face_tells_the_same() -> None:
    """The limiter without an event loop has `check` and `match` as well."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES)
    assert limiter.check(endpoint="GET /a/{id}", identifier="x").binding == BURST
    assert limiter.current_rules().match("HEAD", "/a/1") == "GET /a/{id}"
    assert limiter.current_rules().scopes_of("* /b") == ("global",)


async def test_a_path_and_its_template_share_a_bucket() -> None:
    """An endpoint may be named by a concrete path; the bucket is its template's all the same."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES)
    for endpoint in ("GET /a/1", "GET /a/2"):
        match await limiter.is_allowed(endpoint=endpoint, identifier="x"):
            case Success(value=result):
                assert result.allowed
            case _:
                raise AssertionError
    match await limiter.is_allowed(endpoint="GET /a/{id}", identifier="x"):
        case Success(value=result):
            assert not result.allowed
        case _:
            raise AssertionError


async def test_many_paths_of_one_template_keep_memory_bounded() -> None:
    """A flood of different paths of one template makes one bucket, and no more remembered checks than there is room for."""
    storage = MemoryStorage(clock=FakeClock())
    limiter = TokenBucketAdapter(storage=storage, rules=RULES)
    allowed = 0
    for number in range(10_000):
        match await limiter.is_allowed(endpoint=f"GET /a/{number}", identifier="x"):
            case Success(value=result):
                allowed += result.allowed
            case _:
                raise AssertionError
    assert allowed == BURST.max_tokens
    assert len(storage) == 2


async def test_match_prefers_a_template_and_falls_back_to_the_asterisk() -> None:
    """A request that no template fits belongs to the rule named `*`, where there is one."""
    rule = RateLimitRule(1, 1, "ip")
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a": rule, "*": rule})
    assert limiter.current_rules().match("GET", "/a") == "GET /a"
    assert limiter.current_rules().match("POST", "/a\nb") == "*"
    assert (
        TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a": rule}).current_rules().match("POST", "/a") is None
    )
