from tests.driver import clock, pytest_pyfunc_call

__all__ = ["clock", "pytest_pyfunc_call"]
