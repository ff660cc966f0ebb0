"""What happened: the journal, the run folder, results, provenance and custody. Knows nothing of torch or prices."""
