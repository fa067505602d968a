"""`python -m bdloss`: the commands of `bdloss`."""

from bdloss.cli.main import main

main()
