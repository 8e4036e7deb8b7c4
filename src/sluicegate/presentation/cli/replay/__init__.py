"""`sluicegate replay`: what rules would have done to an access log."""
