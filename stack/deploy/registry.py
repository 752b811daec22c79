"""A client that asks a container registry for the digest of a tag (OCI distribution API, read only).

It computes the digest from the manifest's bytes, so it notices a registry or proxy that claims another digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from voice_policies import Fault, InvalidInputError

from stack.deploy.registry_logins import Logins
from stack.model.image_lock import DOCKER_HUB, registry_and_path

__all__ = ["Registry"]

MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Indexes come first, because the digest of an index serves every architecture. The digest of a manifest serves one."""
SERVED_BY = {DOCKER_HUB: "registry-1.docker.io"}
"""Registry → the host that serves it, if the host has another name."""
MANIFEST_LIMIT = 4 << 20
"""Size of the largest accepted manifest, in bytes. The OCI distribution specification asks registries to accept at
least 4 megabytes."""
TIMEOUT = 10.0
"""A request fails after this number of seconds without an answer."""
MAX_RETRIES = 4
LONGEST_WAIT = 60.0
"""Longest wait before a retry, in seconds. If a registry asks for a longer wait, the client does not retry."""
_RETRIED = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_REACHABLE = "expected a registry that answers over https"
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Exception):
    """The client cannot get a digest. `args` contains the problem and the accepted alternative."""


@dataclass(frozen=True, slots=True)
class Location:
    """Registry, path and tag of a manifest."""

    host: str
    repository: str
    tag: str

    @classmethod
    def of(cls, reference: str) -> Location:
        """Resolve `repository:tag`."""
        repository, _, tag = reference.rpartition(":")
        registry, path = registry_and_path(repository)
        return cls(SERVED_BY.get(registry, registry), path, tag)

    @property
    def url(self) -> str:
        """Address of the manifest."""
        return f"https://{self.host}/v2/{self.repository}/manifests/{self.tag}"


class Registry:
    """A client of registries. It trusts the system's certificates, or the certificates in `SSL_CERT_FILE`."""

    def __init__(self, logins: Logins, sleep: Callable[[float], None] = time.sleep) -> None:
        """`logins` returns the user's login for the host of a registry. `sleep` waits between retries."""
        self._logins = logins
        self._opener = build_opener(HTTPSHandler(), _SafeRedirects())
        self._sleep = sleep

    def digests(self, references: Iterable[str], progress: Callable[[str], object]) -> dict[str, str]:
        """The digest of every reference. Raises `InvalidInputError` with every reference that fails.

        The client calls `progress` with each reference before the request.
        """
        wanted = sorted(set(references))
        found: dict[str, str] = {}
        faults = []
        for number, reference in enumerate(wanted, start=1):
            progress(f"{number}/{len(wanted)} {reference}")
            try:
                found[reference] = self.digest(reference)
            except RegistryError as error:
                faults.append(Fault(reference, *error.args))
        if faults:
            raise InvalidInputError("images", faults)
        return found

    def digest(self, reference: str) -> str:
        """The digest of `repository:tag`; raises `RegistryError`."""
        response, body = self._manifest(Location.of(reference))
        kind = response.get_content_type()
        if kind not in MEDIA_TYPES:
            raise RegistryError(f"is served as {kind}", f"expected one of {', '.join(MEDIA_TYPES)}")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        claimed = response.get("Docker-Content-Digest", digest)
        if claimed != digest:
            raise RegistryError(f"was announced as {claimed}", f"its content is {digest}: do not trust this registry")
        return digest

    def _manifest(self, location: Location) -> tuple[HTTPMessage, bytes]:
        request = Request(location.url, headers={"Accept": ", ".join(MEDIA_TYPES)})  # noqa: S310 - always https
        try:
            return self._get(request)
        except HTTPError as error:
            if error.code != HTTPStatus.UNAUTHORIZED:
                raise _refusal(error) from None
            challenge = error.headers.get("WWW-Authenticate", "")
            # After a redirect, challenge and token belong to the new host.
            login = self._logins(urlsplit(error.geturl()).netloc)
            headers = {**request.headers, "Authorization": self._authorization(challenge, login)}
            request = Request(error.geturl(), headers=headers)  # noqa: S310 - https, as redirects are
        try:
            return self._get(request)
        except HTTPError as error:
            raise _refusal(error) from None

    def _authorization(self, challenge: str, login: str | None) -> str:
        """The header that a challenge asks for: the login itself, or a token for the login or for an anonymous user."""
        if login and challenge.partition(" ")[0].lower() == "basic":
            return f"Basic {login}"
        return f"Bearer {self._token(challenge, login)}"

    def _token(self, challenge: str, login: str | None) -> str:
        """A token from the address in the challenge."""
        scheme, _, rest = challenge.partition(" ")
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.pop("realm", "")
        if scheme.lower() != "bearer" or not _is_https(realm):
            raise RegistryError(
                f"has a registry that asks for {challenge!r}", "expected a Bearer challenge with a realm over https"
            )
        known = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        try:
            asked = Request(f"{realm}?{urlencode(known)}")  # noqa: S310 - https, as checked above
            if login:
                asked.add_header("Authorization", f"Basic {login}")
            _, body = self._get(asked)
        except HTTPError as error:
            raise _refusal(error) from None
        return _token_of(body)

    def _get(self, request: Request) -> tuple[HTTPMessage, bytes]:
        """The answer. Retries after a status in `_RETRIED`. Raises `HTTPError` for another error status."""
        retries = 0
        while True:
            try:
                return self._read(request)
            except HTTPError as error:
                if error.code not in _RETRIED or retries == MAX_RETRIES:
                    raise
                self._sleep(_wait(error.headers.get("Retry-After", ""), retries))
                retries += 1

    def _read(self, request: Request) -> tuple[HTTPMessage, bytes]:
        try:
            response: HTTPResponse
            with self._opener.open(request, timeout=TIMEOUT) as response:
                body = response.read(MANIFEST_LIMIT + 1)
        except HTTPError:
            raise
        except URLError as error:
            raise RegistryError(f"cannot be requested: {error.reason}", _REACHABLE) from None
        except (OSError, HTTPException, ValueError) as error:  # urllib raises ValueError for a malformed redirect
            raise RegistryError(f"got no answer: {error}", _REACHABLE) from None
        if len(body) > MANIFEST_LIMIT:
            raise RegistryError("is too large for a manifest", f"expected at most {MANIFEST_LIMIT} bytes")
        return response.headers, body


class _SafeRedirects(HTTPRedirectHandler):
    """Follows only redirects over https. Sends no login and no token after a redirect to another host."""

    def redirect_request(  # noqa: PLR0913, PLR0917 - urllib's own signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not _is_https(newurl):
            raise RegistryError(f"is redirected to {newurl}", "expected an address over https")
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)
        if redirected and redirected.host != req.host:
            redirected.remove_header("Authorization")
        return redirected


def _is_https(address: str) -> bool:
    try:
        return urlsplit(address).scheme == "https"
    except ValueError:
        return False


def _token_of(body: bytes) -> str:
    try:
        document = json.loads(body)
        token: object = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise RegistryError("has a token service whose answer contains no token", "expected JSON with the key token")
    return token


def _wait(retry_after: str, retries: int) -> float:
    """Seconds before the next attempt: the registry's own number, or 1, 2, 4, … if the registry gives no number."""
    seconds = float(retry_after) if retry_after.isdecimal() else float(1 << retries)
    if seconds > LONGEST_WAIT:
        raise RegistryError(f"has a registry that refuses requests for {seconds:.0f} s", "try again after that time")
    return seconds


def _refusal(error: HTTPError) -> RegistryError:
    match error.code:
        case HTTPStatus.NOT_FOUND:
            return RegistryError("is not in its registry", "expected a repository and a tag that were pushed")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return RegistryError(
                "is not public", "expected a public image, or a login that may pull it: `docker login`"
            )
        case _:
            return RegistryError(f"got HTTP {error.code} {error.reason}", "try again later")
