"""`sluicegate demo`: a small web site, and good and bad clients."""
