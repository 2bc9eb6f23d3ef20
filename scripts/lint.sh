#!/bin/sh
# Every static check, all of them even if one fails; the virtual environment's programs come first on the PATH.
set -u
cd "$(dirname "$0")/.."
failed=""

check() {
    name=$1
    shift
    echo "Checking: $name ..."
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output"
        failed="$failed $name,"
    fi
}

check "ruff" ruff check --quiet .
check "format" ruff format --check --quiet .
check "mypy" mypy
if command -v node >/dev/null 2>&1; then
    check "pyright" pyright
else
    echo "pyright needs Node.js 20 or newer: install it (https://nodejs.org, macOS: brew install node)" >&2
    failed="$failed pyright,"
fi
check "import floors" lint-imports --no-logo
check "types of the blocking API" python scripts/sync_stub.py --check

if [ -n "$failed" ]; then
    echo "Not in order:${failed%,}" >&2
    exit 1
fi
echo "All static checks pass."
