"""Training under a meter: loops on TRL, the purse that charges and stops, resumable states.

Knows nothing of measuring.
"""
