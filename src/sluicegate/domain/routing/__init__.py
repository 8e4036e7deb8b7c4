"""Matching requests to endpoints."""
