import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.cluster import manifests, toolchain
from tests.cluster.build_or_skip import build_or_skip
from tests.cluster.cluster import NodePool
from tests.cluster.engine.site import Site, existing_cluster, refuse_taken, resources
from tests.cluster.engine.subjects import Subject

PrepareSite = Callable[[Subject, str], AbstractContextManager[Site]]
CONTEXT = os.environ.get("ENGINE_CONTEXT") or None
"""A context of the caller's kubeconfig. If it is set, the tests deploy to that cluster, and clean up at their end."""


@pytest.fixture(scope="session")
def prepare_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PrepareSite:
    build_or_skip(request, toolchain.PULUMI)
    build_or_skip(request, toolchain.PULUMI_KUBERNETES)

    @contextmanager
    def prepare(subject: Subject, environment: str) -> Iterator[Site]:
        folder = tmp_path_factory.mktemp(environment)
        if CONTEXT:
            with existing_cluster(CONTEXT, folder) as cluster:
                site = Site(cluster, folder, subject, environment)
                refuse_taken(cluster, site.platform)
                yield site
            return
        with request.getfixturevalue("start_cluster")() as cluster:
            site = Site(cluster, folder, subject, environment)
            cluster.add_nodes(NodePool.of(site.platform.environment.settings))
            cluster.add_volumes(list(manifests.claims(resources(site.platform))))
            yield site

    return prepare
