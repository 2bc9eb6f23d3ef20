#!/bin/sh
# Install, and with `build` also build, the Node packages in some folders: node-packages.sh install|build FOLDER...
# A folder without a package.json is passed over in silence; so is one whose files have not changed since the last time.
set -eu
task=$1
shift

need_node() {
    version=$(node --version 2>/dev/null || echo none)
    major=${version#v}
    major=${major%%.*}
    if [ "$version" = none ] || [ "$major" -lt 20 ] || ! command -v npm >/dev/null 2>&1; then
        echo "$1 needs Node.js 20 or newer, with npm; found: node $version." >&2
        echo "Install it (https://nodejs.org, macOS: brew install node), then run this again." >&2
        exit 1
    fi
}

for folder in "$@"; do
    [ -f "$folder/package.json" ] || continue
    installed=$folder/node_modules/.installed
    if ! [ -f "$installed" ] || [ -n "$(find "$folder/package.json" "$folder/package-lock.json" -newer "$installed")" ]; then
        need_node "$folder"
        echo "Installing the Node packages of $folder ..."
        (cd "$folder" && npm ci --silent --no-audit --no-fund)
        mkdir -p "$folder/node_modules" && touch "$installed"
    fi
    built=$folder/node_modules/.built
    if [ "$task" = build ] && { ! [ -f "$built" ] ||
        [ -n "$(find "$folder" -name node_modules -prune -o -name dist -prune -o -type f -newer "$built" -print)" ] ||
        # Packages of this repository that it is made with.
        [ -n "$(find "$folder"/node_modules/@raptorflow/*/dist -type f -newer "$built" 2>/dev/null)" ]; }; then
        need_node "$folder"
        echo "Building $folder ..."
        (cd "$folder" && npm run --silent build)
        touch "$built"
    fi
done
