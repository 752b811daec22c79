"""Images that others make: one table, each with its licence. The digest of each is `images.lock.yaml`'s."""

from __future__ import annotations

from voice_policies import ClosedModel


class ThirdPartyImage(ClosedModel):
    """An image that is not ours."""

    reference: str
    """`repository:tag`; the tag names a release that is supported, never a moving one."""
    licence: str
    """SPDX identifier."""


APISIX = ThirdPartyImage(reference="docker.io/apache/apisix:3.18.0-debian", licence="Apache-2.0")
ENVOY = ThirdPartyImage(reference="docker.io/envoyproxy/envoy:distroless-v1.40.0", licence="Apache-2.0")
