#!/bin/sh
# Prints the first of the given interpreters that can make a virtual environment for bibench, or one line that
# begins with "needs" and says what to install.
# usage: find_python.sh "VERSIONS" CANDIDATE...      e.g. find_python.sh "3.10 3.11 3.12" python3.11 python3
versions=$1
shift
listed=$(echo "$versions" | sed 's/ \([^ ]*\)$/ or \1/; s/\([0-9]\) \([0-9]\)/\1, \2/g')

found=
without_venv=
for candidate in "$@"; do
    # Run it: a pyenv shim is on the PATH also when its version is not selected, and then only fails.
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case " $versions " in
    *" $version "*) ;;
    *)
        found="$found${found:+, }$candidate is $version"
        continue
        ;;
    esac
    # Debian and Ubuntu ship Python without ensurepip, which is in the package python3.x-venv.
    if ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        without_venv=${without_venv:-$version}
        continue
    fi
    if [ "$("$candidate" -c 'import platform, sys; print(sys.platform, platform.machine())')" = "linux aarch64" ]; then
        echo "needs an x86-64 machine on Linux: Larq Compute Engine has no wheel for ARM (docs/installation.md says how to measure on one)"
        exit 1
    fi
    echo "$candidate"
    exit 0
done

if [ -n "$without_venv" ]; then
    echo "needs the venv module of Python $without_venv: apt install python$without_venv-venv, then run make again"
else
    hint="apt install python3.11 python3.11-venv"
    case " $versions " in *" 3.12 "*) hint="$hint (Ubuntu 24.04: python3.12 python3.12-venv)" ;; esac
    echo "needs Python $listed (${found:-none on the PATH}): $hint, or pyenv install 3.11 && pyenv local 3.11, or name one with PYTHON=/path/to/python3.11"
fi
exit 1
