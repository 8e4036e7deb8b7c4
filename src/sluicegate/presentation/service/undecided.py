"""The error that callers get in place of the failure policy's answer, with `--storage-errors error`."""


class StorageUnavailableError(Exception):
    """The storage did not decide, and the caller's own policy is wanted."""

    def __init__(self, message: str = "the storage did not decide") -> None:
        super().__init__(message)
