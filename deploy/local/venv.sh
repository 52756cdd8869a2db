#!/usr/bin/env bash
# Creates the virtual environment in .venv from requirements-dev.txt, and checks the hash of every package.
# Usage: deploy/local/venv.sh [PYTHON]. make calls it when the environment is missing or out of date.
set -euo pipefail
cd "$(dirname "$0")/../.."

wanted=${1:-python3}
log=var/log/pip.log

supported() { # is $1 a Python of the range that pyproject.toml names?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

fail() { printf '%s\n' "$@" >&2; exit 2; }

python=
for candidate in "$wanted" python3.13 python3.12 python3.11; do
    if supported "$candidate"; then python=$candidate; break; fi
    # if the user named a Python, no other one is used
    [ "$wanted" = python3 ] || break
done
[ -n "$python" ] || fail \
    "The order suite needs Python 3.11, 3.12 or 3.13; '$wanted' is $(command -v "$wanted" >/dev/null && "$wanted" --version || echo 'not there')." \
    "Install one and name it: make run PYTHON=/path/to/python3.12" \
    "Or, without any Python on this machine: docker compose up"

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package, a separate package on Debian and Ubuntu ..."
        mkdir -p var/log
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package"; } >var/log/apt.log 2>&1 ||
            { tail -n 15 var/log/apt.log >&2; fail "apt could not install $package; the lines above say why."; }
    else
        fail "$python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install $package" \
            "Or, with nothing installed but Docker: docker compose up"
    fi
fi

# --clear below would delete the content of the linked environment
[ ! -L .venv ] || fail ".venv is a link to an environment that others use: update it there, or remove the link." \
    "If it is up to date already: touch .venv/.complete"

mkdir -p var/log
echo "Creating .venv with $("$python" --version) ..."
# --clear deletes an incomplete environment that an interrupted run has left
"$python" -m venv --clear .venv
# First what builds the packages without a wheel: --no-build-isolation uses it, instead of the newest release.
pip=(.venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off --require-hashes)
"${pip[@]}" --only-binary :all: --requirement requirements-build.txt >"$log" 2>&1 ||
    { tail -n 15 "$log" >&2; fail "pip could not install the build tools; the lines above and $log say why."; }
# Prints one line for every ten packages. pip's own output, several hundred lines, is in the log.
if ! "${pip[@]}" --no-build-isolation --requirement requirements-dev.txt 2>&1 | tee "$log" | awk -v total="$(grep -c '^[A-Za-z0-9]' requirements-dev.txt)" '
        /^(Collecting|Processing) / { if (++n % 10 == 0) { printf "  %d of about %d packages\n", n, total; fflush() } }
        /^Building wheels/ { print "  building packages without a wheel"; fflush() }
        /^Installing collected/ { print "  installing"; fflush() }'
then
    tail -n 15 "$log" >&2
    fail "pip could not install the dependencies; the lines above and $log say why."
fi

# config.yml names our log formatter, and `nameko` imports it before it adds the current folder to its import path.
pwd >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/order-suite.pth"
