//! A cache over a store that a test holds the reins of, a clock on tokio's time, and a look into the log.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix::Arbiter;
use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{
    Backend, Capabilities, FaultControl, FaultyBackend, Gate, MemoryBackend, Operation,
    OperationKind,
};
use cachalot::message::Audit;
use cachalot::{
    Cache, CacheConfig, Charge, Clock, Gauges, Moment, ObjectName, ObjectSet, SetOptions,
    Timestamp, Totals,
};
use parking_lot::Mutex;
use tracing_core::span::Current;

/// Tokio's time, which stands still in most tests and moves when nothing else does.
#[derive(Debug)]
pub(crate) struct TokioClock {
    started: tokio::time::Instant,
    looks: AtomicU64,
}

impl TokioClock {
    #[expect(clippy::disallowed_methods, reason = "this clock reads the time")]
    pub(crate) fn new() -> Self {
        Self {
            started: tokio::time::Instant::now(),
            looks: AtomicU64::new(0),
        }
    }

    /// How often somebody has looked at the clock: grows with all that happens in a cache.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Moment::default().after(self.started.elapsed())
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(1_000)
    }
}

/// A cache on the test's own thread, on paused time, over a store with a gate.
pub(crate) struct Rig {
    pub(crate) memory: Arc<MemoryBackend>,
    pub(crate) control: FaultControl,
    pub(crate) gate: Gate,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) cache: Cache,
}

/// A small configuration: a cache of 4 MiB, of which half may be dirty.
pub(crate) fn config() -> CacheConfig {
    CacheConfig {
        max_bytes: ByteSize::mib(4),
        max_dirty_bytes: ByteSize::mib(2),
        target_dirty_bytes: ByteSize::mib(1),
        arbiters: 1,
        ..CacheConfig::default()
    }
}

impl Rig {
    /// Pauses time and starts the cache on this thread, which must run an actix system.
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self::over(MemoryBackend::new(), config)
    }

    /// As [`new`](Self::new), over a store that promises no more than stores in the cloud do.
    pub(crate) fn modest(config: CacheConfig) -> Self {
        let memory = MemoryBackend::builder()
            .capabilities(Capabilities::default())
            .build();
        Self::over(memory, config)
    }

    pub(crate) fn over(memory: MemoryBackend, config: CacheConfig) -> Self {
        pause();
        Capture::install();
        let memory = Arc::new(memory);
        let faulty = FaultyBackend::new(memory.clone(), 1);
        let control = faulty.control();
        let gate = faulty.gate();
        let clock = Arc::new(TokioClock::new());
        let cache = start_here(Arc::new(faulty), clock.clone(), config);
        Self {
            memory,
            control,
            gate,
            clock,
            cache,
        }
    }

    pub(crate) async fn open(&self, name: &str) -> ObjectSet {
        self.cache.open(SetOptions::new(name)).await.unwrap()
    }

    /// What the store holds of a set's file, as far as the range was ever written.
    pub(crate) fn stored(&self, set: &str, offset: usize, len: usize) -> Vec<u8> {
        stored(&self.memory, set, offset, len)
    }

    /// How many operations of a kind are held at the gate whose callers still wait.
    pub(crate) fn held(&self, kind: OperationKind) -> usize {
        let held = self.gate.held().into_iter();
        held.filter(|held| !held.given_up && held.operation.kind() == kind)
            .count()
    }

    /// Checks every set, and that what they recount adds up to what the cache says.
    pub(crate) async fn audit(&self, sets: &[&ObjectSet]) {
        audit(&self.cache, sets).await;
    }

    /// Closes the cache and sees that nothing is left of it.
    pub(crate) async fn close(self) {
        self.gate.open();
        self.cache.close().await.unwrap();
        assert_nothing_left(&self.cache);
    }
}

/// A cache whose actors live on this thread.
pub(crate) fn start_here(
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    config: CacheConfig,
) -> Cache {
    let builder = Cache::builder(backend).config(config).clock(clock);
    builder.arbiters(vec![Arbiter::current()]).start().unwrap()
}

/// Checks every set, and that what they recount adds up to what the cache says. Nothing may be going on.
pub(crate) async fn audit(cache: &Cache, sets: &[&ObjectSet]) {
    let mut charge = Charge::default();
    let mut totals = Totals::default();
    let mut objects = 0;
    for set in sets {
        let recount = set.addr().unwrap().send(Audit).await.unwrap().unwrap();
        charge += recount.charge;
        totals += recount.totals;
        objects += recount.objects;
    }
    let stats = cache.stats();
    assert_eq!(stats.charged, charge, "the ledger differs from a recount");
    assert_eq!(
        stats.gauges,
        Gauges::from(totals),
        "the gauges differ from a recount"
    );
    assert_eq!(i64::try_from(stats.objects).unwrap(), objects);
}

/// Nothing is held, charged, counted as held or waited for.
pub(crate) fn assert_nothing_left(cache: &Cache) {
    let stats = cache.stats();
    assert_eq!(stats.charged, Charge::default(), "{stats:?}");
    assert_eq!(stats.gauges, Gauges::default(), "{stats:?}");
    assert_eq!(
        (stats.objects, stats.waiting_claims, stats.sets),
        (0, 0, 0),
        "{stats:?}"
    );
}

/// The name of a set's object in the store.
pub(crate) fn name_of(set: &str, object: u64) -> ObjectName {
    ObjectName::new(format!("{set}.{object:016x}")).unwrap()
}

/// What the store holds of a set's file with objects of 4 MiB.
pub(crate) fn stored(memory: &MemoryBackend, set: &str, offset: usize, len: usize) -> Vec<u8> {
    let object_bytes = 4 << 20;
    let mut bytes = Vec::with_capacity(len);
    let mut at = offset;
    while at < offset + len {
        let object = at / object_bytes;
        let end = (offset + len).min((object + 1) * object_bytes);
        let content = memory
            .content(&name_of(set, object as u64))
            .unwrap_or_default();
        for position in at..end {
            bytes.push(
                content
                    .get(position - object * object_bytes)
                    .copied()
                    .unwrap_or(0),
            );
        }
        at = end;
    }
    bytes
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn data(seed: u64, len: usize) -> Bytes {
    let byte = |at: usize| {
        (at as u64)
            .wrapping_mul(31)
            .wrapping_add(seed.wrapping_mul(101)) as u8
    };
    (0..len).map(|at| byte(at) | 1).collect::<Vec<u8>>().into()
}

/// Makes time stand still on this thread, once.
pub(crate) fn pause() {
    thread_local! {
        static STANDS_STILL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if !STANDS_STILL.replace(true) {
        tokio::time::pause();
    }
}

/// Lets time pass: everything that is due meanwhile happens in its order.
#[expect(
    clippy::disallowed_methods,
    reason = "time stands still; this is what moves it"
)]
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets everything happen that can happen without time passing.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Starts a future on this thread.
pub(crate) fn start<T: 'static>(
    future: impl Future<Output = T> + 'static,
) -> tokio::task::JoinHandle<T> {
    actix::spawn(future)
}

/// Polls a future once.
pub(crate) fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a future up to `polls` times, with all others getting their turn in between, and drops it.
pub(crate) async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(result) = poll_once(future.as_mut()) {
            return Some(result);
        }
        settle().await;
    }
    None
}

/// Whether an operation touches an object of this name.
pub(crate) fn touches(object: ObjectName) -> impl Fn(&Operation) -> bool {
    move |operation| operation.object() == Some(&object)
}

/// One event or span of the log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) level: tracing::Level,
    /// A span's name, or an event's message.
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
    /// The names of the spans around it, innermost first.
    pub(crate) within: Vec<String>,
}

type Listener = Box<dyn Fn(&Entry) + Send>;

/// The log of all tests of this program, which find their own entries by the set's name.
#[derive(Default)]
pub(crate) struct Capture {
    entries: Mutex<Vec<Entry>>,
    spans: Mutex<BTreeMap<u64, (Entry, &'static tracing::Metadata<'static>)>>,
    last_span: AtomicU64,
    listeners: Mutex<Vec<(String, Listener)>>,
}

thread_local! {
    static ENTERED: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Capture {
    /// Starts to listen; all tests share one log.
    pub(crate) fn install() -> &'static Self {
        static LOG: OnceLock<Arc<Capture>> = OnceLock::new();
        static INSTALLED: Once = Once::new();
        let log = LOG.get_or_init(Arc::default);
        INSTALLED.call_once(|| {
            tracing::subscriber::set_global_default(Subscriber(log.clone())).unwrap();
        });
        log
    }

    /// All entries of a set so far.
    pub(crate) fn of_set(&self, set: &str) -> Vec<Entry> {
        self.matching("set", set)
    }

    /// All entries in which a field has a value.
    pub(crate) fn matching(&self, field: &str, value: &str) -> Vec<Entry> {
        let entries = self.entries.lock();
        let matches = |entry: &&Entry| entry.fields.get(field).is_some_and(|had| had == value);
        entries.iter().filter(matches).cloned().collect()
    }

    /// Calls `listener` for each entry of a set from now on, on the thread that makes it.
    pub(crate) fn listen(&self, set: &str, listener: impl Fn(&Entry) + Send + 'static) {
        self.listeners
            .lock()
            .push((set.to_owned(), Box::new(listener)));
    }

    fn note(&self, entry: &Entry) {
        self.entries.lock().push(entry.clone());
        let set = entry.fields.get("set").cloned().unwrap_or_default();
        let mut called = Vec::new();
        self.listeners.lock().retain_mut(|(wanted, listener)| {
            let is_wanted = *wanted == set;
            if is_wanted {
                called.push(std::mem::replace(listener, Box::new(|_| ())));
            }
            !is_wanted
        });
        for listener in called {
            listener(entry);
            self.listeners.lock().push((set.clone(), listener));
        }
    }

    fn within(&self) -> Vec<String> {
        let innermost = ENTERED.with_borrow(|entered| entered.last().copied());
        self.chain(innermost)
    }

    fn chain(&self, innermost: Option<u64>) -> Vec<String> {
        let spans = self.spans.lock();
        let span = innermost.and_then(|id| spans.get(&id));
        span.map_or_else(Vec::new, |(span, _)| {
            let own = std::iter::once(span.name.clone());
            own.chain(span.within.iter().cloned()).collect()
        })
    }
}

struct Subscriber(Arc<Capture>);

struct Fields(BTreeMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("cachalot") || metadata.target().starts_with("semantics")
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut fields = Fields(BTreeMap::new());
        span.record(&mut fields);
        let within = match span.parent() {
            Some(parent) => self.0.chain(Some(parent.into_u64())),
            None => self.0.within(),
        };
        let metadata = span.metadata();
        let name = metadata.name().to_owned();
        let entry = Entry {
            level: *metadata.level(),
            name,
            fields: fields.0,
            within,
        };
        let id = self.0.last_span.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.spans.lock().insert(id, (entry.clone(), metadata));
        self.0.note(&entry);
        tracing::span::Id::from_u64(id)
    }

    fn current_span(&self) -> Current {
        let innermost = ENTERED.with_borrow(|entered| entered.last().copied());
        let spans = self.0.spans.lock();
        let known = innermost.and_then(|id| Some((id, spans.get(&id)?.1)));
        known.map_or_else(Current::none, |(id, metadata)| {
            Current::new(tracing::span::Id::from_u64(id), metadata)
        })
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let name = fields.0.remove("message").unwrap_or_default();
        let level = *event.metadata().level();
        self.0.note(&Entry {
            level,
            name,
            fields: fields.0,
            within: self.0.within(),
        });
    }

    fn enter(&self, span: &tracing::span::Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, span: &tracing::span::Id) {
        ENTERED.with_borrow_mut(|entered| {
            let last = entered.iter().rposition(|id| *id == span.into_u64());
            last.map(|last| entered.remove(last))
        });
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.lock().iter()).finish()
    }
}
