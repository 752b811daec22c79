"""Rendering the platform, beside Helm, cdk8s-plus and Pulumi."""
