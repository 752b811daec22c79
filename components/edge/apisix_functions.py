"""Lua functions of the gateway's plugin `serverless-pre-function`.

They remove the identity that a caller claims, and set the identity from the verified token.

A test runs them in LuaJIT, with a Python object in place of APISIX's request.
"""

from __future__ import annotations

TENANT_HEADER = "X-Tenant-Id"
REFUSED_HEADERS = (
    TENANT_HEADER,
    "baggage",
    "traceparent",
    "tracestate",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "Forwarded",
    "X-Forwarded-For",
    "X-Real-IP",
    "Cookie",
)
"""Headers that services trust, or from which plugins read a token. No caller from outside may set these headers.

`baggage` names tenant and user. `traceparent` can force the sampling of a trace, and `tracestate` accompanies it. The
two `x-envoy-` headers name attempt and deadline. The next three name the client's address. APISIX would keep a forged
`X-Forwarded-For` and only append the true address."""
TOKEN_ARGUMENT = "jwt"  # noqa: S105 - the name of a query argument
"""Query argument from which `jwt-auth` would read a token. URLs appear in logs, so only a header may hold a token."""
_NAMES = ", ".join(f'"{name}"' for name in REFUSED_HEADERS)
REMOVE_CLAIMED_IDENTITY = f"""\
return function(_, ctx)
  local request = require("apisix.core").request
  for _, name in ipairs({{{_NAMES}}}) do request.set_header(ctx, name, nil) end
  local arguments = request.get_uri_args(ctx) or {{}}
  if arguments.{TOKEN_ARGUMENT} ~= nil then
    arguments.{TOKEN_ARGUMENT} = nil
    request.set_uri_args(ctx, arguments)
  end
end"""
"""Removes the refused headers and the token in the query, before any other plugin reads the request."""
SET_VERIFIED_IDENTITY = f"""\
return function(_, ctx)
  local request, claims = require("apisix.core").request, ctx.jwt_auth_payload or {{}}
  if type(claims.tenant) ~= "string" or claims.tenant == "" then
    return 403, {{message = "the token names no tenant"}}
  end
  if type(claims.exp) ~= "number" then return 401, {{message = "the token never expires"}} end
  local baggage = "tenant.id=" .. ngx.escape_uri(claims.tenant)
  if type(claims.sub) == "string" then baggage = baggage .. ",user.id=" .. ngx.escape_uri(claims.sub) end
  request.set_header(ctx, "{TENANT_HEADER}", claims.tenant)
  request.set_header(ctx, "baggage", baggage)
end"""
"""Sets tenant and user of the verified token for limits and services. The gateway refuses a token without a tenant,
because limits, budgets and data belong to tenants (decided 2026-11-30). `jwt-auth` checks the claim `exp` only if the
token has it. So this function refuses a token without `exp`."""
