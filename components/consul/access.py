"""The secret of Consul's servers."""

from __future__ import annotations

from components.secret_keys import UUID, SecretForm, SecretKeys

SECRET = SecretKeys(
    name="consul-server",
    keys=("gossip-key", "management-token", "registration-token"),
    forms={
        "gossip-key": SecretForm(kind="gossip-key", meaning="32 random bytes in base64, as `consul keygen` makes them"),
        "management-token": UUID,
        "registration-token": UUID,
    },
)
"""`management-token` is for the servers and for a person who creates tokens with fewer rights. `registration-token` may
only register the declared services."""
