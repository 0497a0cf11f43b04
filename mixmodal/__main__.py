"""`python -m mixmodal` is the command line."""

from mixmodal.cli import main

main()
