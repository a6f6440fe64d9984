//! RADOS on a real cluster: `scripts/rados.sh` starts one and runs these.
//!
//! `CACHALOT_RADOS_URL` names the pool, as in `rados://pool?conf=ceph.conf`, and `CACHALOT_CLUSTER` the directory given to
//! `scripts/cluster.sh`, for the test that kills the OSD. What they do not name is left out, loudly.

/// Says on the terminal, past the test runner, what was not tested.
fn left_out(what: &str, missing: &str) {
    use std::io::Write;
    let note = format!("\nSKIPPED: {what}: {missing}\n");
    assert!(std::io::stderr().write_all(note.as_bytes()).is_ok());
}

#[cfg(not(feature = "rados"))]
#[test]
fn rados_is_a_feature() {
    left_out(
        "RADOS",
        "built without the feature rados; scripts/rados.sh tests it",
    );
}

#[cfg(feature = "rados")]
#[path = "stores/shared.rs"]
mod shared;

#[cfg(feature = "rados")]
#[path = "rados/cluster.rs"]
mod cluster;
