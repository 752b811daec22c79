"""HAProxy in front of the replicated cache: it finds the primary and connects every client to it."""

from __future__ import annotations

from components.valkey.replication import Members
from components.valkey.server import PORT


def proxy_configuration(members: Members) -> str:
    """HAProxy's configuration. HAProxy logs in as the user `health`, and asks each server for its role.

    `init-addr` lets HAProxy start without DNS. The `hold` times keep the last known addresses while DNS is down.
    HAProxy's resolver knows no search domains, so servers have their full names. HAProxy checks each server every
    second. So about a second after a replica became the primary, HAProxy connects the clients to this server.

    A primary answers ROLE with an array of three items, of which `master` is the first. The check expects the bytes of
    the array's beginning. The word `master` alone is not enough: a replica's answer contains the primary's host name,
    and the host name may contain this word.
    """
    servers = "".join(f"  server {name} {name}.{members.domain}:{PORT}\n" for name in members.nodes)
    return f"""\
global
  maxconn 4096
resolvers cluster
  parse-resolv-conf
  timeout resolve 1s
  timeout retry 1s
  hold valid 10s
  hold nx 7d
  hold refused 7d
  hold timeout 7d
  hold other 7d
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 1s
  default-server check inter 1s fastinter 250ms fall 2 rise 1 on-marked-down shutdown-sessions
  default-server resolvers cluster init-addr last,libc,none
frontend clients
  bind :{PORT}
  default_backend primary
backend primary
  option tcp-check
  tcp-check send "AUTH health -\\r\\n"
  tcp-check expect string +OK
  tcp-check send "ROLE\\r\\n"
  tcp-check expect string "*3\\r\\n\\$6\\r\\nmaster\\r\\n"
{servers}"""
