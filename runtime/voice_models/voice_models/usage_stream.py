"""Usage events as messages of the stream `model.attempted`. `Models.usage` names the call that appends them.

If the store does not accept an event, the runtime drops the event and counts it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from voice_runtime import Runtime, SharedStore
from voice_runtime.shared_store import Script

from voice_models.usage import ModelAttempted

USAGE_STREAM = Script(Path(__file__).with_name("usage_stream.lua"))
STREAM = "model.attempted"
MAX_LENGTH = 1_000_000
"""The store trims the stream to this number of events: about 380 MB. At the declared 1,170 calls/s the stream
holds the events of 14 minutes.

The store trims whole blocks only (`MAXLEN ~`), so a full stream has a few events more."""


async def append(runtime: Runtime, store: SharedStore, call: str, event: ModelAttempted) -> None:
    """Append one event. Raises the errors of the store and of the call's policies."""
    payload = json.dumps(asdict(event))
    await (
        runtime.outbound(call)
        .unrepeated()
        .call(store.run, USAGE_STREAM, (STREAM,), MAX_LENGTH, uuid.uuid4().hex, payload)
    )


def store_of_usage(runtime: Runtime, stores: Mapping[str, SharedStore]) -> tuple[str, SharedStore] | None:
    """The call and the store of usage events.

    `None` if the bundle names no call, or if no store is connected for it.
    """
    models = runtime.bundle.models
    if models is None or models.usage is None or models.usage not in stores:
        return None
    return models.usage, stores[models.usage]
