"""What is borrowed, when it is spent, and what becomes of it: never more than was lent, never after its end."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.redis.calls import LENT_US, Loan
from sluicegate.infrastructure.redis.lease import PERIOD_US, SPENT_US, LeaseRequest
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.testing import FakeClock
from support.bucket_requests import bucket_request

RULE = RateLimitRule(10_000, 60_000, "global")
TOKEN = RULE.spec.units_per_token
OWNER = object()


def request(cost: int = 1, *, lease: int = 1000, key: str = "k", rule: RateLimitRule = RULE) -> BucketRequest:
    """Ask a bucket that lends for tokens."""
    return bucket_request(rule, key, cost=cost, lease=lease)


class Desk:
    """A table, its clock, and a server that lends whatever is asked for."""

    def __init__(self, *, max_leases: int = 100) -> None:
        self.clock = FakeClock()
        self.table = LeaseTable(clock=self.clock, max_leases=max_leases)
        self.level = 5000

    def settle(self, lease_request: LeaseRequest, tokens: int | None = None) -> None:
        """Answer a request; with so many tokens, or as many as it wants."""
        units = lease_request.terms.wanted if tokens is None else tokens * TOKEN
        left = BucketLevel(self.level * TOKEN, 0)
        self.table.settle(lease_request, Loan(Verdict(True, (left,)), units))

    def ask(self, one: BucketRequest | None = None) -> LeaseRequest | None:
        """Ask for a token until the table wants to borrow; it must not pay meanwhile."""
        for _ in range(20):
            bucket_level, lease_request = self.table.pay(one or request(), OWNER)
            assert bucket_level is None
            if lease_request is not None:
                return lease_request
        return None

    def borrow(self, tokens: int = 20) -> LeaseRequest:
        """Have so many tokens, lent just now."""
        lease_request = self.ask()
        assert lease_request is not None
        self.settle(lease_request, tokens)
        return lease_request

    def due(self, owner: object, *, closing: bool = False) -> list[LeaseRequest]:
        """Return what the server must be told of all buckets."""
        return self.table.due_requests(owner, self.table.active_keys(), closing=closing)

    @property
    def held(self) -> float:
        """The tokens of the bucket that are held."""
        return self.table.held.get("k", 0.0)

    def spend(self) -> bool:
        """Spend a token without asking for a renewal."""
        return self.table.spend(request(), to_the_end=False) is not None


@pytest.fixture
def desk() -> Desk:
    """Return an empty table."""
    return Desk()


def test_a_bucket_that_is_asked_for_now_and_then_is_not_borrowed_of(desk: Desk) -> None:
    """Seven checks at once, or twelve in a second, are decided by the server."""
    for _ in range(7):
        assert desk.table.pay(request(), OWNER) == (None, None)
    desk.clock.advance(1)
    for _ in range(100):
        desk.clock.advance(1 / 12)
        assert desk.table.pay(request(), OWNER) == (None, None)


def test_a_hot_bucket_is_borrowed_of_and_more_so_while_it_stays_hot(desk: Desk) -> None:
    """The first loan is small, each at most eight times the one before, and as much as half a second takes at this pace."""
    wanted: list[int] = []
    for _ in range(60):
        desk.clock.advance(0.001)
        bucket_level, lease_request = desk.table.pay(request(), OWNER)
        if lease_request is not None:
            assert lease_request.terms.wanted % TOKEN == 0
            wanted.append(lease_request.terms.wanted // TOKEN)
            desk.settle(lease_request)
        elif bucket_level is None:
            assert wanted == []
    assert wanted[0] == 8
    assert wanted[1] == 64
    for _ in range(2000):
        desk.clock.advance(0.001_013)
        _, lease_request = desk.table.pay(request(), OWNER)
        if lease_request is not None:
            assert lease_request.terms.wanted % TOKEN == 0
            wanted.append(lease_request.terms.wanted // TOKEN)
            desk.settle(lease_request)
    assert 450 <= wanted[-1] <= 510


@pytest.mark.parametrize("size", [1, 3, 50])
def test_no_more_is_wanted_than_the_rule_has_it(desk: Desk, size: int) -> None:
    """A lease of so many tokens is a bound, however hot the bucket is."""
    for _ in range(2000):
        _, lease_request = desk.table.pay(request(lease=size), OWNER)
        if lease_request is not None:
            assert 0 < lease_request.terms.wanted <= size * TOKEN
            desk.settle(lease_request)
    assert desk.table.borrowed > 0


def test_what_is_lent_is_spent_and_no_more(desk: Desk) -> None:
    """Twenty tokens pay for twenty checks, whether or not a check may ask for a renewal."""
    desk.borrow(20)
    paid = 0
    for _ in range(30):
        if desk.spend() or desk.table.pay(request(), OWNER)[0] is not None:
            paid += 1
    assert paid == 20
    assert desk.table.spent == 20


def test_a_loan_is_renewed_before_it_is_spent(desk: Desk) -> None:
    """Half-way the server is asked for more, once; what is left is kept and goes on being spent."""
    desk.borrow(20)
    lease_requests = []
    for _ in range(20):
        desk.clock.advance(0.001)
        bucket_level, lease_request = desk.table.pay(request(), OWNER)
        assert bucket_level is not None
        lease_requests += [lease_request] if lease_request else []
    assert [(one.terms.returned, one.terms.kept // TOKEN) for one in lease_requests] == [(0, 9)]
    assert lease_requests[0].request.cost_units == 0
    desk.settle(lease_requests[0], 30)
    assert desk.held == 30


def test_while_a_loan_is_renewed_the_rest_is_spent(desk: Desk) -> None:
    """Only one check asks for the renewal; the others are paid meanwhile."""
    desk.borrow(20)
    assert sum(desk.spend() for _ in range(20)) == 10
    assert desk.table.pay(request(), OWNER)[1] is not None
    assert sum(desk.spend() for _ in range(20)) == 9


def test_a_loan_that_is_being_renewed_is_not_renewed_again(desk: Desk) -> None:
    """Whether a check asked for it first, or the look for loans that are about to end."""
    desk.borrow(200)
    desk.clock.advance(1.1)
    assert sum(desk.spend() for _ in range(200)) == 100
    (renewal,) = desk.due(OWNER)
    assert renewal.terms.kept == 100 * TOKEN
    assert [desk.table.pay(request(), OWNER)[1] for _ in range(10)] == [None] * 10


def test_too_little_for_a_check_goes_back_with_the_next_request(desk: Desk) -> None:
    """A check that costs more than what is left is paid by the server, out of that as well."""
    desk.borrow(20)
    bucket_level, lease_request = desk.table.pay(request(25), OWNER)
    assert bucket_level is None
    assert lease_request is not None
    assert (lease_request.terms.returned, lease_request.terms.kept) == (20 * TOKEN, 0)
    assert desk.held == 0
    desk.settle(lease_request, 5)
    assert desk.held == 5
    assert desk.table.returned == 20


def test_a_loan_ends_two_seconds_after_it_was_asked_for(desk: Desk) -> None:
    """It counts from the question, whenever the answer came and whatever the server's clock says."""
    lease_request = desk.ask()
    assert lease_request is not None
    desk.clock.advance(1.5)
    desk.settle(lease_request, 20)
    assert desk.spend()
    desk.clock.advance(0.499_999)
    assert desk.spend()
    desk.clock.advance(0.000_001)
    assert not desk.spend()
    assert desk.held == 0
    assert desk.table.pay(request(), OWNER)[0] is None
    assert desk.table.lost == 18
    assert SPENT_US + 500_000 == LENT_US


def test_an_answer_that_comes_after_the_end_is_worth_nothing(desk: Desk) -> None:
    """A process that was stopped in between spends nothing of it."""
    lease_request = desk.ask()
    assert lease_request is not None
    desk.clock.advance(2)
    desk.settle(lease_request, 20)
    assert not desk.spend()
    assert desk.table.pay(request(), OWNER)[0] is None


def test_after_a_lost_answer_the_rest_is_spent_but_not_reported(desk: Desk) -> None:
    """What is in doubt at the server is left to end there; the next loan is another one."""
    first = desk.borrow(20)
    for _ in range(11):
        desk.clock.advance(0.001)
        _, lease_request = desk.table.pay(request(), OWNER)
    assert lease_request is not None
    desk.table.give_up(lease_request)
    assert desk.held == 9
    desk.clock.advance(0.6)
    assert desk.due(OWNER) == desk.due(OWNER) == []
    assert sum(desk.spend() for _ in range(20)) == 9
    second = desk.ask()
    assert second is not None
    assert (second.terms.returned, second.terms.kept) == (0, 0)
    assert second.terms.lease_id != first.terms.lease_id
    desk.settle(lease_request, 50)
    assert desk.held == 0
    desk.settle(second, 5)
    assert desk.held == 5


def test_what_is_left_of_a_loan_in_doubt_does_not_go_back(desk: Desk) -> None:
    """If it is too little for a check, it is given up."""
    desk.borrow(20)
    for _ in range(11):
        _, lease_request = desk.table.pay(request(), OWNER)
    assert lease_request is not None
    desk.table.give_up(lease_request)
    assert desk.table.pay(request(20), OWNER) == (None, None)
    assert (desk.held, desk.table.lost) == (0, 9)


def test_what_was_returned_in_a_lost_request_is_lost(desk: Desk) -> None:
    """It may be in the bucket again, or not: it must not be spent here."""
    first = desk.borrow(20)
    _, lease_request = desk.table.pay(request(25), OWNER)
    assert lease_request is not None
    desk.table.give_up(lease_request)
    assert desk.held == 0
    assert desk.table.lost == 20
    second = desk.ask()
    assert second is not None
    assert second.terms.lease_id != first.terms.lease_id


def test_a_request_that_was_not_sent_changes_nothing(desk: Desk) -> None:
    """With the breaker open nothing leaves this process, and the tokens stay."""
    desk.borrow(20)
    _, lease_request = desk.table.pay(request(25), OWNER)
    assert lease_request is not None
    desk.table.unsent(lease_request)
    assert desk.held == 20
    assert desk.spend()


def test_only_one_request_is_under_way(desk: Desk) -> None:
    """Checks that arrive meanwhile are decided by the server one by one."""
    lease_request = desk.ask()
    assert lease_request is not None
    for _ in range(30):
        assert desk.table.pay(request(), OWNER) == (None, None)
    desk.settle(lease_request)
    assert desk.held == 8


def test_a_request_whose_answer_never_came_is_given_up(desk: Desk) -> None:
    """An event loop that ended under way does not keep others from borrowing."""
    assert desk.ask() is not None
    desk.clock.advance(2.1)
    assert desk.ask() is not None


def test_an_idle_loan_goes_back(desk: Desk) -> None:
    """Half a second without a check is enough."""
    desk.borrow(20)
    assert desk.spend()
    assert desk.due(OWNER) == []
    assert desk.due(object()) == []
    (lease_request,) = desk.due(OWNER)
    assert (lease_request.terms.returned, lease_request.terms.kept, lease_request.terms.wanted) == (19 * TOKEN, 0, 0)
    assert desk.held == 0
    assert desk.table.owns_any(OWNER)
    desk.settle(lease_request, 0)
    assert not desk.table.owns_any(OWNER)
    assert desk.table.returned == 19


def test_after_a_pause_the_first_loan_is_as_the_last_one_was(desk: Desk) -> None:
    """What was learned of a bucket is not forgotten with the loan."""
    desk.borrow(20)
    for _ in range(400):
        desk.clock.advance(0.000_5)
        _, lease_request = desk.table.pay(request(), OWNER)
        if lease_request is not None:
            last = lease_request.terms.wanted
            desk.settle(lease_request)
    assert last > 500 * TOKEN
    desk.due(OWNER)
    (back,) = desk.due(OWNER)
    desk.settle(back, 0)
    for pause_s in (60, 1.5):
        desk.clock.advance(pause_s)
        lease_request = desk.ask()
        assert lease_request is not None
        assert lease_request.terms.wanted in {last, last // 8 * 8}
        desk.settle(lease_request)
        assert desk.due(OWNER) == []
        (back,) = desk.due(OWNER)
        desk.settle(back, 0)


def test_what_is_spent_slowly_does_not_end(desk: Desk) -> None:
    """A loan that is in use is renewed before it ends, without asking for more."""
    desk.borrow(200)
    for _ in range(20):
        desk.clock.advance(PERIOD_US / 1e6)
        assert desk.spend()
        for lease_request in desk.due(OWNER):
            assert lease_request.terms.returned == lease_request.terms.wanted == 0
            desk.settle(lease_request, 0)
    assert desk.held == 180


def test_closing_returns_everything(desk: Desk) -> None:
    """Also what was spent of a moment ago."""
    desk.borrow(20)
    desk.spend()
    (lease_request,) = desk.due(OWNER, closing=True)
    assert lease_request.terms.returned == 19 * TOKEN


def test_what_a_closed_owner_could_not_return_is_struck_out(desk: Desk) -> None:
    """Nothing is spent of it any more."""
    desk.borrow(20)
    desk.table.end(object())
    assert desk.spend()
    desk.table.end(OWNER)
    assert not desk.spend()
    assert desk.table.lost == 19


def test_a_denied_check_is_paid_from_a_loan_that_is_being_renewed(desk: Desk) -> None:
    """What came meanwhile counts, however little is left of it."""
    desk.borrow(20)
    while desk.spend():
        pass
    assert desk.held == 10
    assert desk.table.spend(request(3), to_the_end=True) == Verdict(True, (BucketLevel(5007 * TOKEN, 0),))
    assert desk.table.spend(request(8), to_the_end=True) is None
    assert desk.table.spend(request(key="another"), to_the_end=True) is None
    assert desk.held == 7
    desk.clock.advance(2)
    assert desk.table.spend(request(), to_the_end=True) is None


def test_what_was_lent_under_another_rule_goes_back(desk: Desk) -> None:
    """It is of no use any more, and the bucket is the same one."""
    lease_request = desk.borrow(20)
    changed = request(rule=RateLimitRule(9_999, 60_000, "global"))
    assert desk.table.give_back(request(), OWNER, if_of_another_rule=True) is None
    assert desk.table.observe(changed, BucketLevel(0, 0)) == 20 * changed.spec.units_per_token
    assert desk.table.spend(changed, to_the_end=True) is None
    back = desk.table.give_back(changed, OWNER, if_of_another_rule=True)
    assert back is not None
    assert back.request == BucketRequest("k", RULE.spec, 0)
    assert (back.terms.lease_id, back.terms.returned) == (lease_request.terms.lease_id, 20 * TOKEN)
    assert desk.table.pay(changed, OWNER) == (None, None)
    assert desk.table.lost == 0


def test_a_changed_rule_ends_a_loan(desk: Desk) -> None:
    """Tokens of the old rule pay for nothing under the new one."""
    desk.borrow(20)
    changed = request(rule=RateLimitRule(9_999, 60_000, "global"))
    assert desk.table.spend(changed, to_the_end=True) is None
    assert desk.table.pay(changed, OWNER) == (None, None)
    assert desk.held == 0
    assert desk.table.lost == 20


def test_what_remains_counts_the_loan_and_the_bucket_as_last_seen(desk: Desk) -> None:
    """A client sees tokens that are there; how they come back shows when the server is asked."""
    desk.level = 100
    desk.borrow(20)
    desk.clock.advance(0.005)
    assert desk.table.pay(request(), OWNER)[0] == BucketLevel(105 * TOKEN, 0)
    assert desk.table.observe(request(), BucketLevel(50 * TOKEN, 0)) == 19 * TOKEN
    assert desk.table.observe(request(key="another"), BucketLevel(50 * TOKEN, 0)) == 0


def test_the_table_is_bounded(desk: Desk) -> None:
    """Beyond so many buckets the oldest one without a loan is dropped; a hot bucket stays."""
    desk = Desk(max_leases=10)
    desk.borrow(20)
    for number in range(30):
        desk.table.pay(request(key=f"k{number}"), OWNER)
    assert len(desk.table) == 10
    assert desk.held == 20


def test_the_memory_of_the_table_is_bounded() -> None:
    """Long keys count."""
    table = LeaseTable(clock=FakeClock(), max_bytes=100_000)
    for number in range(200):
        table.pay(request(key=f"{number}" + "x" * 1_000), OWNER)
    assert 50 <= len(table) <= 100


def test_a_table_that_is_full_of_loans_drops_the_oldest() -> None:
    """There is no bucket without a loan to drop instead; what is left of the loan counts as lost."""
    desk = Desk(max_leases=2)
    for key in ("a", "b", "c"):
        question = desk.ask(request(key=key))
        assert question is not None
        desk.settle(question, 20)
    assert len(desk.table) == 2
    assert desk.table.lost == 20
    assert sum(desk.table.held.values()) == 40


def test_what_is_due_is_looked_at_in_pages(desk: Desk) -> None:
    """Only the buckets that are named are looked at, so a look at ten thousand loans can be divided."""
    for key in ("a", "b", "c"):
        question = desk.ask(request(key=key))
        assert question is not None
        desk.settle(question, 20)
    keys = desk.table.active_keys()
    assert sorted(keys) == ["a", "b", "c"]
    for page in (["a"], ["b", "c"]):
        assert desk.table.due_requests(OWNER, page) == []
        assert sorted(one.request.key for one in desk.table.due_requests(OWNER, page)) == page


def test_threads_spend_no_more_than_was_lent(desk: Desk) -> None:
    """Eight threads and a loan of 10,000 tokens: exactly these are spent."""
    desk.borrow(10_000)

    def work(_: int) -> int:
        paid = 0
        for _ in range(4_000):
            paid += desk.spend() or desk.table.pay(request(), OWNER)[0] is not None
        return paid

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 10_000


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_has_nothing(desk: Desk) -> None:
    """Parent and child must not both spend a loan; the parent goes on."""
    desk.borrow(20)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"%d %d" % (desk.spend(), len(desk.table)))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"0 0"
    os.close(read)
    os.close(write)
    assert desk.spend()
    assert desk.held == 19
