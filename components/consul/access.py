"""The secret of Consul's servers."""

from __future__ import annotations

from components.secret_keys import SecretKeys

SECRET = SecretKeys(name="consul-server", keys=("gossip-key", "management-token", "registration-token"))
"""`consul keygen` makes the gossip key. Tokens are UUIDs. The first token is the management token of the servers and of
the operator, who creates lesser tokens with it. The second token may only register the declared services."""
