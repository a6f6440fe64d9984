//! Fuzz targets of the tool: text and bytes that come from outside. `docs/TESTING.md` tells how they are run; the tests
//! here run each over its corpus and over inputs that grow from it.

#![cfg_attr(
    test,
    expect(
        unreachable_pub,
        reason = "the fuzz crate reaches the targets, tests are within"
    )
)]

// Bytes read as choices, and inputs that grow from a corpus, are those of the library.
#[path = "../../../src/fuzz/choices.rs"]
mod choices;
#[cfg(test)]
#[path = "../../../src/fuzz/inputs.rs"]
mod inputs;

pub(crate) use choices::Choices;

use crate::output::one_line;
use crate::store::StoreUrl;
use crate::{cli, volume};

/// Does with the bytes what it may, and panics when a promise is broken.
pub type Target = fn(&[u8]);

/// The targets and their names, which are those of their corpora in `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin_requests", admin_requests),
    ("command_line", cli::fuzz::command_line),
    ("config_file", cli::fuzz::config_file),
    ("nbd_messages", nbd_messages),
    ("sizes_and_times", cli::fuzz::sizes_and_times),
    ("step_lists", cli::fuzz::step_lists),
    ("store_urls", store_urls),
    ("volume_header", volume::fuzz::volume_header),
    ("volume_names", volume::fuzz::volume_names),
];

/// An error as the command prints it is one line that says something.
pub(crate) fn check_line(line: &str) {
    let is_plain = !line.chars().any(char::is_control);
    assert!(is_plain && line.lines().count() == 1, "{line:?}");
}

/// A store's address that is taken is printed as one that means the same.
fn store_urls(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match text.parse::<StoreUrl>() {
        Ok(url) => assert_eq!(url.to_string().parse(), Ok(url)),
        Err(error) => check_line(&one_line(&error)),
    }
}

/// What comes over the admin socket is refused in one line, or is a request that reads the same when it is written, and
/// limits that it asks for are sound or refused.
fn admin_requests(input: &[u8]) {
    use crate::ctl::protocol::Request;
    let request: Request = match serde_json::from_slice(input) {
        Ok(request) => request,
        Err(error) => return check_line(&one_line(&error.to_string())),
    };
    let line = serde_json::to_string(&request).unwrap();
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    if let Request::Limits { change } = request {
        let config = change.applied_to(&cachalot::CacheConfig::default());
        if let Ok(limits) = cachalot::Limits::try_from(&config) {
            assert!(limits.target_dirty_bytes <= limits.max_dirty_bytes);
            assert!(limits.max_dirty_bytes <= limits.max_bytes);
        }
    }
}

/// What a client of the gateway sends is refused, or is what comes out when it is written again.
fn nbd_messages(input: &[u8]) {
    use cachalot_nbd::wire;
    if let Ok(request) = wire::request(input) {
        let written = wire::request_bytes(&request);
        assert_eq!(input.get(..wire::REQUEST_BYTES), Some(&written[..]));
    }
    if let Ok(header) = wire::option_header(input) {
        let written = wire::option_bytes(header.option, b"");
        assert_eq!(input.get(..12), written.get(..12));
    }
    if let Some(request) = wire::info_request(input) {
        let bytes = 4 + request.name.len() + 2 + 2 * request.kinds.len();
        assert_eq!(input.len(), bytes);
    }
    if let Some(request) = wire::meta_request(input) {
        let queries: usize = request.queries.iter().map(|query| 4 + query.len()).sum();
        assert_eq!(input.len(), 4 + request.name.len() + 4 + queries);
    }
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use super::inputs::run_all;

    #[test]
    fn what_comes_over_the_admin_socket_is_refused_or_understood() {
        run_all(TARGETS, "admin_requests", 3000);
    }

    #[test]
    fn any_command_line_is_taken_or_refused_in_one_line() {
        run_all(TARGETS, "command_line", 1000);
    }

    /// L-02
    #[test]
    fn any_configuration_file_is_refused_in_one_line_or_means_what_it_prints_as() {
        run_all(TARGETS, "config_file", 1000);
    }

    #[test]
    fn what_a_client_of_the_gateway_sends_is_refused_or_understood() {
        run_all(TARGETS, "nbd_messages", 3000);
    }

    #[test]
    fn sizes_and_times_are_read_as_they_are_printed() {
        run_all(TARGETS, "sizes_and_times", 3000);
    }

    #[test]
    fn the_command_that_replays_a_failure_plays_its_steps() {
        run_all(TARGETS, "step_lists", 1000);
    }

    #[test]
    fn store_addresses_are_read_as_they_are_printed() {
        run_all(TARGETS, "store_urls", 3000);
    }

    #[test]
    fn damage_to_a_volumes_header_is_noticed() {
        run_all(TARGETS, "volume_header", 2000);
    }

    #[test]
    fn every_object_belongs_to_one_volume_at_most() {
        run_all(TARGETS, "volume_names", 3000);
    }
}
