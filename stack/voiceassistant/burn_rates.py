"""Burn rates: how fast the bad requests of an indicator spend the error budget of 30 days.

Windows and rates come from the Site Reliability Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts". Long
windows are sums of hourly series, so Prometheus reads 720 values for 30 days instead of every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

from voice_policies import ClosedModel, Duration

from components.observability.rules import Alert, Recording, RuleGroup

__all__ = ["BUDGET_DAYS", "Indicator"]

BUDGET_DAYS = 30
"""Period of an error budget, in days."""
FEW = 4
"""An alert needs more bad requests than this in the long window, because at night one bad request is a large share."""
Rate = Callable[[str], str]
"""Maps a window to a PromQL expression: the requests per second of each subject."""


class Burn(ClosedModel):
    """A burn rate, as a multiple of the budget. An alert needs a higher rate in the long and in the short window."""

    rate: float
    long: str
    short: str


FAST = (Burn(rate=14.4, long="1h", short="5m"), Burn(rate=6, long="6h", short="30m"))
"""At these rates one hour spends 2 % of the budget, or six hours spend 5 %."""
SLOW = (Burn(rate=3, long="1d", short="2h"), Burn(rate=1, long="3d", short="6h"))
"""At these rates one day spends 10 % of the budget, or three days spend 10 %."""
DIRECT = ("5m", "30m", "1h", "2h", "6h")
"""Windows that Prometheus reads from the counters themselves."""
OVER_DAYS_INTERVAL = Duration("2m")
"""Time between two evaluations of sums over days. It must be below five minutes, because Prometheus looks back only
that long for the value of a series."""
CHAINED = ("1d", "3d", f"{BUDGET_DAYS}d")
"""Windows that are sums of hourly series."""


Subject: TypeAlias = Literal["operation", "route", "flow", "call", "dependency", "job"]
LABELS: dict[Subject, str] = {
    "operation": "job, operation",
    "route": "route",
    "flow": "flow",
    "call": "job, name",
    "dependency": "dependency",
    "job": "job",
}
"""Kind of subject → the labels that identify one subject."""
OF_A_SERVICE = ("route", "flow")
"""Kinds of subjects whose budgets have the label `job`, with the name of the service that answers."""


class Indicator(ClosedModel):
    """The share of bad requests, or of other bad events, compared with a budget that the model declares.

    Its series are `<subject>:<name>:ratio_rate<window>`, `<subject>:<name>:budget`,
    `<subject>:<name>_budget:remaining30d`, and the series that `count` names.
    """

    subject: Subject
    """The kind of thing that has the budget."""
    name: str
    """The kind of bad request in the names of the series of ratio and budget, such as `failures`."""
    adjective: str
    """The kind of bad request in the name of the count, such as `failed`."""
    unit: str = "requests"
    """The events that are counted, such as `checks`."""

    @property
    def labels(self) -> str:
        """The labels that identify one subject."""
        return LABELS[self.subject]

    @property
    def budget(self) -> str:
        """Name of the series of the budgets. Its labels include team and severity."""
        return f"{self.subject}:{self.name}:budget"

    @property
    def remaining(self) -> str:
        """Name of the series of the remaining share of each budget."""
        return f"{self.subject}:{self.name}_budget:remaining{BUDGET_DAYS}d"

    @property
    def owner(self) -> str:
        """The labels that `group_left` copies from the series of the budgets."""
        return "job, team, severity" if self.subject in OF_A_SERVICE else "team, severity"

    def ratio(self, window: str) -> str:
        """Name of the series of the share of bad requests in a window."""
        return f"{self.subject}:{self.name}:ratio_rate{window}"

    def count(self, window: str, *, bad: bool) -> str:
        """Name of the series of the number of requests in a window: bad requests if `bad`, else all requests."""
        kind = f"{self.adjective}_{self.unit}" if bad else f"{self.name}_eligible_{self.unit}"
        return f"{self.subject}:{kind}:increase{window}"

    def groups(self, requests: Rate, bad_requests: Rate) -> Iterator[RuleGroup]:
        """One group for short windows, and one for sums over days, which Prometheus evaluates less often."""
        name = self.name.replace("_", "-")
        yield RuleGroup(name=f"{self.subject}-{name}", rules=tuple(self._recent(requests, bad_requests)))
        yield RuleGroup(
            name=f"{self.subject}-{name}-over-days", interval=OVER_DAYS_INTERVAL, rules=tuple(self._over_days())
        )

    def _recent(self, requests: Rate, bad_requests: Rate) -> Iterator[Recording]:
        def bad(window: str) -> str:
            # A counter has no series before its first bad request.
            return f"(({bad_requests(window)}) or 0 * ({requests(window)}))"

        for window in DIRECT:
            yield Recording(name=self.ratio(window), expression=f"{bad(window)} / (({requests(window)}) > 0)")
        yield Recording(name=self.count("1h", bad=False), expression=f"({requests('1h')}) * 3600")
        yield Recording(name=self.count("1h", bad=True), expression=f"{bad('1h')} * 3600")
        yield Recording(name=self.count("6h", bad=True), expression=f"{bad('6h')} * 21600")

    def _over_days(self) -> Iterator[Recording]:
        for window in CHAINED:
            bad, all_requests = (f"sum_over_time({self.count('1h', bad=each)}[{window}:1h])" for each in (True, False))
            yield Recording(name=self.ratio(window), expression=f"{bad} / ({all_requests} > 0)")
            yield Recording(name=self.count(window, bad=True), expression=bad)
        spent = f"{self.ratio(f'{BUDGET_DAYS}d')} / on ({self.labels}) group_left ({self.owner}) {self.budget}"
        yield Recording(name=self.remaining, expression=f"1 - {spent}")

    def alerts(self, name: str, summary: str, action: str) -> tuple[Alert, Alert]:
        """One alert for a budget that is spent within days, one for a budget that is spent within the month.

        `summary` names the subject and the share. Each alert adds how long the budget lasts.
        """
        return (
            Alert(
                name=name,
                expression=" or ".join(map(self._burning, FAST)),
                lasting=Duration("2m"),
                summary=f"{summary}: at this rate the error budget of {BUDGET_DAYS} days lasts five days or less",
                action=action,
            ),
            Alert(
                name=f"{name}ForDays",
                expression=" or ".join(map(self._burning, SLOW)),
                lasting=Duration("1h"),
                severity="warning",
                summary=f"{summary}: at this rate the error budget lasts less than its {BUDGET_DAYS} days",
                action=action,
            ),
        )

    def _burning(self, burn: Burn) -> str:
        matched = f"on ({self.labels})"
        exceeds = f"> {matched} group_left ({self.owner}) {burn.rate:g} * {self.budget}"
        long, short = (f"{self.ratio(window)} {exceeds}" for window in (burn.long, burn.short))
        return f"({long} and {matched} {short} and {matched} {self.count(burn.long, bad=True)} > {FEW})"
