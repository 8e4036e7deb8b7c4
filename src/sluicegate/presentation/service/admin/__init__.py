"""The admin API: what operators may see and change while the service runs."""
