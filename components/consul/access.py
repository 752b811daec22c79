"""The secrets of Consul's servers, and of the program that reads their metrics."""

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
"""`management-token` has every right. The servers, the snapshot jobs and `permit_script` use it. A person also needs
it, to create tokens with fewer rights. `registration-token` may only register the declared services."""
METRICS = SecretKeys(name="consul-metrics", keys=("token",), forms={"token": UUID})
"""The token of Prometheus. It may read the servers' agents and nothing else."""
