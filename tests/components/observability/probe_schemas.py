"""A closed schema of the fields that we set in the blackbox exporter's configuration.

Source: CONFIGURATION.md and config/config.go of version 0.28.
"""

from tests.closed_schema import FLAG, SPAN_OF_TIME, TEXT, Schema, closed, listed, one_of

_IP = {"preferred_ip_protocol": one_of("ip4")}
_STEPS = listed({"oneOf": [closed({"send": TEXT}), closed({"expect": TEXT})]})


def _tcp(**fields: Schema) -> Schema:
    return closed({"prober": one_of("tcp"), "timeout": SPAN_OF_TIME, "tcp": closed({**_IP, **fields})})


def _http(**fields: Schema) -> Schema:
    return closed({"prober": one_of("http"), "timeout": SPAN_OF_TIME, "http": closed({**_IP, **fields})})


def _dns(**fields: Schema) -> Schema:
    return closed({"prober": one_of("dns"), "timeout": SPAN_OF_TIME, "dns": closed({**_IP, **fields})})


BLACKBOX_EXPORTER = closed(
    {
        "modules": closed(
            {},
            {
                "tls": _tcp(tls=FLAG, tls_config=closed({"insecure_skip_verify": FLAG}, {"server_name": TEXT})),
                "tcp": _tcp(),
                "valkey": _tcp(query_response=_STEPS),
                "public-name": _dns(
                    query_name=TEXT,
                    query_type=one_of("A"),
                    validate_answer_rrs=closed({"fail_if_none_matches_regexp": listed(TEXT)}),
                ),
                "dns": _dns(query_name=TEXT, query_type=one_of("A")),
                "sentinel": _tcp(query_response=_STEPS),
                "http": _http(valid_status_codes=listed(one_of(200, 401)), follow_redirects=FLAG),
                "consul": _http(fail_if_body_not_matches_regexp=listed(TEXT)),
            },
        )
    }
)
