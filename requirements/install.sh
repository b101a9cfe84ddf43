#!/bin/sh
# Creates or updates a virtual environment with the exact versions of a lock and this project, editable.
# usage: install.sh PYTHON VENV [LANE]      run from the top folder; LANE tf218 takes the second lane on Python 3.11
set -eu
python=$1
venv=$2
lane=${3:+-$3}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

version=$(version_of "$python")
lock=requirements/py$(echo "$version" | tr -d .)$lane.lock
[ "$(version_of "$venv/bin/python" || true)" = "$version" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    "$python" -m venv --clear "$venv"

pip() { "$venv/bin/python" -m pip --disable-pip-version-check -qq "$@"; }

echo "Installing $lock into $venv (about 3 GB; some minutes the first time)" >&2
# The build tools come from the lock too, so that nothing is built with versions nobody has tried. An entry of the lock
# ends at the line without a backslash. wheel needs packaging.
sed -n '/^\(packaging\|setuptools\|wheel\)==/,/[^\\]$/p' "$lock" | pip install --no-deps --require-hashes -r /dev/stdin
pip install --no-deps --require-hashes --no-build-isolation -r "$lock"
pip install --no-build-isolation --no-deps --editable .
