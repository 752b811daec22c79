"""Istio's resources. They contain the policies that the mesh enforces."""
