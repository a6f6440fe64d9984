# Everything that must hold before a change lands.
ci:
    .ci/run

# What the other recipes need is there.
tools:
    scripts/tools.sh

# The source is formatted.
fmt:
    scripts/fmt.sh

# No lint complains.
lint:
    scripts/lint.sh

# The documentation builds without a complaint.
docs:
    scripts/docs.sh

# All tests.
test:
    scripts/test.sh

# Every backend keeps the contract.
contract:
    scripts/contract.sh

# A short run of the random tests.
seeds:
    scripts/seeds.sh

# Whole caches in virtual time: a fixed set of seeds, or what the options say.
simulate *options:
    scripts/simulate.sh {{options}}

# All small cases of the engine in every order of events.
cases:
    scripts/cases.sh

# The fuzz targets under libFuzzer: one or all, for so many seconds each.
fuzz *options:
    scripts/fuzz.sh {{options}}

# Every example runs.
examples:
    scripts/examples.sh

# The benchmark command works.
bench-smoke:
    scripts/bench-smoke.sh

# 64 MiB into a file store and out again.
round-trip:
    scripts/round-trip.sh

# Object stores, in memory and on a radosgw of their own: all tests, or those of a name.
s3 *name:
    scripts/s3.sh {{name}}

# RADOS on a Ceph cluster of its own: all tests, or those of a name.
rados *name:
    scripts/rados.sh {{name}}

# Clients that were written elsewhere use the gateway.
nbd-clients:
    scripts/nbd-clients.sh

# The gateway's page in a browser without a screen.
page:
    scripts/page.sh

# Every benchmark runs once.
benches:
    scripts/benches.sh

# Other caches beside this one.
peers *options:
    scripts/peers.sh {{options}}

# What threads do to each other, under model checkers.
models *name:
    scripts/models.sh {{name}}

# Real threads under ThreadSanitizer; needs nightly Rust with its sources.
tsan:
    scripts/tsan.sh

# The engine's tests under Miri; needs nightly Rust. Takes long.
miri *name:
    scripts/miri.sh {{name}}

# The tests notice faults that are put into the code; takes an hour or more.
faults *options:
    scripts/faults.sh {{options}}

# File systems on the gateway.
file-systems:
    scripts/file-systems.sh

# Half an hour of clients over a store that fails.
soak:
    scripts/soak.sh

# The gateway beside other servers.
gateway-speed:
    scripts/gateway-speed.sh

# The cache beside librbd, and the gateway beside s3backer.
rados-speed:
    scripts/rados-speed.sh
s3backer-speed:
    scripts/s3backer-speed.sh
