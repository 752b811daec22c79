from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_models.retry_after import retry_after

NOW = datetime(2026, 11, 30, 8, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "6m0s"}, 360.0),
        ({"retry-after": "1h2m3.5s"}, 3723.5),
        ({"retry-after": "250ms"}, 0.25),
        ({"retry-after": "Mon, 30 Nov 2026 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Monday, 30-Nov-26 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon Nov 30 08:00:30 2026"}, 30.0),
        ({"retry-after": "Mon, 30 Nov 2026 07:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 30 Nov 2026 09:00:30 GMT", "date": "Mon, 30 Nov 2026 09:00:00 GMT"}, 30.0),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "2.3s"}, 2.3),
        (
            {
                "x-ratelimit-reset-requests": "8.64s",
                "x-ratelimit-remaining-requests": "9000",
                "x-ratelimit-reset-tokens": "1s",
                "x-ratelimit-remaining-tokens": "0",
            },
            1.0,
        ),
        ({"retry-after": "2", "x-ratelimit-reset-tokens": "6m0s"}, 2.0),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "never", "nan", "inf", "-1", "1_000", "6x", "m6", "Mon, 99 Nov 2026", "1e3"])
def test_an_unreadable_retry_after_is_ignored(value: str) -> None:
    assert retry_after({"retry-after": value, "retry-after-ms": value, "x-ratelimit-reset-tokens": value}, NOW) is None


@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-reset-tokens"]), st.text())
)
def test_no_header_makes_retry_after_raise(headers: dict[str, str]) -> None:
    seconds = retry_after(headers, NOW)
    assert seconds is None or seconds >= 0
