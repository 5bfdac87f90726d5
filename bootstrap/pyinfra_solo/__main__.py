"""`python -m pyinfra_solo`: the command, as the baked launcher starts it."""

from pyinfra_solo.cli.main import main

main()
