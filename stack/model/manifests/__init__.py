"""A platform as its Kubernetes manifests tell it: workloads, who names whom, and the policies that stand in files."""
