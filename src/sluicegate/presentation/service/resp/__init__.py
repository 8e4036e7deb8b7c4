"""The Redis protocol: `CL.THROTTLE`, as redis-cell has it, for Redis clients of any language."""
