"""Configurations of `envoyproxy/ratelimit`, read as they are."""
