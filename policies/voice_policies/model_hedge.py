"""Model hedge: a second request beside a slow first one, for calls whose answer may be computed twice."""

from __future__ import annotations

from voice_policies.measure import PositiveDuration, Ratio
from voice_policies.policy import Policy
from voice_policies.retry import RetryBudget


class ModelHedge(Policy):
    """If no content has come after `delay`, the runtime asks the next candidate too. The first content wins.

    The runtime cancels the other request, and waits until its connection is closed. Both requests count as attempts of
    `ModelFallback`. Each reserves tokens in the budgets of the route and of its candidate.
    """

    delay: PositiveDuration
    """Time from the first request to the second. If 95% of the preferred candidate's answers begin within `delay`, the
    runtime hedges 5% of the calls."""
    budget: RetryBudget = RetryBudget(ratio=Ratio("5%"))
    """Bound on the second requests of a route in one process, so that a slow provider does not double the load."""
