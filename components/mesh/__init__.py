"""Components of the service mesh: what Istio enforces, from the same calls and policies as everything else."""
