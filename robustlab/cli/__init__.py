"""The command line: arguments in, tables and exit codes out. No logic lives here; ``main`` says what a code means."""
