"""The names of our gRPC methods: those of the catalogue, in the spelling that proto files use."""

from __future__ import annotations

GRPC_PACKAGE = "voiceassistant.v1"
"""The proto package of every service of ours."""


def grpc_service(service: str) -> str:
    """Full name of a service's gRPC service: `rag-engine` is `voiceassistant.v1.RagEngine`."""
    return f"{GRPC_PACKAGE}.{_upper_camel(service)}"


def grpc_method(operation: str) -> str:
    """Name of an operation's gRPC method: `import-documents` is `ImportDocuments`."""
    return _upper_camel(operation)


def _upper_camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
