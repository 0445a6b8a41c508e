"""`python -m runner.cli`."""

from runner.cli.main import main

main()
