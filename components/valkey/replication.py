"""Scripts and configuration of a replicated Valkey: find the primary, start a server, stop a server.

The cache is only in memory. A primary that restarted immediately would be empty, and its replicas would copy the empty
data. So a starting server waits if the Sentinels regard it as the primary. It waits for another primary, at most
`DECISION_SECONDS`. Before a primary stops, it hands over to a replica.
"""

from __future__ import annotations

from dataclasses import dataclass

from voice_policies import Duration

from components.secret_keys import SecretKeys
from components.valkey.access import CONFIG_PATH, HEALTH_USER, RUN_PATH
from components.valkey.server import DATA_PATH, PORT

__all__ = ["DOWN_AFTER", "SENTINEL_PORT"]

SENTINEL_PORT = 26379
PRIMARY = "cache"
"""Name of the servers in Sentinel's configuration."""
SECRET = SecretKeys(name="redis-replication", keys=("password",))
QUOTED_PASSWORD = f"""\
password=$(sed 's/["\\\\]/\\\\&/g' {SECRET.path}/password)
"""
"""A line for `sh` that reads the password and escapes it for double quotes.

Sentinel rewrites its file without quotes. So `voice secrets` refuses a password with a space or a quote."""
REPLICATION_RULES = "+psync +replconf +ping"
SENTINEL_RULES = (
    "allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill "
    "+client|pause +failover"
)
"""Source: the documentation of Sentinel, "Sentinel and ACL". The last line is for coordinated failovers, as `ACL LOG`
shows."""
REPLICATION = "min-replicas-to-write 1\nrdb-del-sync-files yes\n"
"""A primary without a connected replica refuses writes. A replica deletes a loaded dump, so the volume never holds two
dumps."""
DOWN_AFTER = Duration("5s")
"""A Sentinel regards a primary as down if the primary has not answered for this time."""
FAILOVER_TIMEOUT = Duration("30s")
"""Sentinel starts a second failover after twice this time."""
DECISION_SECONDS = (DOWN_AFTER + FAILOVER_TIMEOUT * 2).whole_seconds()
"""Longest time, in seconds, for which a starting server waits until the Sentinels choose another primary. In this time
the Sentinels can begin a second failover. After the wait the server starts empty, because otherwise the cache could
stay without a primary."""
HANDOVER = Duration("20s")
"""Time in the pod's grace period for a coordinated failover and for the proxies to notice the new primary."""
ASK_SECONDS = 2
"""Longest time of one question to a server or a Sentinel."""
RECONNECT_SECONDS = 3
"""Time in which the proxies connect all clients to the new primary."""
_ASK = f"valkey-cli -e -p {PORT} --user {HEALTH_USER} --pass '' --no-auth-warning"
FOLLOWS = f"{_ASK} role | grep -qx -e master -e connected"
"""Shell command that succeeds if the server is the primary, or if the server has loaded the primary's data and
replicates its writes."""
KNOWS_QUORUM = ("valkey-cli", "-e", "-p", str(SENTINEL_PORT), "sentinel", "ckquorum", PRIMARY)


@dataclass(frozen=True, slots=True)
class Members:
    """The names of servers and Sentinels."""

    nodes: tuple[str, ...]
    sentinels: tuple[str, ...]
    domain: str
    """Domain of the names, for a resolver that knows no search domains."""

    def find_primary(self) -> str:
        """A shell function that sets `primary`.

        The Sentinels name the primary. If no Sentinel answers, the function takes a server that reports the role of a
        primary. If no server reports this role, as at the first start, the function takes the first server.
        """
        return f"""\
ask() {{
  host=$1 port=$2; shift 2
  timeout {ASK_SECONDS} valkey-cli -e -h "$host" -p "$port" "$@" 2>/dev/null || true
}}
role() {{ ask "$1" {PORT} --user {HEALTH_USER} --pass '' --no-auth-warning role; }}
find_primary() {{
  primary=
  for sentinel in {" ".join(self.sentinels)}; do
    [ -n "$primary" ] ||
      primary=$(ask "$sentinel" {SENTINEL_PORT} sentinel get-primary-addr-by-name {PRIMARY} | head -n 1)
  done
  for node in {" ".join(self.nodes)}; do
    [ -n "$primary" ] || [ "$(role "$node" | head -n 1)" != master ] || primary=$node
  done
  primary=${{primary:-{self.nodes[0]}}}
}}
"""


def configure_node() -> str:
    """Script of the init container, after `WRITE_ACL`: add pod name and replication password to the configuration."""
    return f"""\
{QUOTED_PASSWORD}cp {CONFIG_PATH}/valkey.conf {RUN_PATH}/node.conf
cat >> {RUN_PATH}/node.conf <<END
replica-announce-ip $POD_NAME
masteruser replication
masterauth "$password"
END
"""


def start_node(members: Members) -> str:
    """Script that starts a server. It also works when kubelet restarts only the container, not the init containers.

    The script first deletes the file of an interrupted synchronisation. The function `replaceable` is true if the
    Sentinels can choose another server. They must know replicas, and another server must answer.
    """
    return f"""\
set -eu
umask 077
rm -f {DATA_PATH}/*
{members.find_primary()}replaceable() {{
  known=
  for sentinel in {" ".join(members.sentinels)}; do
    known=$known$(ask "$sentinel" {SENTINEL_PORT} sentinel replicas {PRIMARY} | head -n 1)
  done
  [ -n "$known" ] || return 1
  for node in {" ".join(members.nodes)}; do
    [ "$node" = "$POD_NAME" ] || [ -z "$(role "$node")" ] || return 0
  done
  return 1
}}
find_primary
end=$(($(date +%s) + {DECISION_SECONDS}))
while [ "$primary" = "$POD_NAME" ] && [ "$(date +%s)" -lt "$end" ] && replaceable; do
  sleep 1
  find_primary
done
cp {RUN_PATH}/node.conf {RUN_PATH}/valkey.conf
[ "$primary" = "$POD_NAME" ] || echo "replicaof $primary {PORT}" >> {RUN_PATH}/valkey.conf
exec valkey-server {RUN_PATH}/valkey.conf
"""


def stop_node(members: Members) -> str:
    """Script that runs before a server stops. A primary hands over to a replica that has all its data.

    The script ends within `HANDOVER`. Just before `end` it may still ask this server for its role, and then one
    Sentinel for a failover. So `end` leaves time for these two questions and for the proxies.
    """
    return f"""\
set -eu
{members.find_primary()}end=$(($(date +%s) + {HANDOVER.whole_seconds() - 2 * ASK_SECONDS - RECONNECT_SECONDS}))
must_hand_over() {{ [ "$(date +%s)" -lt "$end" ] && [ "$(role 127.0.0.1 | head -n 1)" = master ]; }}
while must_hand_over; do
  for sentinel in {" ".join(members.sentinels)}; do
    must_hand_over || break
    [ "$(ask "$sentinel" {SENTINEL_PORT} sentinel failover {PRIMARY} coordinated)" != OK ] || break
  done
  for _ in 1 2 3 4 5; do
    ! must_hand_over || sleep 1
  done
done
sleep {RECONNECT_SECONDS}
"""


def configure_sentinel(members: Members, quorum: int) -> str:
    """Script of a Sentinel's init container. It writes `sentinel.conf`, and Sentinel later updates this file itself."""
    return f"""\
set -eu
umask 077
{members.find_primary()}find_primary
{QUOTED_PASSWORD}cat > {RUN_PATH}/sentinel.conf <<END
port {SENTINEL_PORT}
protected-mode no
dir {RUN_PATH}
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $POD_NAME
sentinel monitor {PRIMARY} $primary {PORT} {quorum}
sentinel auth-user {PRIMARY} sentinel
sentinel auth-pass {PRIMARY} "$password"
sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER.units // 1000}
sentinel failover-timeout {PRIMARY} {FAILOVER_TIMEOUT.units // 1000}
sentinel parallel-syncs {PRIMARY} 1
END
"""
