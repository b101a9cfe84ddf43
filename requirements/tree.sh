#!/bin/sh
# Makes FOLDER/bibench_tf, the package as it is installed, of links: for tools that go by paths and do not know the
# mapping of zoo/, tracks/ and deploy/ in setup.cfg.
# usage: tree.sh FOLDER      run from the top folder
set -eu
rm -rf "$1/bibench_tf"
mkdir -p "$1/bibench_tf"
for path in bibench_tf/* zoo tracks deploy; do
    [ "$path" = bibench_tf/__pycache__ ] || ln -s "$(pwd)/$path" "$1/bibench_tf/"
done
