//! Random operations against plain vectors, with reopening.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SPACE: u64 = 24_000;

#[derive(Clone, Debug)]
enum Step {
    Write {
        object: usize,
        runs: Vec<(u64, Vec<u16>)>,
        truncation: Option<u64>,
    },
    Read {
        object: usize,
        start: u64,
        len: u64,
    },
    Discard {
        object: usize,
        start: u64,
        len: u64,
    },
    Truncate {
        object: usize,
        size: u64,
    },
    Remove {
        object: usize,
    },
    List {
        after: Option<usize>,
        names_max: usize,
    },
    Sync,
    Reopen,
}

#[derive(Default)]
struct Modelled {
    bytes: Vec<u8>,
    truncation_seq: u64,
}

fn object_name(object: usize) -> String {
    format!("object {object}")
}

fn step() -> impl Strategy<Value = Step> {
    let object = || 0..4_usize;
    let start = || prop_oneof![0..SPACE, (0..6_u64).prop_map(|block| block * 4096)];
    let len = || prop_oneof![1..9000_u64, Just(1), Just(4096)];
    let lens = || prop::collection::vec(1..3000_u16, 1..4);
    let runs = || prop::collection::vec((0..5000_u64, lens()), 1..4);
    prop_oneof![
        8 => (object(), runs(), prop::option::weighted(0.2, 0..SPACE))
            .prop_map(|(object, runs, truncation)| Step::Write { object, runs, truncation }),
        4 => (object(), start(), len()).prop_map(|(object, start, len)| Step::Read { object, start, len }),
        2 => (object(), start(), len()).prop_map(|(object, start, len)| Step::Discard { object, start, len }),
        2 => (object(), 0..SPACE).prop_map(|(object, size)| Step::Truncate { object, size }),
        1 => object().prop_map(|object| Step::Remove { object }),
        1 => (prop::option::of(object()), 0..5_usize).prop_map(|(after, names_max)| Step::List { after, names_max }),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

struct Bench {
    directory: TempDir,
    backend: Option<FileBackend>,
    colliding: bool,
    model: BTreeMap<String, Modelled>,
    writes: u64,
}

impl Bench {
    fn new(colliding: bool) -> Self {
        let directory = TempDir::new().unwrap();
        root::create(directory.path()).unwrap();
        let mut bench = Self {
            directory,
            backend: None,
            colliding,
            model: BTreeMap::new(),
            writes: 0,
        };
        bench.reopen();
        bench
    }

    fn reopen(&mut self) {
        self.backend = None;
        let options = FileStoreOptions {
            threads: 2,
            open_files_max: 2,
            unsynced_files_max: 2,
        };
        let parts = Parts {
            hash: if self.colliding {
                worst_hash
            } else {
                name_hash
            },
            ..Parts::default()
        };
        self.backend = Some(options.start(self.directory.path(), true, parts).unwrap());
    }

    fn backend(&self) -> &FileBackend {
        self.backend.as_ref().unwrap()
    }

    fn write(&mut self, object: usize, runs: &[(u64, Vec<u16>)], truncation: Option<u64>) {
        self.writes += 1;
        let filler = u8::try_from(self.writes % 255).unwrap() + 1;
        let object = object_name(object);
        let model = self.model.entry(object.clone()).or_default();
        let mut write = write_of(&object, 0, b"");
        write.runs.clear();
        if let Some(size_bytes) = truncation {
            let seq = self.writes;
            write.truncation = Truncation { seq, size_bytes };
            model.truncation_seq = seq;
            model.bytes.truncate(usize::try_from(size_bytes).unwrap());
        }
        let mut at = 0;
        for (gap, lens) in runs {
            at += gap;
            let buffers: Vec<Bytes> = lens
                .iter()
                .map(|len| Bytes::from(vec![filler; usize::from(*len)]))
                .collect();
            let run = WriteRun {
                offset: at,
                buffers,
                journal_tid: None,
            };
            let (start, end) = (at, at + run.len_bytes());
            let (start, end) = (
                usize::try_from(start).unwrap(),
                usize::try_from(end).unwrap(),
            );
            model.bytes.resize(model.bytes.len().max(end), 0);
            model.bytes[start..end].fill(filler);
            at += run.len_bytes();
            write.runs.push(run);
        }
        block_on(self.backend().write(write)).unwrap();
    }

    fn check_read(&self, object: usize, start: u64, len: u64) {
        let object = object_name(object);
        let answer = block_on(self.backend().read(read_of(&object, range(start, len))));
        let Some(model) = self.model.get(&object) else {
            assert_eq!(answer, Err(BackendError::NotFound));
            return;
        };
        let start = usize::try_from(start).unwrap().min(model.bytes.len());
        let end = (start + usize::try_from(len).unwrap()).min(model.bytes.len());
        assert!(
            answer.unwrap() == model.bytes[start..end],
            "{object} {start}..{end}"
        );
    }

    fn check_all(&self) {
        for object in 0..4 {
            self.check_read(object, 0, 2 * SPACE);
            let stat = block_on(self.backend().stat(name(&object_name(object))));
            let model = self.model.get(&object_name(object));
            assert_eq!(
                stat.ok().map(|stat| stat.size_bytes),
                model.map(|model| model.bytes.len() as u64)
            );
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Write {
                object,
                runs,
                truncation,
            } => self.write(*object, runs, *truncation),
            Step::Read { object, start, len } => self.check_read(*object, *start, *len),
            Step::Discard { object, start, len } => {
                let object = object_name(*object);
                block_on(self.backend().discard(name(&object), range(*start, *len))).unwrap();
                if let Some(model) = self.model.get_mut(&object) {
                    let start = usize::try_from(*start).unwrap().min(model.bytes.len());
                    let end = (start + usize::try_from(*len).unwrap()).min(model.bytes.len());
                    model.bytes[start..end].fill(0);
                }
            }
            Step::Truncate { object, size } => {
                let object = object_name(*object);
                block_on(self.backend().truncate(name(&object), *size)).unwrap();
                if let Some(model) = self.model.get_mut(&object) {
                    model.bytes.resize(usize::try_from(*size).unwrap(), 0);
                }
            }
            Step::Remove { object } => {
                let object = object_name(*object);
                let outcome = block_on(self.backend().remove(name(&object)));
                let expected = self.model.remove(&object).map(drop);
                assert_eq!(outcome, expected.ok_or(BackendError::NotFound));
            }
            Step::List { after, names_max } => {
                let after = after.map(object_name);
                let (names, more) =
                    list(self.backend(), "object", after.as_deref(), *names_max).unwrap();
                let expected = self.model.keys();
                let expected: Vec<&String> = expected
                    .filter(|name| after.as_ref().is_none_or(|after| *name > after))
                    .collect();
                let shown = expected.len().min(*names_max);
                assert_eq!(names.iter().collect::<Vec<_>>(), expected[..shown]);
                assert_eq!(more, expected.len() > *names_max);
            }
            Step::Sync => block_on(self.backend().sync()).unwrap(),
            Step::Reopen => {
                self.reopen();
                self.check_all();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A failure prints the steps and is kept in `proptest-regressions`, from where it is replayed.
    #[test]
    fn the_store_is_a_map_of_vectors(
        colliding in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut bench = Bench::new(colliding);
        for step in &steps {
            bench.run(step);
        }
        bench.check_all();
        bench.reopen();
        bench.check_all();
    }
}
