#!/bin/sh
# Makes the package that postdeploy.sh publishes; azd runs it before `azd deploy`.
#
# ORDERUP_PACKAGE names a package that exists already, as from a release. Without it, `just package-x86-64` makes dist/orderup.zip.
set -eu

fail() {
    echo "infra/hooks/predeploy.sh: $*" >&2
    exit 1
}

if [ -n "${ORDERUP_PACKAGE:-}" ]; then
    [ -f "$ORDERUP_PACKAGE" ] || fail "ORDERUP_PACKAGE names no file: $ORDERUP_PACKAGE"
    exit
fi
command -v just >/dev/null || fail "needs just to make the package, or ORDERUP_PACKAGE with one that exists"
if grep -Fq 'bakery.example' vendors.json; then
    echo "infra/hooks/predeploy.sh: vendors.json has the sample vendors, whose secrets everybody knows" >&2
fi
just package-x86-64
