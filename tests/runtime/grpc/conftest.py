from tests.driver import clock, pytest_pyfunc_call
from tests.runtime.recorded_spans import spans

__all__ = ["clock", "pytest_pyfunc_call", "spans"]
