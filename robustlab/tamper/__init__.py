"""How an attack is executed, one module per kind. Knows nothing of safeguards, measurements or prices."""
