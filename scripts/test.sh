#!/usr/bin/env bash
# Everything that CI runs, on a machine where nothing was prepared:
#
#   bash scripts/test.sh              all checks and all tests
#   bash scripts/test.sh -k store     other arguments go to pytest: -n 3 for less at a time
#
# Installs Chromium, Slurm, munge and what their nodes need from the distribution's packages where it
# may (root or sudo), and tests on a throwaway Slurm of three nodes. Where it may not, the Slurm tests
# are skipped and counted; with CI=true that is a failure.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

make_environment "[test]"
cd -- "$CHECKOUT"

slurm_is_there() {
    local name
    for name in slurmctld slurmd munged qsub ip nsenter unshare; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$name" >/dev/null || return 1
    done
}

if ! slurm_is_there; then
    install_packages --no-install-recommends slurm-wlm slurm-wlm-torque munge iproute2 util-linux ||
        say "Slurm cannot be installed here: no right to, or no such packages"
fi
if ! slurm_is_there || [[ "$(id -u)" -ne 0 ]]; then
    if [[ "${CI:-}" == true ]]; then
        say "error: CI=true, but there is no Slurm to test on (it needs root and its packages)"
        exit 1
    fi
    say "NOTE: without root and Slurm's packages the Slurm tests below are SKIPPED"
fi

# the drill sets clocks by a library of its own
if ! command -v gcc >/dev/null; then
    install_packages --no-install-recommends gcc libc6-dev ||
        say "NOTE: without gcc no clock is set while a sweep runs"
fi

# the pages that reports make are looked at in a real browser
if ! command -v chromium >/dev/null; then
    install_packages --no-install-recommends chromium || {
        say "error: no chromium here, and no right to install it: the tests of reports need it"
        exit 1
    }
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
# beside the tests, some of which only wait
types="$(mktemp)"
cache="$(mktemp -d)"
trap 'rm -rf -- "$types" "$cache"' EXIT
.venv/bin/mypy >"$types" 2>&1 &
mypy=$!
# else each of some hundred interpreters would compile the package anew
unset PYTHONDONTWRITEBYTECODE
pytest=(.venv/bin/python -m pytest -o cache_dir="$cache")
# six at a time, each with a Slurm of its own: these tests wait more than they work
code=0
"${pytest[@]}" -n 6 --dist worksteal "$@" || code=$?
# up to three that failed are run once more, alone: a machine that is too busy is no fault of the
# code, but a test that minds is a defect, so each is told by its name
failed="$cache/v/cache/lastfailed"
if [[ "$code" -eq 1 && -e "$failed" && "$(grep -c :: "$failed")" -le 3 ]]; then
    say "failed, and run once more, alone:"
    grep :: "$failed"
    code=0
    "${pytest[@]}" --last-failed "$@" || code=$?
    [[ "$code" -ne 0 ]] || say "NOTE: these passed at the second try only; mend them"
fi
wait "$mypy" || code=1
cat -- "$types"
exit "$code"
