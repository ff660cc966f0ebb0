"""Intervals, paired tests and the verdicts on properties. Knows counts only: no models, files or prices."""
