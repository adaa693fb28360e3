# shellcheck shell=bash
# To be sourced by the other scripts, after their `set -euo pipefail`:
#
#   source environment.sh
#   make_environment            # installs the package into .venv of the checkout
#   make_environment "[test]"   # with an extra
#
# PYTHON=… chooses the interpreter that .venv is made with. What was done before is not done again.
# The functions talk on standard error; those that fail return 2 after saying what is wrong.

CHECKOUT="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$CHECKOUT/.venv"

# Two marks inside .venv. The first says that we made it, and of what, so that we may also remove
# it. The second says what is installed: a checksum, then the extras.
VENV_MADE="$VENV/hpc-sweep-made"
VENV_INSTALLED="$VENV/hpc-sweep-installed"

say() { printf '%s\n' "$*" >&2; }

# find_python: prints the path of an interpreter of version 3.11.1 or later.
find_python() {
    local names=(python3 python3.13 python3.12 python3.11) name place found=""
    [[ -z "${PYTHON:-}" ]] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if ! place="$(command -v -- "$name")"; then
            found+=$'\n'"  $name: not found"
        elif ! "$place" -c 'import sys' 2>/dev/null; then # such as a pyenv shim of nothing
            found+=$'\n'"  $name: $place does not run"
        elif "$place" -c 'import sys; sys.exit(sys.version_info < (3, 11, 1))'; then
            # Not a shim, which may choose another one elsewhere, nor an active environment's.
            "$place" -c 'import sys; print(sys._base_executable)'
            return
        else
            found+=$'\n'"  $name: $place is version $(version_of "$place")"
        fi
    done
    say "error: this needs Python 3.11.1 or later; found:$found"
    say "Choose another: PYTHON=/path/to/python3 bash $(printf '%q' "$0")"
    return 2
}

version_of() { "$1" -c 'import platform; print(platform.python_version())'; }

# origin_of PYTHON: one line that tells installations of Python apart, and where .venv is: it cannot
# be moved.
origin_of() {
    "$1" -c 'import platform, sys
print(platform.python_version(), sys.base_prefix, *sys.argv[1:])' "$VENV"
}

# as_root COMMAND...: fails at once where that would take a password.
as_root() {
    if [[ "$(id -u)" -eq 0 ]]; then
        "$@"
    else
        command -v sudo >/dev/null && sudo -n true 2>/dev/null && sudo -n "$@"
    fi
}

# install_packages PACKAGE...: from the Debian or Ubuntu archive; fails where we may not.
install_packages() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120)
    command -v apt-get >/dev/null && as_root true || return 2
    say "Installing $* with apt-get"
    as_root "${apt[@]}" install "$@" >/dev/null 2>&1 && return
    # the usual reason: the machine has no list of packages yet, or an old one
    as_root "${apt[@]}" update >/dev/null && as_root "${apt[@]}" install "$@" >/dev/null
}

# create_venv PYTHON: makes .venv complete, or leaves nothing. In a subshell, for a trap of its own.
create_venv() (
    python="$1"
    say "Making .venv with Python $(version_of "$python"), $python"
    mkdir -- "$VENV" || return 2
    trap 'rm -rf -- "$VENV"' EXIT
    # Until the end the mark fits nothing, so that after a SIGKILL the next run begins anew.
    echo "unfinished" >"$VENV_MADE" || return 2
    if ! words="$("$python" -m venv "$VENV" 2>&1)"; then
        if "$python" -c 'import ensurepip; ensurepip.version()' 2>/dev/null || ! command -v apt-get >/dev/null; then
            say "error: $python -m venv failed:"$'\n'"$words"
            return 2
        fi
        # Debian and Ubuntu keep this part of Python in a package of its own.
        package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        if ! install_packages "$package"; then
            say "error: this Python cannot make virtual environments yet. Install the package:"
            say "  sudo apt-get install $package"
            return 2
        fi
        "$python" -m venv "$VENV" >&2 || return 2
    fi
    origin_of "$VENV/bin/python" >"$VENV_MADE" || return 2
    trap - EXIT
)

# venv_fits: tells whether .venv can be used as it is.
venv_fits() {
    local origin
    origin="$(origin_of "${PYTHON:-$VENV/bin/python}" 2>/dev/null)"
    [[ "$origin" == "$(cat -- "$VENV_MADE")" ]]
}

# adopt_venv: uses a .venv that the user made, as far as it can be used; never removes it.
adopt_venv() {
    local python="$VENV/bin/python" remedy="remove it, or move it away"
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11, 1))' 2>/dev/null; then
        say "error: $VENV is not an environment of Python 3.11.1 or later: $remedy"
    elif ! "$python" -c 'import pip' 2>/dev/null; then
        say "error: $VENV has no pip: add it, or $remedy"
    elif [[ -n "${PYTHON:-}" && "$(origin_of "$PYTHON")" != "$(origin_of "$python")" ]]; then
        say "error: $VENV was not made with PYTHON=$PYTHON: leave PYTHON out, or $remedy"
    else
        return 0
    fi
    return 2
}

# install_project EXTRAS: installs the package, editable, unless that was done.
install_project() {
    local extras="$1" checksum
    checksum="$(cd -- "$CHECKOUT" && .venv/bin/python -c 'import hashlib, pathlib, sys
text = b"".join(pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
print(hashlib.sha256(text + repr((sys.version, sys.prefix)).encode()).hexdigest())')" || return 2
    if [[ -f "$VENV_INSTALLED" && "$(head -n 1 -- "$VENV_INSTALLED")" == "$checksum" ]]; then
        grep -qxF -- "with $extras" "$VENV_INSTALLED" && return
    else
        echo "$checksum" >"$VENV_INSTALLED" || return 2
    fi
    say "Installing hpc_sweep$extras and what it needs into .venv; the first time takes some minutes"
    # PIP_USER: some sites set it for everybody, and pip refuses it inside an environment.
    (cd -- "$CHECKOUT" && PIP_USER=0 .venv/bin/python -m pip install --quiet --no-input \
        --disable-pip-version-check -c constraints.txt -e ".$extras" >&2) || return 2
    printf 'with %s\n' "" ${extras:+"$extras"} >>"$VENV_INSTALLED"
}

# make_environment [EXTRAS]: makes .venv in the checkout and installs the package into it.
make_environment() {
    local python PYTHON="${PYTHON:-}"
    [[ -z "$PYTHON" ]] || PYTHON="$(find_python)" || return 2
    if [[ -e "$VENV_MADE" ]] && ! venv_fits; then
        find_python >/dev/null || return 2 # before anything is removed
        say "Removing .venv: it was made with another Python, in another place, or not completely"
        rm -rf -- "$VENV" || return 2
    elif [[ ! -e "$VENV_MADE" ]] && [[ -e "$VENV" || -L "$VENV" ]]; then
        adopt_venv || return 2
    fi
    if [[ ! -e "$VENV" ]]; then
        python="$(find_python)" && create_venv "$python" || return 2
    fi
    install_project "${1:-}"
}
