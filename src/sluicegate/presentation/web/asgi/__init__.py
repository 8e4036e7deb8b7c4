"""ASGI: the middleware, and FastAPI's dependencies."""
