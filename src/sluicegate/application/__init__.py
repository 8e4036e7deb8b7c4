"""The use cases: check, peek, reset and refund. Imports the domain and what Python itself gives, nothing else."""
