from __future__ import annotations

import re

from components.images import KNOWN
from stack.model import image_lock
from tests.platforms import ENVIRONMENTS, resources


def test_exactly_the_listed_images_are_deployed() -> None:
    run = {
        reference.partition("@")[0]
        for environment in ENVIRONMENTS
        for reference in image_lock.images(resources(environment))
    }
    others = {reference for reference in run if not reference.startswith("ghcr.io/voicehelper/")}
    assert others == {image.reference for image in KNOWN}


def test_every_image_names_a_release_and_none_comes_from_an_abandoned_project() -> None:
    for image in KNOWN:
        repository, _, tag = image.reference.rpartition(":")
        assert re.search(r"\d+\.\d+", tag)
        assert not re.search("bitnami|minio|ingress-nginx", repository)
