#!/bin/sh
# Install Debian packages without asking, where that is possible: apt-install.sh PACKAGE...
# Fails quietly, with code 1, where there is no apt, or neither root nor a sudo that asks for no password.
set -eu
command -v apt-get >/dev/null 2>&1 || exit 1
if [ "$(id -u)" -eq 0 ]; then
    sudo=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    exit 1
fi
install() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends "$@" >/dev/null 2>&1
}
# The lists may be missing or old.
install "$@" || { $sudo apt-get update --quiet --quiet >/dev/null 2>&1 && install "$@"; }
