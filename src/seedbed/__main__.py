"""`python -m seedbed` is the command `seedbed`."""

from seedbed.cli import main

main()
