"""HTTP: middlewares and integrations for web frameworks."""
