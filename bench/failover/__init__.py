"""The time without writes while the replicated cache replaces its primary."""
