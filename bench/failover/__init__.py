"""How long the replicated cache takes no writes while its primary is replaced."""
