"""Istio's resources: the policies that the mesh enforces, derived from the same calls as everything else."""
