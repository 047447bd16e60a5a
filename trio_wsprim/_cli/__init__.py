"""The command line: `connect`, `serve` and `demo`, and all that stands between them and a terminal or a pipe."""
