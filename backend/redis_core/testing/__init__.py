"""What tests us, for the tests of those who build on us."""

from redis_core.testing.fake_clock import FakeClock
from redis_core.testing.fault_proxy import FaultProxy
from redis_core.testing.inline_jobs import inline

__all__ = ["FakeClock", "FaultProxy", "inline"]
