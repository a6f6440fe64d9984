//! Fuzz targets: each takes any bytes, does with them what callers and stores may do, and panics when a promise is
//! broken. `docs/TESTING.md` tells how they are run; the tests here run each over its corpus and over inputs that
//! grow from it.

#![cfg_attr(
    test,
    expect(
        unreachable_pub,
        reason = "the fuzz crate reaches the targets, tests are within"
    )
)]

mod choices;
#[cfg(test)]
mod inputs;
mod layout;
mod requests;
mod serialized;

pub(crate) use choices::Choices;

use crate::{backend, engine};

/// Does with the bytes what it may, and panics when a promise is broken.
pub type Target = fn(&[u8]);

/// The targets and their names, which are those of their corpora in `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("engine", engine::fuzz_engine),
    ("file_names", backend::fuzz::file_names),
    ("layout", layout::layout),
    ("object_header", backend::fuzz::object_header),
    ("operations", backend::fuzz::operations),
    ("range_set", backend::fuzz::range_set),
    ("requests", requests::requests),
    ("serialized", serialized::serialized),
    ("sparse_bytes", backend::fuzz::sparse_bytes),
    ("store_marker", backend::fuzz::store_marker),
    ("window", engine::fuzz_window),
];

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use super::inputs::run_all;

    /// B-02, R-01, R-05, W-01, W-04, F-05, F-06, J-02, S-03, S-05, H-02, H-03, H-04, H-10, H-11, H-13, H-39
    #[test]
    fn the_engine_keeps_its_promises_whatever_is_asked_and_answered_when() {
        run_all(TARGETS, "engine", 12);
    }

    /// B-02, B-03, B-04, W-02, W-03, R-05, R-06, F-03, S-05, H-02, H-05, J-02
    #[test]
    fn a_window_agrees_with_a_plain_array_whatever_happens_to_it() {
        run_all(TARGETS, "window", 100);
    }

    /// P-01, P-02, H-08
    #[test]
    fn a_layout_maps_there_and_back_with_any_numbers() {
        run_all(TARGETS, "layout", 2000);
    }

    /// W-10, R-07, H-20
    #[test]
    fn any_request_is_sound_or_refused() {
        run_all(TARGETS, "requests", 2000);
    }

    /// W-10, H-08, H-28
    #[test]
    fn any_write_to_a_store_is_sound_or_refused() {
        run_all(TARGETS, "operations", 2000);
    }

    #[test]
    fn any_block_is_a_header_of_an_object_or_refused() {
        run_all(TARGETS, "object_header", 2000);
    }

    #[test]
    fn any_file_name_stands_for_one_place_or_for_none() {
        run_all(TARGETS, "file_names", 2000);
    }

    #[test]
    fn damage_to_a_stores_marker_is_noticed() {
        run_all(TARGETS, "store_marker", 2000);
    }

    /// L-02, L-06, W-10
    #[test]
    fn what_is_read_from_text_is_as_sound_as_what_is_made_in_code_and_prints_as_the_same() {
        run_all(TARGETS, "serialized", 2000);
    }

    #[test]
    fn ranges_to_be_synced_agree_with_a_plain_array() {
        run_all(TARGETS, "range_set", 500);
    }

    /// H-02
    #[test]
    fn sparse_bytes_agree_with_a_plain_array() {
        run_all(TARGETS, "sparse_bytes", 300);
    }
}
