"""The names of our gRPC services and methods: the catalogue's names in the spelling of proto files."""

from __future__ import annotations

GRPC_PACKAGE = "voiceassistant.v1"
"""The proto package of all our services."""


def grpc_service(service: str) -> str:
    """Full name of a service's gRPC service: `rag-engine` is `voiceassistant.v1.RagEngine`."""
    return f"{GRPC_PACKAGE}.{_upper_camel(service)}"


def grpc_method(operation: str) -> str:
    """Name of an operation's gRPC method: `import-documents` is `ImportDocuments`."""
    return _upper_camel(operation)


def _upper_camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
