//! The suite finds stores that break their promises, and names the promise.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each store breaks one operation and passes all others on"
)]

use std::task::Poll;
use std::thread;

use futures::future::{poll_fn, ready};

use super::*;
use crate::backend::{Answer, AnswerFuture, Decorator, MemoryBackend, Operation};

type Break = fn(&Breaking, Operation) -> AnswerFuture;

/// Memory behind an operation that goes wrong.
struct Breaking {
    memory: Arc<MemoryBackend>,
    given_up: Arc<Mutex<Vec<Operation>>>,
    operate: Break,
}

impl fmt::Debug for Breaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}

impl Decorator for Breaking {
    fn inner(&self) -> &dyn Backend {
        &*self.memory
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        (self.operate)(self, operation)
    }
}

impl Breaking {
    fn pass(&self, operation: Operation) -> AnswerFuture {
        operation.start(&*self.memory)
    }

    /// Passes an operation on and changes its bytes.
    fn pass_bytes(&self, operation: Operation, change: fn(Bytes) -> Bytes) -> AnswerFuture {
        let answering = self.pass(operation);
        let change = move |answer| match answer {
            Answer::Bytes(bytes) => Answer::Bytes(change(bytes)),
            other => other,
        };
        answering.map(move |answer| answer.map(change)).boxed()
    }
}

fn done() -> AnswerFuture {
    ready(Ok(Answer::Done)).boxed()
}

fn lower(name: &ObjectName) -> ObjectName {
    ObjectName::new(name.as_str().to_lowercase()).unwrap()
}

/// Keeps a write that is dropped before it is answered.
struct GiveUp(Option<Operation>, Arc<Mutex<Vec<Operation>>>);

impl GiveUp {
    fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.1.lock().extend(self.0.take());
    }
}

const BREAKS: &[(&str, Break)] = &[
    ("an_absent_object_is_not_found", |store, op| match op {
        Operation::Read(read) => {
            let reading = store.pass(Operation::Read(read));
            let empty = |_| Ok(Answer::Bytes(Bytes::new()));
            reading.map(move |answer| answer.or_else(empty)).boxed()
        }
        op => store.pass(op),
    }),
    ("reads_past_the_end_are_short", |store, op| {
        store.pass_bytes(op, |bytes| {
            if bytes.is_empty() {
                Bytes::from_static(b"?")
            } else {
                bytes
            }
        })
    }),
    ("holes_read_as_zeros", |store, op| {
        store.pass_bytes(op, |bytes| Bytes::from([&bytes[..], b"\0"].concat()))
    }),
    ("small_answers_own_small_buffers", |store, op| {
        store.pass_bytes(op, |bytes| {
            let large = Bytes::from([&bytes[..], &[0; 1 << 20]].concat());
            large.slice(..bytes.len())
        })
    }),
    ("runs_may_lie_apart", |store, op| match op {
        Operation::Write(mut write) => {
            write.runs.truncate(2);
            store.pass(Operation::Write(write))
        }
        op => store.pass(op),
    }),
    ("buffers_of_a_run_are_joined", |store, op| match op {
        Operation::Write(mut write) => {
            write.runs[0].buffers.truncate(3);
            store.pass(Operation::Write(write))
        }
        op => store.pass(op),
    }),
    (
        "a_newer_truncation_cuts_before_it_stores",
        |store, op| match op {
            Operation::Write(mut write) => {
                write.truncation = Truncation::default();
                store.pass(Operation::Write(write))
            }
            op => store.pass(op),
        },
    ),
    ("a_newer_truncation_bounds_reads", |store, op| match op {
        Operation::Read(mut read) => {
            read.truncation = Truncation::default();
            store.pass(Operation::Read(read))
        }
        op => store.pass(op),
    }),
    ("an_old_truncation_changes_nothing", |store, op| match op {
        Operation::Read(mut read) if read.truncation.seq > 0 => {
            read.truncation.seq = u64::MAX;
            store.pass(Operation::Read(read))
        }
        op => store.pass(op),
    }),
    (
        "a_newer_context_keeps_the_old_bytes",
        |store, op| match op {
            Operation::Write(mut write) => {
                write.context = SnapContext::default();
                store.pass(Operation::Write(write))
            }
            op => store.pass(op),
        },
    ),
    ("discard_zeros_exactly_its_range", |store, op| match op {
        Operation::Discard { .. } => done(),
        op => store.pass(op),
    }),
    ("discard_never_grows", |store, op| match op {
        Operation::Discard { object, range } => {
            let (memory, grown) = (Arc::clone(&store.memory), Operation::Stat(object.clone()));
            let size = range.end().min(1 << 40);
            let statting = store.pass(grown);
            async move {
                if let Ok(Answer::Stat(stat)) = statting.await {
                    let size_bytes = stat.size_bytes.max(size);
                    memory.truncate(object.clone(), size_bytes).await?;
                }
                Operation::Discard { object, range }.start(&*memory).await
            }
            .boxed()
        }
        op => store.pass(op),
    }),
    ("truncate_grows_with_zeros", |store, op| match op {
        Operation::Truncate {
            size_bytes: 100_000,
            ..
        } => done(),
        op => store.pass(op),
    }),
    ("odd_names_are_kept_apart", |store, op| match op {
        Operation::Write(mut write) => {
            write.object = lower(&write.object);
            store.pass(Operation::Write(write))
        }
        Operation::Read(mut read) => {
            read.object = lower(&read.object);
            store.pass(Operation::Read(read))
        }
        op => store.pass(op),
    }),
    ("list_goes_page_by_page", |store, op| {
        let more = |answer| match answer {
            Answer::Page(page) => Answer::Page(crate::backend::ListPage {
                more: !page.names.is_empty(),
                ..page
            }),
            other => other,
        };
        store.pass(op).map(move |answer| answer.map(more)).boxed()
    }),
    ("list_goes_by_prefix", |store, op| match op {
        Operation::List {
            after, names_max, ..
        } => store.pass(Operation::List {
            prefix: String::new(),
            after,
            names_max,
        }),
        op => store.pass(op),
    }),
    ("remove_removes", |store, op| match op {
        Operation::Remove(_) => done(),
        op => store.pass(op),
    }),
    ("impossible_offsets_fail", |store, op| match op {
        Operation::Write(write) if write.runs[0].offset > 1 << 62 => done(),
        op => store.pass(op),
    }),
    ("far_offsets_fail_or_are_right", |store, op| match op {
        Operation::Write(write) if write.runs[0].offset > 1 << 43 => done(),
        op => store.pass(op),
    }),
    ("ordered_writes_land_in_order", |store, op| {
        let memory = Arc::clone(&store.memory);
        async move { op.start(&*memory).await }.boxed()
    }),
    ("futures_can_be_polled_on_any_thread", |store, op| {
        let (caller, mut answering) = (thread::current().id(), store.pass(op));
        poll_fn(move |context| {
            assert_eq!(thread::current().id(), caller, "polled elsewhere");
            answering.poll_unpin(context)
        })
        .boxed()
    }),
    (
        "a_write_given_up_never_undoes_a_later_one",
        |store, op| match op {
            Operation::Sync => {
                for late in store.given_up.lock().drain(..) {
                    drop(store.pass(late));
                }
                done()
            }
            Operation::Write(write) => {
                let op = Operation::Write(write);
                let mut guard = GiveUp(Some(op.clone()), Arc::clone(&store.given_up));
                let mut answering = store.pass(op);
                poll_fn(move |context| {
                    let polled = answering.poll_unpin(context);
                    if let Poll::Ready(Ok(_)) = polled {
                        guard.answered();
                    }
                    polled
                })
                .boxed()
            }
            op => store.pass(op),
        },
    ),
];

#[tokio::test]
async fn every_broken_promise_is_found_and_named() {
    for (check_name, operate) in BREAKS {
        let new = || Breaking {
            memory: Arc::new(MemoryBackend::new()),
            given_up: Arc::default(),
            operate: *operate,
        };
        let found = check_only(check_name, async || Arc::new(new()) as _).await;
        let Violations(violations) = found.expect_err(check_name);
        assert_eq!(violations[0].check, *check_name);
    }
}

#[tokio::test]
async fn a_panic_is_named_too() {
    let new = || Breaking {
        memory: Arc::new(MemoryBackend::new()),
        given_up: Arc::default(),
        operate: |store, op| match op {
            Operation::Truncate { .. } => panic!("out of order"),
            op => store.pass(op),
        },
    };
    let found = check(async || Arc::new(new()) as _).await.unwrap_err();
    let text = found.to_string();
    assert!(
        text.contains("truncate_cuts: panicked: out of order"),
        "{text}"
    );
    assert!(found.0.len() < names().count(), "{text}");
}
