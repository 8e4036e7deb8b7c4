"""The formats of access logs: one reader a format, each of which turns a line into a request."""
