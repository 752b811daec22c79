"""A service that needs nothing but a bundle, so that the platform runs before its real images exist."""
