"""What the matrix counts on all servers together, for the table at its end; by application."""

from collections import Counter

SERVED: Counter[str] = Counter()
COUNTED_TOO_MUCH: Counter[str] = Counter()
