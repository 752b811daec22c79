"""Health: `/health` shows that the process lives, `/ready` reports the checks of the bundle's health policy.

health = Health(runtime, settings=load_settings("/etc/voice/settings"))
app = HealthApp(health, otherwise=service)
"""

from voice_runtime.health.app import HealthApp
from voice_runtime.health.check import Checker, Result, Status
from voice_runtime.health.monitor import Health, Report
from voice_runtime.health.place import Place

__all__ = ["Checker", "Health", "HealthApp", "Place", "Report", "Result", "Status"]
