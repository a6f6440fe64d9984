//! The table of transitions, one extent at a time.

use super::*;
use crate::engine::window::{What, WriteEnd};

fn state(window: &Window) -> Option<BufferState> {
    let all = states(window);
    assert!(all.len() <= 1, "one extent falls into {all:?}");
    let known: i64 = window.totals().buffers.iter().sum();
    assert_eq!(known, all.len() as i64, "a buffer is counted in one state");
    all.first().map(|(_, _, state)| *state)
}

/// B-01
#[test]
fn an_extent_is_in_one_state_and_goes_through_the_table() {
    let at = span(0, 10);
    let mut window = Window::default();
    let fill = |stamp| Fill {
        stamp,
        access: Access::Plain,
        is_vouched_for: false,
    };

    assert_eq!(state(&window), None);
    window.begin_fetch(at, OpId(1));
    assert_eq!(state(&window), Some(BufferState::Rx));
    window.fail_fetch(at, OpId(1), &BackendError::Unavailable, 1);
    assert_eq!(state(&window), Some(BufferState::Error));
    window.begin_fetch(at, OpId(2));
    assert_eq!(state(&window), Some(BufferState::Rx));
    window.fill(at, OpId(2), Bytes::from_static(&[1; 10]), fill(2));
    assert_eq!(state(&window), Some(BufferState::Clean));
    put(&mut window, at, 2, written(1, None));
    assert_eq!(state(&window), Some(BufferState::Dirty));
    assert_eq!(send(&mut window, 3), [at]);
    assert_eq!(state(&window), Some(BufferState::Tx));
    window.end_write_back(&[at], OpId(3), WriteEnd::Failed);
    assert_eq!(state(&window), Some(BufferState::Dirty));
    assert_eq!(send(&mut window, 4), [at]);
    put(&mut window, at, 3, written(2, None));
    assert_eq!(state(&window), Some(BufferState::Dirty));
    window.end_write_back(&[at], OpId(4), WriteEnd::Stored { stamp: 4 });
    assert_eq!(
        state(&window),
        Some(BufferState::Dirty),
        "the older bytes were stored"
    );
    assert_eq!(send(&mut window, 5), [at]);
    window.end_write_back(&[at], OpId(5), WriteEnd::Stored { stamp: 5 });
    assert_eq!(state(&window), Some(BufferState::Clean));
    window.remove(at, What::Droppable);
    assert_eq!(state(&window), None);
    window.put_zeros(at, 6);
    assert_eq!(state(&window), Some(BufferState::Zero));
    window.remove(at, What::All);
    assert_eq!(state(&window), None);
}
