#!/bin/sh
# Makes the package that postdeploy.sh publishes; azd runs it before `azd deploy`.
#
# ORDERUP_PACKAGE names a package that exists already, as from a release. Without it, dist/orderup.zip
# is made as `just package-x86-64` makes it, with the just, zig and cargo-zigbuild that packaging/zig installs.
set -eu

fail() {
    echo "infra/hooks/predeploy.sh: $*" >&2
    exit 1
}

if [ -n "${ORDERUP_PACKAGE:-}" ]; then
    [ -f "$ORDERUP_PACKAGE" ] || fail "ORDERUP_PACKAGE names no file: $ORDERUP_PACKAGE"
    exit
fi
command -v cargo >/dev/null || fail "needs Rust to make the package, or ORDERUP_PACKAGE with one that exists"
if grep -Fq 'bakery.example' vendors.json; then
    echo "infra/hooks/predeploy.sh: vendors.json has the sample vendors, whose secrets everybody knows" >&2
fi
packaging/zig
target/zig/bin/just package-x86-64
