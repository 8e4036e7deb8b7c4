"""Units of a bucket that belong to somebody until an instant."""
