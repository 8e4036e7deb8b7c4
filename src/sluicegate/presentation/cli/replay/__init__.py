"""`sluicegate replay`: try rules on the requests of an access log."""
