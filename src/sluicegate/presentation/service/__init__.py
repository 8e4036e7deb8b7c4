"""Service mode: a limiter that proxies, and programs in any language, can ask over the network."""
