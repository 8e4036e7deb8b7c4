"""The Envoy rate limit protocol (RLS) over gRPC."""
