#!/bin/sh
# Make a virtual environment with pinned packages: python-env.sh FOLDER REQUIREMENTS
# PYTHON names the interpreter; otherwise the first of the usual names that is new enough is taken.
set -eu
folder=$1
requirements=$2

new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$python"; then break; fi
    python=
done
if [ -z "$python" ]; then
    found=$(${PYTHON:-python3} --version 2>&1 || true)
    echo "RaptorFlow Redis needs Python 3.11 or newer; ${PYTHON:-python3} says: ${found:-nothing}" >&2
    echo "Install one (Debian: apt install python3 python3-venv; macOS: brew install python) or name it: make PYTHON=/path/to/python3" >&2
    exit 1
fi

# Debian keeps what makes environments in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "Installing $package with apt ..."
    if ! sh "$(dirname "$0")/apt-install.sh" "$package"; then
        echo "$python cannot make virtual environments: install $package, then run this again" >&2
        exit 1
    fi
fi

if ! [ -x "$folder/bin/python" ] || ! new_enough "$folder/bin/python"; then
    echo "Making $folder with $("$python" --version) ..."
    "$python" -m venv --clear "$folder"
fi
echo "Installing the pinned packages of $requirements (about a minute the first time) ..."
# The list is complete, so nothing is left to resolve; what is never imported need not be compiled.
"$folder/bin/python" -m pip install -qq --no-deps --no-compile --require-hashes --requirement "$requirements"
