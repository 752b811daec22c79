"""The Pulumi shell: configuration, preconditions, registration."""
