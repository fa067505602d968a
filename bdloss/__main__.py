"""`python -m bdloss`: the commands of `bdloss`."""

from bdloss.cli import main

main()
