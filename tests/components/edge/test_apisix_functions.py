"""The gateway's Lua functions, run by LuaJIT.

No package registry has APISIX, so a Python object takes the place of APISIX's request.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import lupa.luajit21 as lupa
import pytest

from components.edge.apisix_functions import REFUSED_HEADERS, REMOVE_CLAIMED_IDENTITY, SET_VERIFIED_IDENTITY


class Request:
    """`set_header` has the signature of `apisix.core.request.set_header`."""

    def __init__(self, headers: dict[str, str], arguments: dict[str, str]) -> None:
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.arguments = arguments

    def set_header(self, _ctx: object, name: str, value: str | None) -> None:
        self.headers.pop(name.lower(), None)
        if value is not None:
            self.headers[name.lower()] = value


def run(function: str, request: Request, claims: dict[str, object] | None = None) -> Any:
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    arguments = lua.table_from(request.arguments)

    def set_uri_args(_ctx: object, changed: Any) -> None:
        request.arguments = dict(changed)

    core = {"set_header": request.set_header, "get_uri_args": lambda _: arguments, "set_uri_args": set_uri_args}
    loaded = lua.table_from({"request": lua.table_from(core)})
    lua.globals().require = lambda name: loaded if name == "apisix.core" else None
    lua.globals().ngx = lua.table_from({"escape_uri": lambda text: quote(text, safe="")})
    ctx = lua.table_from({"jwt_auth_payload": lua.table_from(claims)} if claims is not None else {})
    return lua.execute(function)(None, ctx)


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_the_gateway_removes_headers_that_services_trust(name: str) -> None:
    request = Request({name: "forged", name.upper(): "forged", "Accept": "text/plain"}, {})
    assert run(REMOVE_CLAIMED_IDENTITY, request) is None
    assert request.headers == {"accept": "text/plain"}


def test_the_gateway_removes_tokens_in_the_query_and_in_cookies() -> None:
    request = Request({"Cookie": "jwt=token", "Authorization": "Bearer token"}, {"jwt": "token", "page": "2"})
    run(REMOVE_CLAIMED_IDENTITY, request)
    assert request.headers == {"authorization": "Bearer token"}
    assert request.arguments == {"page": "2"}


def test_the_gateway_sets_tenant_and_user_of_the_verified_token() -> None:
    request = Request({}, {})
    assert run(SET_VERIFIED_IDENTITY, request, {"tenant": "acme", "sub": "a,b=c;d", "exp": 1}) is None
    assert request.headers == {"x-tenant-id": "acme", "baggage": "tenant.id=acme,user.id=a%2Cb%3Dc%3Bd"}


@pytest.mark.parametrize(
    "claims",
    [{}, {"tenant": ""}, {"tenant": 7}, {"tenant": True}, {"sub": "ann"}, None],
    ids=["no-claims", "empty-tenant", "number", "boolean", "only-a-user", "no-payload"],
)
def test_a_token_without_a_tenant_is_refused(claims: dict[str, object] | None) -> None:
    request = Request({}, {})
    status, body = run(SET_VERIFIED_IDENTITY, request, claims)
    assert (status, body.message) == (403, "the token names no tenant")
    assert request.headers == {}


@pytest.mark.parametrize("claims", [{}, {"exp": "1"}, {"exp": True}], ids=["no-expiry", "text", "boolean"])
def test_a_token_without_a_numeric_expiry_is_refused(claims: dict[str, object]) -> None:
    request = Request({}, {})
    status, body = run(SET_VERIFIED_IDENTITY, request, {"tenant": "acme", **claims})
    assert (status, body.message) == (401, "the token never expires")
    assert request.headers == {}
