#!/usr/bin/env bash
# Make .venv with the locked packages. Usage: scripts/bootstrap.sh [base|dev]
# Needs Python 3.11; gets uv by itself. Does nothing when the locks have not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind="${1:-base}"
case "$kind" in
    base) lock=requirements.txt ;;
    dev) lock=requirements-dev.txt ;;
    *) echo "bootstrap: '$kind' is unknown; say base or dev" >&2; exit 2 ;;
esac
stamp=.venv/.freshrank-locks

# Trust the certificates this machine trusts, as pip does: a company's proxy has one of its own.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}

# Install a Debian package, or say which one is missing.
install_package() {
    command -v apt-get >/dev/null || fail "$2; install the package that brings it ($1 on Debian)"
    say "installing $1"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null \
        || fail "$2; install it with: sudo apt-get install $1"
}

find_python() {
    local name
    for name in python3.11 python3 python; do
        if command -v "$name" >/dev/null && "$name" -c \
            'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

find_uv() {
    local name
    for name in uv .tools/uv/bin/uv; do
        if "$name" --version >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

sum="$(sha256sum "$lock")"
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && grep -qxF "$sum" "$stamp"; then
    exit 0
fi

python="$(find_python)" || fail "Python 3.11 is needed and was not found on the PATH"

# LightGBM is linked against the system's OpenMP runtime.
if [ "$(uname -s)" = Linux ] && ! "$python" -c \
    'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
    install_package libgomp1 "the OpenMP runtime libgomp.so.1 is missing"
fi

if ! uv="$(find_uv)"; then
    say "getting uv"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        install_package python3-venv "Python's venv module is missing"
    fi
    "$python" -m venv .tools/uv
    .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
    uv=.tools/uv/bin/uv
fi

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    say "making .venv"
    "$uv" venv --quiet --clear --python "$python" .venv
fi

say "installing the packages of $lock"
started=$SECONDS
# Compiled once here, instead of by five services at the same time when they first start.
VIRTUAL_ENV=.venv "$uv" pip sync --quiet --compile-bytecode "$lock"
# The dev lock holds everything of the base lock.
if [ "$kind" = dev ]; then sha256sum requirements.txt requirements-dev.txt; else echo "$sum"; fi \
    >"$stamp"
say "ready in $((SECONDS - started)) s"
