# What people type. Each recipe is one line over `cargo xtask`; without `just`, type that line.

# Exactly what CI runs: every test, whole machines included.
ci:
    .ci/run

# The appliance image: target/image/dyad.img.
image:
    cargo xtask image

# A pair and its witness on this machine, until Ctrl-C.
rig:
    cargo xtask rig

# Runs the main job; writes target/rig/report.json.
demo:
    cargo xtask rig demo

# The same; `cargo xtask test machines` runs only those that boot whole machines.
test:
    cargo xtask test

# As many simulator runs as fit into some minutes.
sim minutes="5":
    cargo xtask sim --minutes {{minutes}}

# One simulator run again, exactly as it was.
replay seed:
    cargo xtask sim --seed {{seed}}

# What replication costs beside the bare limits.
bench:
    cargo xtask bench

# Install what a fresh Debian lacks.
deps:
    cargo xtask deps

# What the commands above do on the host, tried in a Debian 13 tree.
debian13:
    cargo xtask debian13
