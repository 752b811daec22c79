"""The Pulumi program: configuration, preconditions, registration."""
