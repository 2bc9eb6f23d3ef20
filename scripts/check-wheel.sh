#!/bin/sh
# Build the wheel, install it into a clean environment and run it as the image does: check-wheel.sh [FOLDER]
# REDIS_URL names the store to run on. FOLDER, which must be empty, keeps what was made; else it is removed.
set -eu
cd "$(dirname "$0")/.."
: "${REDIS_URL:?set REDIS_URL to a store}"
python=${PYTHON:-python3}
folder=${1:-}
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
chmod 755 "$folder"

sh scripts/node-packages.sh build frontend/* >"$folder/pages.log" 2>&1 || { cat "$folder/pages.log" >&2; exit 1; }
"$python" -m build --wheel --no-isolation --outdir "$folder/dist" . >"$folder/build.log" 2>&1 || { cat "$folder/build.log" >&2; exit 1; }
wheel=$(ls "$folder"/dist/*.whl)
echo "built $(basename "$wheel"), $(wc -c <"$wheel") bytes"

# The versions that were tested, as in deploy/Dockerfile.
sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' requirements/dev.txt >"$folder/versions.txt"
"$python" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -qq --disable-pip-version-check --constraint "$folder/versions.txt" "$wheel[service]"

# Nothing of this checkout or this user: another folder, another user where that can be, an environment of its own.
state=$folder/state
mkdir -m 700 "$state"
as=""
nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
# An interpreter in root's own home is nobody else's.
if [ "$(id -u)" -eq 0 ] && $nobody env "$folder/env/bin/python" -c "" 2>/dev/null; then
    chown 65534 "$state"
    as=$nobody
fi
cp scripts/check_service.py "$folder"
cd /
$as env -i PATH="$folder/env/bin:/usr/bin:/bin" HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    RAPTORFLOW_ENV=production RAPTORFLOW_STATE_DIR="$state" REDIS_URL="$REDIS_URL" \
    SESSION_PEPPERS="c1:$("$python" -c 'import secrets; print(secrets.token_hex(32))')" \
    "$folder/env/bin/python" "$folder/check_service.py" raptorflow up --no-demo --no-gateway --host 127.0.0.1 --port 0 --json
