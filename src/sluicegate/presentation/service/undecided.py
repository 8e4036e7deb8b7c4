"""What is said where the storage did not decide, and the operator wants callers to know."""


class StorageUnavailableError(Exception):
    """The storage did not decide, and the caller's own policy is wanted."""

    def __init__(self, message: str = "the storage did not decide") -> None:
        super().__init__(message)
