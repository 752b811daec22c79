"""The conformance list: numbered cases of behaviour that every implementation of the policies must show.

Each test of a case has the case's number in its name, in this folder, `tests/runtime` and `tests/models`. The letters:
B circuit breaker, D degradation, G gRPC, H health, L rate limiters and bulkheads, MC model calls, O observability,
P policy reload, R retry, S sagas, T timeouts and deadlines.
"""
