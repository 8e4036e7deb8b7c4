"""HTTP: checks in JSON, and the questions that proxies ask about requests."""
