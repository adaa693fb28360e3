"""``python -m hpc_sweep`` is the command line."""

from hpc_sweep.cli import main

main(prog_name="hpc-sweep")
