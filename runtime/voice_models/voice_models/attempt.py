"""One attempt at one candidate, from admission to settlement. This module decides and counts, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from voice_policies import ModelRoute
from voice_runtime import Attempt as Admission
from voice_runtime import CalleeError, Clock

from voice_models.answer import ENDED_EARLY, Reader, reader_of
from voice_models.candidate import Candidate, CredentialError
from voice_models.classification import ErrorClass, dialect_of, error_class
from voice_models.cooldown import Cooldowns
from voice_models.errors import ModelAttemptError, ModelError, ModelRefusedError, ModelStreamError
from voice_models.estimate import output_tokens
from voice_models.request import ModelRequest
from voice_models.retry_after import retry_after
from voice_models.states import (
    Admitted,
    Cancelled,
    Committed,
    Connecting,
    Failed,
    Finished,
    Opened,
    Reserved,
    Settled,
    State,
)
from voice_models.token_budget import Reservation
from voice_models.usage import NOTHING, Ending, ModelAttempted, Usage
from voice_models.wire_form import parsed

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Errors of httpx that prove that nothing was sent."""
OPEN = (Admitted, Reserved, Connecting, Opened, Committed)
"""The states before the end of an attempt."""
READING = (Opened, Committed, Finished)
"""The states with a reader of the answer."""


class ModelAttempt:
    """The rules of one attempt. Call a method for each event of the attempt, in the order of the states in `states`."""

    def __init__(  # noqa: PLR0913  # separate facts of the call
        self,
        *,
        route_name: str,
        route: ModelRoute,
        request: ModelRequest,
        candidate: Candidate,
        admission: Admission,
        cooldowns: Cooldowns,
        clock: Clock,
        deadline: float,
    ) -> None:
        self.state: State = Admitted()
        self.candidate = candidate
        self.number = admission.attempt
        self.reservation = Reservation(request.reserved_tokens)
        self.request = request
        self.started = clock.monotonic()
        self.first_content: float | None = None
        """Time of the first content, by the monotonic clock. `None` before."""
        self._clock = clock
        self._route_name, self._route = route_name, route
        self._admission = admission
        self._cooldowns = cooldowns
        self._deadline = deadline
        self._first_token, self._idle = route.timeout.first_token.seconds, route.timeout.idle.seconds
        self._usage = NOTHING
        self._retry_after: float | None = None
        self._headers: Mapping[str, str] = {}
        self._texts: list[str] = []

    # --- events of the attempt

    def reserved(self, reservation: Reservation) -> None:
        """Record that every budget has reserved the attempt's tokens."""
        self._leave(Admitted)
        self.reservation = reservation
        self.state = Reserved()

    def connecting(self) -> None:
        """Record that the request is about to be sent."""
        self._leave(Reserved)
        self.started = self._clock.monotonic()
        self.state = Connecting()

    def opened(self, status: int, headers: Mapping[str, str]) -> None:
        """Record that the status and the headers have arrived. The names of `headers` must be lower case."""
        self._leave(Connecting)
        self._headers = headers
        reader = reader_of(
            self.request.form,
            headers.get("content-type", "") if status < 300 else "application/json",
            self.request.body,
            captures=self._route.privacy.capture,
            hides_usage=self.request.hides_usage,
        )
        self._texts = reader.text
        self.state = Opened(status, reader)

    def received(self, chunk: bytes) -> bytes:
        """Read a part of the body. Returns the bytes that the caller may get now.

        Call `broken` afterwards, because the part may also contain an error behind these bytes.
        """
        reader = self._reader()
        handed_on = reader.feed(chunk)
        self._advance()
        return handed_on

    def ended(self) -> bytes:
        """Note the end of the body.

        Returns the rest for the caller. Raises `ModelError` if the answer is a refusal, contains the provider's error,
        or is incomplete.
        """
        reader = self._reader()
        rest = reader.end()
        if isinstance(self.state, Opened) and self.state.status >= 300:
            raise self._refused(self.state.status, parsed(rest, None))
        self._advance()
        if error := self.broken():
            raise error
        if not self.is_finished:
            raise self._failed("truncated")
        return rest

    def broken(self) -> ModelError | None:
        """End the attempt if its incomplete answer contains the provider's error or stops early.

        Returns the error for the caller, or `None`.
        """
        reader = self._reader()
        if reader.error is None or self.is_finished:
            return None
        if reader.error is ENDED_EARLY:
            return self._failed("truncated")
        return self._failed(error_class(None, reader.error, dialect_of(self.candidate.provider.address.host)))

    @property
    def is_finished(self) -> bool:
        """True if the answer is complete, although usage or an empty frame may follow."""
        return isinstance(self.state, Finished)

    @property
    def is_committed(self) -> bool:
        """True if content has arrived. It stays true after the end of the attempt."""
        return self.first_content is not None

    def time_left(self) -> float:
        """Seconds until the current timeout ends or the deadline comes, whichever is earlier.

        The current timeout is `first_token` before the first content, and `idle` afterwards.
        """
        now = self._clock.monotonic()
        limit = self.started + self._first_token if self.first_content is None else now + self._idle
        return max(min(limit, self._deadline) - now, 0.0)

    def failed(self, error: Exception) -> ModelError:
        """End the attempt after a network error, a timeout, an injected fault, or an unreadable API key file.

        Returns the error for the caller. Any other error is a fault of this process, and is raised again.
        """
        if isinstance(error, ModelError):
            return error
        if isinstance(error, TimeoutError):
            return self._failed(self._class_of_timeout())
        if isinstance(error, httpx.TransportError | httpx.DecodingError | OSError):
            found: ErrorClass = "connection_failed" if isinstance(self.state, Connecting) else "truncated"
            return self._failed(found, NOTHING if isinstance(error, NOT_SENT) else None)
        if isinstance(error, CredentialError):
            return self._failed("authentication", NOTHING)
        if isinstance(error, CalleeError):
            return self._failed("server_error", NOTHING)  # an injected fault, so nothing was sent
        self.cancelled()
        raise error

    def refused(self, error: ModelRefusedError) -> None:
        """End the attempt because a budget has no room."""
        self._leave(Admitted)
        self._admission.failed(error)
        self.state = Failed(error.error_class)

    def cancelled(self) -> None:
        """End the attempt without a failure of the provider, for example because the caller has left.

        After a complete answer this changes nothing.
        """
        if isinstance(self.state, OPEN):
            self._usage = self._used()
            self._admission.failed(GeneratorExit())
            self.state = Cancelled()

    def settled(self, tenant: str) -> ModelAttempted | None:
        """Settle the ended attempt, and return its event. Later calls return `None`."""
        state, now = self.state, self._clock.monotonic()
        if isinstance(state, Settled):
            return None
        ending: Ending = "cancelled"
        if isinstance(state, Finished):
            self._usage = self._used()
            self._admission.succeeded()
            ending = "finished"
        elif isinstance(state, Failed):
            ending = "failed"
        usage = self._usage
        event = ModelAttempted(
            route=self._route_name,
            deployment=self.candidate.name,
            provider=self.candidate.deployment.provider,
            model=self.candidate.model.name,
            tenant=tenant,
            attempt=self.number,
            input_units=usage.input,
            input_unit=usage.unit,
            output_tokens=usage.output,
            micro_usd=self._micro_usd(),
            estimated=usage.estimated,
            ending=ending,
            error_class=state.error_class if isinstance(state, Failed) else None,
            finish_reason=state.reader.finish_reason if isinstance(state, Finished) else None,
            first_token=None if self.first_content is None else self.first_content - self.started,
            duration=now - self.started,
        )
        self.state = Settled(event)
        return event

    @property
    def captured_answer(self) -> str | None:
        """The content, if the route's `PromptPrivacy` captures it."""
        return "".join(self._texts) if self._route.privacy.capture else None

    @property
    def used_tokens(self) -> int:
        """The tokens that the attempt's budgets count as used."""
        if self._usage.unit == "token":
            return self._usage.total
        return self.request.input_tokens + self._usage.output

    # --- decisions

    def _micro_usd(self) -> int:
        price, usage = self.candidate.model.price, self._usage
        if price is None or usage == NOTHING:
            return 0
        units = usage.input if usage.unit == price.unit else self.request.input_units(price)
        return price.micro_usd(units, usage.output)

    def _reader(self) -> Reader:
        if isinstance(self.state, READING):
            return self.state.reader
        raise RuntimeError(f"an attempt that is {type(self.state).__name__} has no answer")

    def _leave(self, *expected: type[State]) -> None:
        if not isinstance(self.state, expected):
            names = " or ".join(state.__name__ for state in expected)
            raise RuntimeError(f"the attempt is {type(self.state).__name__}; expected {names}")  # noqa: TRY004  # the wrong state, not the type of an argument

    def _advance(self) -> None:
        reader = self._reader()
        if isinstance(self.state, Opened) and self.state.status < 300 and reader.is_committed:
            self.first_content = self._clock.monotonic()
            self._admission.has_first_message()
            self.state = Committed(reader)
        if isinstance(self.state, Committed) and reader.finish_reason is not None:
            self.state = Finished(reader)

    def _class_of_timeout(self) -> ErrorClass:
        if self._clock.monotonic() >= self._deadline:
            return "deadline_exceeded"
        return "idle_timeout" if self.is_committed else "first_token_timeout"

    def _refused(self, status: int, body: Any) -> ModelError:
        found = error_class(status, body, dialect_of(self.candidate.provider.address.host))
        self._retry_after = retry_after(self._headers, datetime.now(UTC))
        return self._failed(found, NOTHING)

    def _failed(self, found: ErrorClass, usage: Usage | None = None) -> ModelError:
        """End as failed, and report the failure to cooldowns, breaker and statistics."""
        kind = ModelStreamError if self.is_committed else ModelAttemptError
        error = kind(
            self._admission.call.name,
            self._route_name,
            found,
            candidate=self.candidate.name,
            retry_after=self._retry_after,
            attempts=self.number,
        )
        self._usage = self._used() if usage is None else usage
        if isinstance(error, ModelStreamError):
            error.usage = self._usage
        self._cooldowns.record(self.candidate, found, self._retry_after, self._route.cooldown)
        self._admission.failed(error)
        self.state = Failed(found)
        return error

    def _used(self) -> Usage:
        """The reported usage, or else an estimate. No tokens if the request was not sent."""
        if isinstance(self.state, Admitted | Reserved):
            return NOTHING
        reader = self.state.reader if isinstance(self.state, Opened | Committed | Finished) else None
        if reader is not None and reader.usage is not None:
            return reader.usage
        price = self.candidate.model.price
        output = output_tokens(reader.content_bytes) if reader else 0
        return Usage(self.request.input_units(price), output, estimated=True, unit=price.unit if price else "token")
