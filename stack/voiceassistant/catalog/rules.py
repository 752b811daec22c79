"""Calls that are forbidden by rule for every caller."""

from __future__ import annotations

ONLY_CALLERS = {
    "llm-providers": "model-adapter",
    "vector-store": "vector-store-adapter",
    "speech-providers": "voice-engine",
    "voice-engine": "gateway",
}
"""Callee → the one caller it may have."""

FORBIDDEN = frozenset({("indexing-service", "rag-engine")})
"""Pairs of caller and callee that may never talk."""
