"""Settings of every test."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.go_programs"]

# A shared machine makes single examples slow without telling anything of the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")
