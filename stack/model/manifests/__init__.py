"""A platform as its Kubernetes manifests describe it: workloads, the Services that the workloads name, and policies."""
