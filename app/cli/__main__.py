"""`python -m app.cli` is `adiabat`."""

from app.cli import main

main()
