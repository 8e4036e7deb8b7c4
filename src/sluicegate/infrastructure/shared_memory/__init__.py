"""Buckets in a file that all processes of one host map into memory."""
