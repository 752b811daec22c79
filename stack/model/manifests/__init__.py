"""A platform as its Kubernetes manifests describe it: workloads, the Services that they name, and policies."""
