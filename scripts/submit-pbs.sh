#!/usr/bin/env bash
#PBS -N hpc-sweep-driver
#PBS -j oe
#PBS -l select=1:ncpus=1:mem=4gb
#PBS -l walltime=24:00:00
# The driver of a sweep as a job of its own, to copy and change:
#
#   qsub -v SPEC=sweep.yaml scripts/submit-pbs.sh
#
# SPEC is relative to where qsub was called. Submit it again to go on after its walltime.
# `hpc-sweep submit` writes such a script itself, from the spec.
set -euo pipefail

cd "${PBS_O_WORKDIR:?}" # a PBS job starts in the home folder
# module load python; source /path/to/.venv/bin/activate
exec hpc-sweep run "${SPEC:?give -v SPEC=sweep.yaml}" --cluster pbs
