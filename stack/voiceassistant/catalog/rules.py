"""Calls that the catalogue forbids."""

from __future__ import annotations

ONLY_CALLERS = {
    "llm": "model-adapter",
    "vector-store": "vector-store-adapter",
    "speech": "voice-engine",
    "voice-engine": "gateway",
}
"""Callee → its only permitted caller."""

FORBIDDEN = frozenset({("indexing-service", "rag-engine")})
"""Pairs of caller and callee: the caller must never call the callee."""
