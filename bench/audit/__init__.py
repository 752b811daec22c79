"""The time that the audit takes on a large platform and on prod."""
