//! Object stores on a real server: `scripts/s3.sh` starts one and runs these.
//!
//! `CACHALOT_S3_URL` names the place, as in `s3://bucket/prefix?endpoint=http://127.0.0.1:8000`, and
//! `CACHALOT_CLUSTER`, `CACHALOT_CLUSTER_RGW` the directory and port given to `scripts/cluster.sh`, for the test that
//! kills the server. What they do not name is left out, loudly.

/// Says on the terminal, past the test runner, what was not tested.
fn left_out(what: &str, missing: &str) {
    use std::io::Write;
    let note = format!("\nSKIPPED: {what}: {missing}\n");
    assert!(std::io::stderr().write_all(note.as_bytes()).is_ok());
}

#[cfg(not(feature = "object-store"))]
#[test]
fn object_stores_are_a_feature() {
    left_out(
        "object stores",
        "built without the feature object-store; scripts/s3.sh tests them",
    );
}

#[cfg(feature = "object-store")]
#[path = "stores/shared.rs"]
mod shared;

#[cfg(feature = "object-store")]
#[path = "object_store/server.rs"]
mod server;

#[cfg(feature = "object-store")]
#[path = "object_store/proxy.rs"]
mod proxy;

#[cfg(feature = "object-store")]
#[path = "object_store/outages.rs"]
mod outages;
