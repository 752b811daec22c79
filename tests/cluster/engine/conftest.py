"""The cluster that the engine deploys to, and the project that it deploys."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.cluster import manifests, toolchain
from tests.cluster.build_or_skip import build_or_skip
from tests.cluster.cluster import NodePool
from tests.cluster.engine.site import Site, existing_cluster
from tests.stack.deploy.program_run import offline

PrepareSite = Callable[[str], AbstractContextManager[Site]]
CONTEXT = os.environ.get("ENGINE_CONTEXT") or None
"""A context of the caller's kubeconfig: the tests then deploy to that cluster, and delete what they deployed."""


@pytest.fixture(scope="session")
def prepare_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PrepareSite:
    """A cluster with room for an environment, for a `with` statement: one that is started for it, or the caller's."""
    build_or_skip(request, toolchain.PULUMI)
    build_or_skip(request, toolchain.PULUMI_KUBERNETES)

    @contextmanager
    def prepare(environment: str) -> Iterator[Site]:
        folder = tmp_path_factory.mktemp(environment)
        if CONTEXT:
            with existing_cluster(CONTEXT, folder) as cluster:
                yield Site(cluster, folder)
            return
        objects = [dict(each) for component in offline(environment).components for each in component.resources()]
        with request.getfixturevalue("start_cluster")() as cluster:
            cluster.add_nodes(NodePool.declared(environment))
            cluster.add_volumes(list(manifests.claims(objects)))
            yield Site(cluster, folder)

    return prepare
