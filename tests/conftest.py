"""Settings of every test."""

from hypothesis import HealthCheck, settings

# A shared machine makes single examples slow without telling anything of the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")
