"""`python -m rollcall` is the same command as `rollcall`."""

from rollcall.cli import main

main()
