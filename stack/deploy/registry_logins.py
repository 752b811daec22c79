"""The logins of container registries, as `docker login` keeps them in `config.json`.

Either the file holds a login itself, encoded, or a credential helper of the system knows the login.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from voice_policies import Fault, InvalidInputError

__all__ = ["read_logins"]

Logins = Callable[[str], str | None]
"""Host of a registry → `user:password` in base64; `None` without a login."""
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
DOCKER_HUB_HOST = "registry-1.docker.io"
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
HELPER_SECONDS = 30
"""Seconds to wait for a credential helper, which may ask a keychain."""


def read_logins() -> Logins:
    """The logins of the user's `config.json`, in `DOCKER_CONFIG` or `~/.docker`. Without the file there is no login.

    Raises `InvalidInputError` for a file that cannot be read or is not a JSON object.
    """
    # Unlike `Path.home`, `expanduser` does not fail for a user without a home.
    path = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")) / "config.json"  # noqa: PTH111 - see above
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return lambda _: None
    except (OSError, RecursionError, ValueError) as error:
        raise InvalidInputError(str(path), [Fault("", f"cannot be read: {error}", "expected JSON")]) from None
    if not isinstance(config, dict):
        raise InvalidInputError(str(path), [Fault("", "is no JSON object", "expected the keys auths or credHelpers")])
    return lambda host: _login(config, host)


def _login(config: Mapping[str, Any], host: str) -> str | None:
    wanted = DOCKER_HUB_KEY if host == DOCKER_HUB_HOST else host
    helper = _host_entry(config.get("credHelpers"), wanted) or config.get("credsStore")
    if isinstance(helper, str) and (login := _helper_login(helper, wanted)):
        return login
    entry = _host_entry(config.get("auths"), wanted)
    login = entry.get("auth") if isinstance(entry, dict) else None
    return login if isinstance(login, str) and BASE64.fullmatch(login) else None


def _host_entry(entries: object, wanted: str) -> object:
    """The entry of a registry. Its key is `wanted`, or a URL with the host `wanted`."""
    named = entries.items() if isinstance(entries, dict) else ()
    return next((entry for key, entry in named if wanted in {key, _host_of(key)}), None)


def _host_of(key: str) -> str:
    # Like Docker, remove scheme and path as text. Any text may be a key, and a URL parser would raise for some keys.
    return key.removeprefix("http://").removeprefix("https://").partition("/")[0]


def _helper_login(helper: str, server: str) -> str | None:
    """The answer of `docker-credential-<helper>`. `None` if it is not installed, fails, or knows no login."""
    try:
        done = subprocess.run(  # noqa: S603 - the helper that the user configured, without a shell
            [f"docker-credential-{helper}", "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=HELPER_SECONDS,
            check=True,
        )
        answer = json.loads(done.stdout)
        return b64encode(f"{answer['Username']}:{answer['Secret']}".encode()).decode()
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
