# The everyday commands. `just` is a convenience (packaging/zig installs it, or `cargo install just`): each recipe is
# plain cargo, to be typed just as well.

export PATH := justfile_directory() / "target/zig/bin" + ":" + env("PATH")

cargo_home := env("CARGO_HOME", home_directory() / ".cargo")
# Where it is built is nobody's business, and does not change the bytes.
rustflags := "--remap-path-prefix=" + cargo_home + "=/cargo --remap-path-prefix=" + justfile_directory() + "=/orderup"
zigbuild := "RUSTFLAGS='" + rustflags + "' cargo zigbuild --release --package orderup --locked"

_default:
    @just --list --unsorted

# Everything on this machine: handler, Functions host, Service Bus, and stand-ins for the outside
run *arguments:
    cargo run -p devhost -- {{arguments}}

# All tests but those with other people's software
test *arguments:
    cargo test --workspace --locked {{arguments}}

# The gate, before a change lands
ci:
    .ci/run

# What is deployed: dist/orderup.zip (x86-64), dist/orderup-arm64.zip, and what tells what is in them
package: build-x86-64 build-arm64
    cargo run --quiet --package packaging --locked -- x86-64 arm64

# The same without arm64, where Rust's standard library for it cannot be had
package-x86-64: build-x86-64
    cargo run --quiet --package packaging --locked -- x86-64

# The handler for x86-64, for glibc 2.28 or newer
build-x86-64: zig
    {{zigbuild}} --target x86_64-unknown-linux-gnu.2.28

# The handler for arm64; needs `rustup target add aarch64-unknown-linux-gnu`
build-arm64: zig
    {{zigbuild}} --target aarch64-unknown-linux-gnu.2.28

# The pinned zig and cargo-zigbuild
zig:
    packaging/zig

# The linters of workflows, YAML and shell scripts
lint *names:
    tests/lint/run {{names}}
