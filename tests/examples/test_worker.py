"""The worker sends everything, and drops what is urgent and would be late."""

import subprocess
import sys

import pytest

from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter
from support.examples import APPS, load_example


def test_it_sends_all_messages() -> None:
    """Run as its first lines say: ten messages, each once, and then the urgent one."""
    run = subprocess.run([sys.executable, APPS / "worker.py"], capture_output=True, text=True, check=True)
    *sent, urgent = run.stdout.splitlines()
    assert sorted(sent) == [f"sent message {number}" for number in range(10)]
    assert "urgent" in urgent


async def test_what_is_urgent_is_sent_now_or_never(capsys: pytest.CaptureFixture[str]) -> None:
    """With a token it is sent, without one it is dropped at once."""
    worker = load_example("worker.py")
    rule = RateLimitRule.per_day(1, scope="global")
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={worker.ENDPOINT: rule})
    await worker.send_urgent(limiter, "one")
    await worker.send_urgent(limiter, "two")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "sent one"
    assert second.startswith("dropped two, which could be sent in 86")
