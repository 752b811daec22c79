"""The images that are not ours: floor versions, each with its licence. Digests are `images.lock.yaml`'s."""

from __future__ import annotations

from voice_policies import ClosedModel


class ThirdPartyImage(ClosedModel):
    """An image that we run and do not build."""

    reference: str
    """`repository:tag`."""
    licence: str
    """SPDX identifier."""
    note: str
    """What it runs as, and what else its licence's reader should know."""


POSTGRESQL = ThirdPartyImage(reference="postgres:18.6", licence="PostgreSQL", note="dev, and the restore of its dumps")
POSTGRESQL_OPERAND = ThirdPartyImage(
    reference="ghcr.io/cloudnative-pg/postgresql:18.6-system-trixie",
    licence="PostgreSQL",
    note="run by the operator CloudNativePG 1.30 (Apache-2.0)",
)
CONSUL = ThirdPartyImage(reference="hashicorp/consul:2.0.3", licence="BUSL-1.1", note="catalogue and KV store")
HAPROXY = ThirdPartyImage(reference="haproxy:3.2", licence="GPL-2.0-or-later", note="finds the cache's primary")
VALKEY = ThirdPartyImage(reference="valkey/valkey:9.1.1", licence="BSD-3-Clause", note="speaks Redis' protocol")
APISIX = ThirdPartyImage(reference="apache/apisix:3.18.0-debian", licence="Apache-2.0", note="the gateway")
ENVOY = ThirdPartyImage(
    reference="envoyproxy/envoy:distroless-v1.40.0", licence="Apache-2.0", note="the egress proxies"
)

KNOWN = tuple(image for image in vars().values() if isinstance(image, ThirdPartyImage))
"""All of them."""
