"""Reservations, commits and calls in flight: what the limiters share."""
