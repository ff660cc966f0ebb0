"""What work costs: quantities, prices, the meter that bills and stops, estimates. Knows nothing of torch or files."""
