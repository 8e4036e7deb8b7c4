"""What is raised where a denial is no value: by decorated functions and by context managers."""

from sluicegate.application.check import Decision


class RateLimitedError(Exception):
    """A call was denied, and did not run.

    Args:
        name: What was limited.
        decision: What the limiter decided.
    """

    def __init__(self, name: str, decision: Decision) -> None:
        super().__init__(f"{name}: rate limited, {decision.result.retry_after:g} seconds to wait")
        self.name = name
        self.decision = decision

    def __reduce__(self) -> tuple[type["RateLimitedError"], tuple[str, Decision]]:
        return RateLimitedError, (self.name, self.decision)

    @property
    def retry_after(self) -> float:
        """Seconds until the same call would pass; `math.inf`: never."""
        return self.decision.result.retry_after
