#!/bin/sh
# Names each thing that the set-up needs and that this machine lacks, one line each. Exit code 1 if there is any.
python=${1:-python3}
cargo=${2:-cargo}
missing=0

lacks() {
    echo "setup: $1" >&2
    missing=1
}

[ "$(uname -s)" = Linux ] || lacks "Linux is needed; this is $(uname -s)"
if ! command -v "$python" >/dev/null 2>&1; then
    lacks "Python 3.11 or newer is missing ('$python' is not there); install it, or name one: make setup PYTHON=..."
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    lacks "Python 3.11 or newer is needed; '$python' is $("$python" --version 2>&1); name one: make setup PYTHON=..."
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    lacks "Python's venv is missing; on Debian: apt-get install python3-venv"
fi
if ! command -v "$cargo" >/dev/null 2>&1 || ! command -v rustc >/dev/null 2>&1; then
    lacks "the Rust toolchain (cargo, rustc 1.95 or newer) is missing; see https://rustup.rs"
elif ! rustc --version | awk '{ split($2, v, "."); exit !(v[1] > 1 || v[2] >= 95) }'; then
    lacks "Rust 1.95 or newer is needed; this is $(rustc --version)"
fi
command -v cc >/dev/null 2>&1 || lacks "a C compiler ('cc') is missing; on Debian: apt-get install gcc libc6-dev"
exit $missing
