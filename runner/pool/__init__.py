"""Sandboxes that are kept and lent: what is decided, and who waits for it."""

from __future__ import annotations

from runner.pool.cores import Core, physical_cores
from runner.pool.state import PoolStats
from runner.pool.threads import Lease, SandboxPool

__all__ = ["Core", "Lease", "PoolStats", "SandboxPool", "physical_cores"]
