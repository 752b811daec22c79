"""A service that needs only a policy bundle. It stands in for every service whose own image does not exist yet."""
