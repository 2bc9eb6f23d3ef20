#!/bin/sh
# What the tests need of the system: Debian's redis-server 7.0, the oldest server we support, beside the embedded Valkey; and
# Chromium, for what only a browser shows. Where one cannot be had the tests run without it; with CI set, no Chromium is a failure.
set -eu
cd "$(dirname "$0")"
if ! command -v redis-server >/dev/null 2>&1; then
    echo "Installing redis-server with apt, for the tests ..."
    if sh apt-install.sh redis-server; then
        # The tests start their own; a service that was not here before shall not stay.
        if [ -d /run/systemd/system ]; then
            $([ "$(id -u)" -eq 0 ] || echo sudo -n) systemctl disable --quiet --now redis-server || true
        fi
    else
        echo "  not possible here (no apt, or no right to use it): the tests run on the embedded Valkey only."
    fi
fi
if ! command -v chromium >/dev/null 2>&1 && ! command -v chromium-browser >/dev/null 2>&1 &&
    ! command -v google-chrome-stable >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1; then
    echo "Installing chromium with apt, for the tests ..."
    if ! sh apt-install.sh chromium; then
        if [ -n "${CI:-}" ]; then
            echo "  not possible here (no apt, or no right to use it), and CI is set: install chromium, or the browser tests would be skipped." >&2
            exit 1
        fi
        echo "  not possible here (no apt, or no right to use it): the tests run without a browser."
    fi
fi
