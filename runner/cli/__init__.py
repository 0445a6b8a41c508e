"""The `runner` command. Data goes to stdout, everything else to stderr; 0 is fine, 1 an error, 2 wrong usage."""
