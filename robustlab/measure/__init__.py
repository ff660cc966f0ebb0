"""How a result is scored: generate, judge, count. Knows nothing of attacks, safeguards or how a run is ordered."""
