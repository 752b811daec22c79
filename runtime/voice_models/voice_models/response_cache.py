"""An exact cache of complete answers. The key covers route, endpoint, body, and every part of the scope."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from voice_policies import ResponseCache as Policy
from voice_runtime import Caller, Runtime, SharedStore
from voice_runtime.shared_store import Script

from voice_models.request import ModelRequest

RESPONSE_CACHE = Script(Path(__file__).with_name("response_cache.lua"))
LONGEST_ANSWER = 256 * 1024
"""Size in bytes of the longest answer that is cached."""


class CachedAnswer(NamedTuple):
    """A complete answer."""

    content_type: str
    content: bytes


class ResponseCache:
    """The cached answers of one service. While the store is unreachable, the cache behaves as if it were empty."""

    def __init__(self, runtime: Runtime, stores: Mapping[str, SharedStore]) -> None:
        self._runtime = runtime
        self._stores = stores

    def key(self, policy: Policy, route: str, model: str, caller: Caller, request: ModelRequest) -> str:
        """The key of a request. Requests that differ in a part of the scope have different keys."""
        parts = {
            "tenant": caller.tenant,
            "user": caller.user,
            "model": model,
            "prompt_version": request.prompt_version,
        }
        scope = {part: parts[part] for part in policy.scope}
        exact = json.dumps([scope, route, request.endpoint, request.body], sort_keys=True).encode()
        service = self._runtime.bundle.metadata.service
        return f"{service}:model-answer:{hashlib.blake2b(exact, digest_size=32).hexdigest()}"

    async def get(self, policy: Policy, key: str) -> CachedAnswer | None:
        """The cached answer to an equal request. `None` if no such answer is cached."""
        kept: bytes | None = await self._run(policy, key)
        if kept is None:
            return None
        content_type, _, content = kept.partition(b"\n")
        return CachedAnswer(content_type.decode(), content)

    async def put(self, policy: Policy, key: str, answer: CachedAnswer) -> None:
        """Cache a complete answer for `max_age`. An answer longer than `LONGEST_ANSWER` is not cached."""
        if len(answer.content) <= LONGEST_ANSWER:
            kept = answer.content_type.encode() + b"\n" + answer.content
            await self._run(policy, key, round(policy.max_age.seconds * 1000), kept)

    async def _run(self, policy: Policy, key: str, *arguments: int | bytes) -> bytes | None:
        store = self._stores.get(policy.store)
        if store is None:
            return None
        call = self._runtime.outbound(policy.store).unrepeated()
        try:
            answer: bytes | None = await call.call(store.run, RESPONSE_CACHE, (key,), *arguments)
        except Exception:  # noqa: BLE001  # an open breaker, a timeout or an error: the store is unreachable
            return None
        return answer
