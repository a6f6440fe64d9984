use std::num::NonZeroU64;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::backend::{WriteRun, contract};
use crate::types::{Hints, JournalTid, SnapContext, Timestamp};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn write_of(offset: u64, data: &[u8]) -> BackendWrite {
    BackendWrite {
        object: name("o"),
        runs: vec![WriteRun {
            offset,
            buffers: vec![Bytes::copy_from_slice(data)],
            journal_tid: None,
        }],
        context: SnapContext::default(),
        modified: Timestamp::default(),
        truncation: Truncation::default(),
    }
}

fn read_of(offset: u64, len: u64) -> BackendRead {
    BackendRead {
        object: name("o"),
        snap: SnapId::HEAD,
        range: ByteRange::new(offset, len).unwrap(),
        hints: Hints::default(),
        truncation: Truncation::default(),
    }
}

fn now<T>(future: BoxFuture<'static, T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

fn store(memory: &MemoryBackend, offset: u64, data: &[u8]) {
    now(memory.write(write_of(offset, data))).unwrap();
}

#[tokio::test]
async fn memory_keeps_the_contract() -> Result<(), contract::Violations> {
    contract::check(async || Arc::new(MemoryBackend::new()) as _).await
}

#[tokio::test]
async fn memory_that_promises_little_keeps_the_contract() -> Result<(), contract::Violations> {
    let modest = Capabilities {
        write_bytes_max: 5000,
        write_pieces_max: 3,
        ..Capabilities::default()
    };
    let new = || MemoryBackend::builder().capabilities(modest).build();
    contract::check(async || Arc::new(new()) as _).await
}

#[tokio::test]
async fn memory_with_a_parent_keeps_the_contract() -> Result<(), contract::Violations> {
    let parent = Arc::new(MemoryBackend::new());
    store(&parent, 0, b"of the parent");
    let builder = MemoryBackend::builder().with_parent(parent);
    contract::check(async || Arc::new(builder.clone().build()) as _).await
}

/// R-12, F-08
#[test]
fn the_first_write_copies_the_parent_up() {
    let parent = Arc::new(MemoryBackend::new());
    store(&parent, 0, b"of the parent");
    let child = MemoryBackend::builder()
        .with_parent(Arc::clone(&parent))
        .build();
    let range = ByteRange::new(0, 1).unwrap();
    let may_copy = |object| child.may_copy_on_write(&name(object), range, SnapId::HEAD);
    assert!(may_copy("o"));
    assert!(!may_copy("absent in both"));
    assert_eq!(now(child.read(read_of(0, 4))), Err(BackendError::NotFound));
    store(&child, 3, b"OUR");
    assert_eq!(child.content(&name("o")).unwrap(), "of OUR parent");
    assert!(!may_copy("o"));
    store(&parent, 0, b"changed later");
    store(&child, 13, b"!");
    assert_eq!(child.content(&name("o")).unwrap(), "of OUR parent!");
    assert_eq!(parent.content(&name("o")).unwrap(), "changed later");
}

///
#[test]
fn the_copy_on_write_answer_can_be_fixed() {
    let memory = MemoryBackend::builder().copy_on_write(true).build();
    let range = ByteRange::new(0, 1).unwrap();
    assert!(memory.may_copy_on_write(&name("o"), range, SnapId::HEAD));
}

#[test]
fn a_byte_far_out_costs_little() {
    let memory = MemoryBackend::new();
    store(&memory, 0, b"near");
    store(&memory, 1 << 62, b"far");
    assert!(memory.held_bytes() <= 4096, "{}", memory.held_bytes());
    let bytes = now(memory.read(read_of((1 << 62) - 2, 10))).unwrap();
    assert_eq!(bytes, &b"\0\0far"[..]);
    let whole = now(memory.read(read_of(0, 1 << 62)));
    assert!(matches!(whole, Err(BackendError::Io { .. })), "{whole:?}");
}

#[test]
fn discarded_room_is_freed() {
    let memory = MemoryBackend::new();
    store(&memory, 0, &[1; 1 << 20]);
    assert_eq!(memory.held_bytes(), 1 << 20);
    let range = ByteRange::new(1, (1 << 20) - 1).unwrap();
    now(memory.discard(name("o"), range)).unwrap();
    assert!(memory.held_bytes() <= 64 << 10);
    now(memory.truncate(name("o"), 0)).unwrap();
    store(&memory, 0, b"a");
    let bytes = now(memory.read(read_of(0, 9))).unwrap();
    assert_eq!(bytes, &b"a"[..]);
}

#[test]
fn an_answer_is_not_changed_by_later_writes() {
    let memory = MemoryBackend::new();
    store(&memory, 0, &[1; 128 << 10]);
    let chunk = now(memory.read(read_of(64 << 10, 64 << 10))).unwrap();
    let again = now(memory.read(read_of(64 << 10, 64 << 10))).unwrap();
    assert_eq!(chunk.as_ptr(), again.as_ptr(), "a whole chunk is shared");
    store(&memory, 64 << 10, &[2; 100]);
    let range = ByteRange::new(70_000, 100).unwrap();
    now(memory.discard(name("o"), range)).unwrap();
    assert!(chunk.iter().all(|byte| *byte == 1));
    let changed = now(memory.read(read_of(64 << 10, 64 << 10))).unwrap();
    assert_eq!(changed.iter().filter(|byte| **byte == 2).count(), 100);
}

#[test]
fn snapshots_outlive_the_head() {
    let memory = MemoryBackend::new();
    store(&memory, 0, b"old");
    let mut write = write_of(0, b"new");
    write.context = SnapContext::new(4, [4]).unwrap();
    now(memory.write(write)).unwrap();
    now(memory.remove(name("o"))).unwrap();
    let mut read = read_of(0, 3);
    assert_eq!(now(memory.read(read.clone())), Err(BackendError::NotFound));
    assert!(
        now(memory.list(String::new(), None, 9))
            .unwrap()
            .names
            .is_empty()
    );
    read.snap = SnapId::snapshot(4);
    assert_eq!(now(memory.read(read)).unwrap(), &b"old"[..]);
}

/// J-02
#[test]
fn journal_notices_are_kept_in_order() {
    let memory = MemoryBackend::new();
    let notices: Vec<_> = (1..4)
        .map(|tid| JournalNotice::Committed {
            object: name("o"),
            range: ByteRange::new(tid, 1).unwrap(),
            tid: JournalTid(NonZeroU64::new(tid).unwrap()),
        })
        .collect();
    for notice in &notices {
        memory.journal(notice.clone());
    }
    assert_eq!(memory.journal_notices(), notices);
    assert_eq!(memory.operations().journal_notices, 3);
}

/// W-10
#[test]
fn what_breaks_the_contract_is_refused() {
    let memory = MemoryBackend::new();
    let mut write = write_of(0, b"ab");
    write.runs.extend(write_of(1, b"c").runs);
    let refused = now(memory.write(write));
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })));
    assert_eq!(memory.content(&name("o")), None);
    assert_eq!(memory.operations().errors, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, Vec<u8>)>),
    Discard(usize, usize),
    Truncate(usize),
    Cut(usize, usize, Vec<u8>),
    Remove,
}

const MODEL_BYTES: usize = 200_000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let offset = || 0..MODEL_BYTES - 70_000;
    let data = || {
        (any::<u8>(), prop_oneof![1..20_usize, 1..70_000_usize])
            .prop_map(|(byte, len)| vec![byte | 1; len])
    };
    let step = prop_oneof![
        4 => prop::collection::vec((offset(), data()), 1..4).prop_map(Step::Write),
        2 => (offset(), 1..70_000_usize).prop_map(|(at, len)| Step::Discard(at, len)),
        1 => (0..MODEL_BYTES).prop_map(Step::Truncate),
        1 => (0..MODEL_BYTES, offset(), data()).prop_map(|(size, at, data)| Step::Cut(size, at, data)),
        1 => Just(Step::Remove),
    ];
    prop::collection::vec(step, 1..20)
}

/// What the store should hold: nothing, or just these bytes.
#[derive(Default)]
struct Model {
    bytes: Option<Vec<u8>>,
    cuts: u64,
}

impl Model {
    fn put(&mut self, offset: usize, data: &[u8]) {
        let bytes = self.bytes.get_or_insert_default();
        bytes.resize(bytes.len().max(offset + data.len()), 0);
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    fn apply(&mut self, memory: &MemoryBackend, step: &Step) {
        match step {
            Step::Write(runs) => self.write(memory, runs),
            Step::Discard(offset, len) => {
                let range = ByteRange::new(*offset as u64, *len as u64).unwrap();
                now(memory.discard(name("o"), range)).unwrap();
                if let Some(bytes) = &mut self.bytes {
                    let end = bytes.len().min(offset + len);
                    bytes[(*offset).min(end)..end].fill(0);
                }
            }
            Step::Truncate(size) => {
                now(memory.truncate(name("o"), *size as u64)).unwrap();
                if let Some(bytes) = &mut self.bytes {
                    bytes.resize(*size, 0);
                }
            }
            Step::Cut(size, offset, data) => {
                self.cuts += 1;
                let mut write = write_of(*offset as u64, data);
                write.truncation = Truncation {
                    seq: self.cuts,
                    size_bytes: *size as u64,
                };
                now(memory.write(write)).unwrap();
                self.bytes.get_or_insert_default().truncate(*size);
                self.put(*offset, data);
            }
            Step::Remove => {
                let removed = now(memory.remove(name("o")));
                assert_eq!(removed.is_ok(), self.bytes.take().is_some());
            }
        }
    }

    /// One write of the runs that fit behind each other; the others are left out.
    fn write(&mut self, memory: &MemoryBackend, runs: &[(usize, Vec<u8>)]) {
        let mut sorted: Vec<_> = runs.iter().collect();
        sorted.sort();
        let mut write = write_of(0, b"");
        write.runs.clear();
        let mut end = 0;
        for (offset, data) in sorted {
            if *offset < end {
                continue;
            }
            end = offset + data.len();
            let (head, tail) = data.split_at(data.len() / 2);
            let mut run = write_of(*offset as u64, tail).runs.remove(0);
            if !head.is_empty() {
                run.buffers.insert(0, Bytes::copy_from_slice(head));
            }
            write.runs.push(run);
            self.put(*offset, data);
        }
        now(memory.write(write)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// H-02, R-17
    #[test]
    fn memory_matches_a_plain_array(
        steps in steps(),
        reads in prop::collection::vec((0..MODEL_BYTES, 1..MODEL_BYTES), 4),
    ) {
        let memory = MemoryBackend::new();
        let mut model = Model::default();
        for step in &steps {
            model.apply(&memory, step);
            let content = memory.content(&name("o")).map(|bytes| bytes.to_vec());
            prop_assert!(content == model.bytes, "after {:?}", step);
        }
        for (offset, len) in reads {
            let answer = now(memory.read(read_of(offset as u64, len as u64)));
            match &model.bytes {
                None => prop_assert_eq!(answer, Err(BackendError::NotFound)),
                Some(bytes) => {
                    let expected = bytes.get(offset..bytes.len().min(offset + len)).unwrap_or(&[]);
                    prop_assert!(answer.as_deref() == Ok(expected), "{offset} {len}");
                }
            }
        }
    }
}
