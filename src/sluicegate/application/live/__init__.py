"""What a limiter does at this moment, for people who watch it."""
