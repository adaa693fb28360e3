#!/usr/bin/env bash
#SBATCH --job-name=hpc-sweep-driver
#SBATCH --output=hpc-sweep-driver-%j.log
#SBATCH --open-mode=append
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=24:00:00
# The driver of a sweep as a job of its own, to copy and change:
#
#   sbatch scripts/submit-slurm.sh sweep.yaml [--workers 48 …]
#
# The arguments are those of `hpc-sweep run`. Submit it again to go on after its walltime.
# `hpc-sweep submit` writes such a script itself, from the spec.
set -euo pipefail

# module load python; source /path/to/.venv/bin/activate
exec hpc-sweep run "$@" --cluster slurm
