"""Typed building blocks, each of which knows its Kubernetes resources. Pure: nothing here imports Pulumi."""
