"""`python -m eyechart`."""

from eyechart.cli import main

main()
