"""The rules of rate limiting: values, arithmetic and ports. Nothing here reads a clock, waits or performs I/O."""
