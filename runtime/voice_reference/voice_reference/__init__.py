"""A service that needs only a policy bundle. With it the platform runs before the real images exist."""
