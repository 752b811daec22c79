"""Images that others make: each names a release, and the document tells its licence."""

from __future__ import annotations

import re

from components import images
from components.images import ThirdPartyImage
from stack.settings import ROOT

KNOWN = [image for image in vars(images).values() if isinstance(image, ThirdPartyImage)]


def test_the_document_lists_every_image_with_its_licence() -> None:
    rows = re.findall(r"^\| `([^`]+:[^`]+)` \| (\S+) \|$", (ROOT / "docs" / "edges.md").read_text(), re.MULTILINE)
    assert rows == [(image.reference, image.licence) for image in KNOWN]


def test_no_image_moves_or_comes_from_an_abandoned_catalogue() -> None:
    for image in KNOWN:
        repository, _, tag = image.reference.rpartition(":")
        assert re.search(r"\d+\.\d+\.\d+", tag)
        assert not re.search("bitnami|minio|ingress-nginx", repository)
