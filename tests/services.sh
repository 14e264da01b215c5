#!/bin/sh
# The real servers and tools that the tests use: installed from Debian when they are missing and we may, else said in one line.
# Quiet when everything is there. Exit status 1 when something is missing.
# With `build PYTHON`: only what compiling a package for that Python takes.
set -u
PATH="$PATH:/usr/sbin:/sbin"

missing=""
if [ "${1:-}" = build ]; then
    command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
    "$2" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        missing="$missing python3-dev"
else
    command -v mosquitto >/dev/null 2>&1 || missing="$missing mosquitto"
    command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
    command -v softhsm2-util >/dev/null 2>&1 || missing="$missing softhsm2"
    command -v xdelta3 >/dev/null 2>&1 || missing="$missing xdelta3"
    command -v strace >/dev/null 2>&1 || missing="$missing strace"
    command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
fi
[ -z "$missing" ] && exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true >/dev/null 2>&1; then as_root="sudo -n"; else
        echo "tests: missing:$missing. Install with: sudo apt-get install$missing" >&2
        exit 1
    fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "tests: missing:$missing, and there is no apt-get here to install them" >&2
    exit 1
fi

echo "tests: installing$missing"
log=$(mktemp)
apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1; }
# Word splitting is meant: the names are ours.
# shellcheck disable=SC2086
if ! { apt update && apt install -y --no-install-recommends $missing; }; then
    echo "tests: could not install$missing; apt's last word: $(tail -n 1 "$log") (all of it: $log)" >&2
    exit 1
fi
rm -f "$log"
# The tests start brokers of their own: the system's, which the package switched on, is not wanted.
case "$missing" in *mosquitto*)
    if [ -d /run/systemd/system ]; then $as_root systemctl disable --now --quiet mosquitto >/dev/null 2>&1 || true; fi ;;
esac
exit 0
