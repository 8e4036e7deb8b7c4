"""`sluicegate replay --suggest`: limits that the traffic of a log would have kept."""
