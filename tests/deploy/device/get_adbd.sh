#!/usr/bin/env bash
# usage: get_adbd.sh PREFIX
# Unpacks adbd, the program at the phone's end of adb, and its libraries from Debian 13 under PREFIX. Debian 12 has no such
# package; the computer's own packages and lists stay as they are. The mirror is the one apt uses already.
set -euo pipefail
prefix=$1
[ -x "$prefix/usr/lib/android-sdk/platform-tools/adbd" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | sort -u | head -n 1)
if [ -z "$mirror" ]; then
    echo "get_adbd.sh: apt has no list of a Debian mirror; run apt-get update first" >&2
    exit 1
fi
mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work"/tree
: >"$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/list"
apt=(apt-get -q
    -o Dir::Etc::SourceList="$work/list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State="$work/state" -o Dir::State::Lists="$work/state/lists" -o Dir::State::status="$work/status"
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
"${apt[@]}" update >/dev/null
"${apt[@]}" -y --download-only install adbd >/dev/null
for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
# Whole or not at all: an interrupted run leaves nothing that looks finished.
mkdir -p "$(dirname "$prefix")"
rm -rf "$prefix"
mv "$work/tree" "$prefix"
