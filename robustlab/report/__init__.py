"""What people see of ``results.json``: tables, figures, a page, a mirror. Knows no torch; measures nothing."""
