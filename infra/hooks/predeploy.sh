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

# A trial with them is fine, and so this stops nothing.
warn_of_samples() {
    grep -Fq -e 'https://bakery.example/' -e 'https://florist.example/' || return 0
    cat >&2 <<'END'

WARNING: vendors.json has the sample vendors of the public repository.
    Everybody knows their secrets and can sign webhooks with them, and the orders' webhooks
    go to hosts that are nobody's. Not for real orders: put your own vendors there
    and deploy again.

END
}

if [ -n "${ORDERUP_PACKAGE:-}" ]; then
    [ -f "$ORDERUP_PACKAGE" ] || fail "ORDERUP_PACKAGE names no file: $ORDERUP_PACKAGE"
    if command -v unzip >/dev/null; then
        unzip -p "$ORDERUP_PACKAGE" vendors.json 2>/dev/null | warn_of_samples
    fi
    exit
fi
command -v cargo >/dev/null || fail "needs Rust to make the package, or ORDERUP_PACKAGE with one that exists"
warn_of_samples <vendors.json

# Azure's machines are not this one: on a Mac, or on arm64, Rust has only its own standard library at first.
target=x86_64-unknown-linux-gnu
has_std() {
    ls "$(rustc --print target-libdir --target "$target")"/libstd-*.rlib >/dev/null 2>&1
}
if ! has_std && command -v rustup >/dev/null; then
    rustup target add "$target"
fi
has_std || fail "Rust has no standard library for $target. Install Rust with rustup (https://rustup.rs), which adds it, or \
that of your distribution; or set ORDERUP_PACKAGE to the package of a release"

packaging/zig
target/zig/bin/just package-x86-64
