# Short names for the commands of this repository. Each recipe runs one line, most of them of `cargo xtask`.

# All checks, as CI runs them, whole machines included.
ci:
    .ci/run

# The appliance image: target/image/dyad.img.
image:
    cargo xtask image

# A pair and its witness on this machine, until Ctrl-C.
rig:
    cargo xtask rig

# The main job on a new pair; writes target/rig/report.json.
demo:
    cargo xtask rig demo

# All checks, like `ci`; `cargo xtask test machines` runs only those that boot whole machines.
test:
    cargo xtask test

# As many simulator runs as fit into some minutes.
sim minutes="5":
    cargo xtask sim --minutes {{minutes}}

# The simulator run of one seed, the same each time.
replay seed:
    cargo xtask sim --seed {{seed}}

# Latencies of a mirrored volume beside those of the bare network and disk.
bench:
    cargo xtask bench

# Install the Debian packages that the commands need.
deps:
    cargo xtask deps

# The steps of the README's commands before nodes boot, in a Debian 13 tree.
debian13:
    cargo xtask debian13
