"""A service that starts from a bundle alone: the platform seen alive before its real images exist."""
