"""Service mode: a limiter for proxies and for programs in any language, over the network."""
