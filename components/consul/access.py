"""The secret of Consul's servers."""

from __future__ import annotations

from components.secret_keys import SecretKeys

SECRET = SecretKeys(name="consul-server", keys=("gossip-key", "management-token", "registration-token"))
"""`consul keygen` makes the key. Tokens are UUIDs. The first is the servers' own, and the operator's, who makes lesser
ones; with the second the servers register the declared services, and nothing else can be done with it."""
