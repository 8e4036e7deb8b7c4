"""Keeping to the limits of other people's services: what their answers say, and how calls follow it."""
