#!/usr/bin/env bash
# Breaks running sweeps until time is up, on this machine and on a throwaway Slurm (root):
#
#   bash scripts/drill.sh SECONDS [SEED] [WHERE]     WHERE: local,outside,slurm,job,chain,one-job,drivers
#
# What was done and seen goes into drill-SEED.jsonl, a line for each round, and a table into
# drill-SEED.md. The same seed draws the same rounds. More options go to pytest through DRILL_OPTIONS.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

make_environment "[test]"
# a disk with a quota, one behind a process, clocks that are set
if ! { command -v gcc && command -v bindfs && PATH="$PATH:/usr/sbin" command -v mkfs.btrfs; } >/dev/null; then
    install_packages --no-install-recommends gcc libc6-dev bindfs btrfs-progs ||
        say "NOTE: without gcc, bindfs and btrfs-progs clocks are not set, and disks hindered by a hook"
fi
seconds="${1:?usage: scripts/drill.sh SECONDS [SEED] [WHERE]}" seed="${2:-0}"
report="$PWD/drill-$seed.jsonl"
cd -- "$CHECKOUT"
code=0
# shellcheck disable=SC2086
.venv/bin/python -m pytest -q tests/drill -k until_time_is_up --drill-seconds "$seconds" \
    --drill-seed "$seed" --drill-on "${3:-local,outside,slurm,job,chain,one-job,drivers}" --drill-report "$report" \
    ${DRILL_OPTIONS:-} || code=$?
cat -- "${report%.jsonl}.md"
exit "$code"
