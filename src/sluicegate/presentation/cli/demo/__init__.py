"""`sluicegate demo`: a small site, good and bad clients."""
