"""The secret of Consul's servers."""

from __future__ import annotations

from components.secret_keys import SecretKeys

SECRET = SecretKeys(name="consul-server", keys=("gossip-key", "management-token"))
"""`consul keygen` makes the key. The token is a UUID: the servers' own, and the operator's, who makes lesser ones."""
