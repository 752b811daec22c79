"""Routes a service's model calls over providers, below the providers' own SDKs."""

__all__: list[str] = []
