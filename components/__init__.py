"""Typed building blocks. Each one yields its Kubernetes resources. Nothing here imports Pulumi."""
