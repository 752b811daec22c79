"""The conformance list: numbered cases of behaviour that every implementation of the policies must show.

The tests of the cases are in this folder, `tests/runtime` and `tests/models`. Their names contain the case's number.
The letters: B circuit breaker; D degradation; G gRPC; H health; L rate limiters and bulkheads; MC model calls;
O observability; P policy reload; R retry; S sagas; T timeouts and deadlines.
"""
