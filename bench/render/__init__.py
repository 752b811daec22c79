"""Rendering the platform, compared with Helm, cdk8s-plus and Pulumi."""
