#!/bin/sh
# The tests of the page need a Chromium. Takes the one that is there; installs Debian's where apt can; else says what to do.
set -eu
[ -n "${INTERLOCK_CHROMIUM:-}" ] && exit 0
for name in chromium chromium-browser google-chrome chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing Chromium with apt" >&2
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
        exit 0
    fi
    echo "apt could not install it" >&2
fi
echo "There is no Chromium here, and the page is tested in one." >&2
echo "Install it (Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask chromium)," >&2
echo "or set INTERLOCK_CHROMIUM to the path of a Chromium or Chrome." >&2
exit 1
