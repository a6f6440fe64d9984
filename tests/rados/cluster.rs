//! The tests themselves.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that can't go on has failed, and says what it did"
)]

use std::sync::Arc;

use cachalot::backend::{RadosBackend, RadosOptions, RadosUrl, contract};
use futures::executor::block_on;

use super::left_out;

const URL: &str = "CACHALOT_RADOS_URL";

/// A namespace of its own, for what a test does.
fn place(test: &str) -> Option<RadosUrl> {
    let Ok(text) = std::env::var(URL) else {
        left_out(test, &format!("{URL} is not set; scripts/rados.sh sets it"));
        return None;
    };
    let mut url: RadosUrl = text.parse().unwrap();
    url.namespace = format!("{test}-{:08x}", rand::random::<u32>());
    Some(url)
}

fn open(url: &RadosUrl) -> Arc<RadosBackend> {
    Arc::new(RadosOptions::default().open(url).unwrap())
}

#[test]
fn the_contract_is_kept() {
    let Some(url) = place("contract") else { return };
    let backend = open(&url);
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
}
