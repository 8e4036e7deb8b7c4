"""The live page: what a limiter does at this moment, for people with a browser."""
