"""The driving adapters: HTTP, command line, replay. They see the limiter's port and the container."""
