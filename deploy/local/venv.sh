#!/usr/bin/env bash
# Makes the virtual environment in .venv from requirements-dev.txt, every package checked against its hash.
# Usage: deploy/local/venv.sh [PYTHON]. It is called by make, which knows when it is out of date.
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
    # a Python that was asked for by name is not silently replaced by another one
    [ "$wanted" = python3 ] || break
done
[ -n "$python" ] || fail \
    "The order suite needs Python 3.11, 3.12 or 3.13; '$wanted' is $(command -v "$wanted" >/dev/null && "$wanted" --version || echo 'not there')." \
    "Install one and name it: make run PYTHON=/path/to/python3.12" \
    "Or, without any Python on this machine: docker compose up"

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package, which Debian keeps apart from Python ..."
        mkdir -p var/log
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package"; } >var/log/apt.log 2>&1 ||
            { tail -n 15 var/log/apt.log >&2; fail "apt could not install $package; the lines above say why."; }
    else
        fail "$python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install $package" \
            "Or, with nothing installed but Docker: docker compose up"
    fi
fi

# --clear below would empty the environment of whoever it belongs to
[ ! -L .venv ] || fail ".venv is a link, to an environment that others use: bring it up to date there, or remove the link." \
    "If it is up to date already: touch .venv/.complete"

mkdir -p var/log
echo "Making .venv with $("$python" --version) ..."
# --clear: an environment that an earlier, interrupted run left half-filled is not worth mending
"$python" -m venv --clear .venv
# One line for every ten packages instead of pip's several hundred; all of them are in the log.
if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
    --require-hashes --requirement requirements-dev.txt 2>&1 | tee "$log" | awk -v total="$(grep -c '^[A-Za-z0-9]' requirements-dev.txt)" '
        /^(Collecting|Processing) / { if (++n % 10 == 0) { printf "  %d of about %d packages\n", n, total; fflush() } }
        /^Building wheels/ { print "  building what has no wheel"; fflush() }
        /^Installing collected/ { print "  installing"; fflush() }'
then
    tail -n 15 "$log" >&2
    fail "pip could not install the dependencies; the lines above and $log say why."
fi

# config.yml names a class of ours for the log, which `nameko` reads before it looks at the folder it runs in
pwd >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/order-suite.pth"
