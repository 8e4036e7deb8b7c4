"""Buckets: their keys, their arithmetic, and the table that keeps them."""
