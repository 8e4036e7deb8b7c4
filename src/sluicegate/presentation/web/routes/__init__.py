"""Which endpoints a request belongs to."""
