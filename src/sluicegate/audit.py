"""The audit log: who was denied, what passed because the storage failed, and what operators did."""

from sluicegate.infrastructure.audit_log import AuditLog

__all__ = ["AuditLog"]
