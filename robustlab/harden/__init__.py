"""How a safeguard is installed, one module per kind. Knows nothing of attacks or measurements."""
