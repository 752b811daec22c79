"""Types of the Kubernetes API. mypy checks manifests against them; nothing imports them at run time."""
