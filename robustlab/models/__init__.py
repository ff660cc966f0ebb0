"""Targets in memory: load, adapt, generate. Knows nothing of attacks, verdicts or prices."""
