"""The time in which the replicated cache accepts no writes while it replaces its primary."""
