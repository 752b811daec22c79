"""The Kubernetes API as types: what a manifest may contain, checked by mypy and absent at run time."""
