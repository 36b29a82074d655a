use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use model::{LogIndex, RaftGroupId, Term};
use uuid::Uuid;

use super::*;
use crate::sample::{Folder, object};
use crate::store::{Fault, Faults, Put, Verb};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    worker: Option<Worker>,
    clients: Vec<Client>,
    wakes: Receiver<usize>,
    notes: Receiver<String>,
    faults: Faults,
    folder: Folder,
}

impl Bed {
    fn new(test: &str, clients: usize, config: WorkerConfig) -> Self {
        let (folder, faults) = (Folder::new(test), Faults::default());
        let store = run(folder.store(&faults));
        let (sender, wakes) = mpsc::channel();
        let (noted, notes) = mpsc::channel();
        let wake = (0..clients).map(|client| -> Wake {
            let sender = sender.clone();
            // The test may be over.
            Box::new(move || sender.send(client).unwrap_or_default())
        });
        let started = Worker::start(store, config, clients, wake.collect(), move |line| {
            noted.send(line).unwrap_or_default();
        });
        let (worker, clients) = started.expect("a thread");
        Self { worker: Some(worker), clients, wakes, notes, faults, folder }
    }

    fn send(&self, client: usize, token: u64, job: Job) {
        self.clients[client].try_send(Request { token, job }).expect("room");
    }

    /// The next reply to any client.
    fn reply(&self) -> (usize, Reply) {
        let client = self.wakes.recv_timeout(PATIENCE).expect("a reply in time");
        (client, self.clients[client].poll_reply().expect("a reply before its wake"))
    }

    fn outcome(&self, job: Job) -> Outcome {
        self.send(0, 77, job);
        let (client, reply) = self.reply();
        assert_eq!((client, reply.token), (0, 77));
        reply.outcome
    }

    fn metrics(&self) -> Arc<StoreMetrics> {
        self.worker.as_ref().expect("it runs").metrics()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn sample() -> BuiltObject {
    object(1, 2, 0, &[50_000; 4])
}

fn manifest(sequence: u64, state: &'static [u8]) -> ManifestFile {
    ManifestFile {
        cluster_id: Uuid::from_u128(7),
        group: RaftGroupId::new(1),
        term: Term::new(1),
        index: LogIndex::new(5),
        sequence,
        state: Bytes::from_static(state),
    }
}

fn down(verb: Verb) -> Fault {
    Fault::Error(StoreError::Unavailable { verb, reason: "down".to_owned() })
}

#[test]
fn every_job_is_done_and_answered() {
    let bed = Bed::new("every-job", 1, WorkerConfig::default());
    let built = sample();
    let (name, whole) = (built.name, built.parts.concat());
    let extent = built.extents[1].1.clone();
    let range = extent.data_range();
    let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("small"));
    let section = Bytes::copy_from_slice(&whole[start..end]);

    assert_eq!(bed.outcome(Job::PutObject(built)), Outcome::Stored);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(1, b"state"))), Outcome::Stored);
    let read = |from, max_bytes| Job::Read {
        extent: extent.clone(),
        next: None,
        from: Offset::new(from),
        max_bytes,
    };
    assert_eq!(bed.outcome(read(0, 1)), Outcome::Data(section.slice(..100_000).into()));
    assert_eq!(bed.outcome(read(39, 1)), Outcome::Data(section.slice(100_000..).into()));
    assert_eq!(bed.outcome(read(5, u32::MAX)), Outcome::Data(section.clone().into()));
    let find = |timestamp| Job::Find { extent: extent.clone(), timestamp };
    assert_eq!(bed.outcome(find(2000)), Outcome::Data(section.slice(100_000..).into()));
    assert_eq!(bed.outcome(find(4000)), Outcome::Nothing);

    let list = |prefix: &str| Job::List { prefix: prefix.to_owned(), after: None };
    let Outcome::Listed(page) = bed.outcome(list("group/")) else { panic!("no listing") };
    assert_eq!(page.objects[0].key, name.to_string());
    assert_eq!((page.objects.len(), page.more), (1, false));
    assert_eq!(bed.outcome(Job::Delete(vec![name.to_string()])), Outcome::Deleted);
    assert_eq!(bed.outcome(list("group/")), Outcome::Listed(Page::default()));
    assert_eq!(bed.metrics().queue_depth.load(Relaxed), 0);
    assert_eq!(bed.clients[0].unanswered(), 0);
}

#[test]
fn the_newest_manifest_of_a_group_is_read() {
    let cluster_id = Some(Uuid::from_u128(7));
    let bed = Bed::new("newest", 1, WorkerConfig { cluster_id, ..WorkerConfig::default() });
    let newest = |group| bed.outcome(Job::NewestManifest { group: RaftGroupId::new(group) });
    assert_eq!(newest(1), Outcome::Manifest(None));
    for (sequence, state) in [(9, b"nine"), (10, b"tenn"), (2, b"twoo")] {
        assert_eq!(bed.outcome(Job::PutManifest(manifest(sequence, state))), Outcome::Stored);
    }
    let found = Outcome::Manifest(Some(Box::new(manifest(10, b"tenn"))));
    assert_eq!(newest(1), found);
    assert_eq!(newest(2), Outcome::Manifest(None));
    bed.faults.next(Verb::List, down(Verb::List));
    bed.faults.next(Verb::Get, down(Verb::Get));
    assert_eq!(newest(1), found, "an attempt of each fails");

    // An older one is no answer: what it names may be needed no more, and the reverse.
    let store = run(bed.folder.store(&Faults::default()));
    let damaged = manifest(11, b"state").encode().slice(1..);
    let others = ManifestFile { cluster_id: Uuid::from_u128(8), ..manifest(12, b"state") };
    for (sequence, bytes) in [(11, damaged), (12, others.encode())] {
        let key = manifest(sequence, b"").name().to_string();
        assert_eq!(run(store.put_new(&key, vec![bytes])), Ok(Put::Created));
        let Outcome::Failed(StoreError::Checksum { key: of, .. }) = newest(1) else {
            panic!("file {sequence} is none of this cluster's")
        };
        assert_eq!(of, key);
    }
}

#[test]
fn a_write_outlasts_an_outage() {
    let bed = Bed::new("outage", 1, WorkerConfig::default());
    bed.faults.always(Verb::Put, down(Verb::Put));
    bed.send(0, 1, Job::PutObject(sample()));
    bed.send(0, 2, Job::PutManifest(manifest(1, b"state")));
    let metrics = bed.metrics();
    let failed = || metrics.errors().into_iter().find(|(kind, _)| *kind == "unavailable");
    while failed().is_none_or(|(_, count)| count < 20) {
        std::thread::yield_now();
    }
    assert!(bed.wakes.try_recv().is_err(), "nothing is answered while the store is down");
    assert_eq!(metrics.queue_depth.load(Relaxed), 2);
    let note = bed.notes.recv_timeout(PATIENCE).expect("the operator is told");
    assert!(note.starts_with("the object store fails") && note.ends_with("down"), "{note}");
    bed.faults.clear();
    let mut tokens = [bed.reply().1, bed.reply().1].map(|reply| {
        assert_eq!(reply.outcome, Outcome::Stored);
        reply.token
    });
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);
    let note = bed.notes.recv_timeout(PATIENCE).expect("the operator is told");
    assert!(note.starts_with("the object store works again"), "{note}");
    assert!(bed.notes.try_recv().is_err(), "once");
}

#[test]
fn a_lost_reply_is_not_a_conflict() {
    let bed = Bed::new("lost", 1, WorkerConfig::default());
    bed.faults.next(Verb::Put, Fault::LostReply);
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
    bed.faults.next(Verb::Put, Fault::LostReply);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(1, b"state"))), Outcome::Stored);
    // Nor is a second leader that came to the same bytes.
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(1, b"state"))), Outcome::Stored);
}

#[test]
fn damage_on_the_way_is_not_a_conflict() {
    let bed = Bed::new("damaged", 1, WorkerConfig::default());
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
    // The size is asked for first.
    bed.faults.next(Verb::Get, Fault::None);
    bed.faults.next(Verb::Get, Fault::Flip(7));
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
}

#[test]
fn another_content_under_the_name_is_a_conflict() {
    let bed = Bed::new("conflict", 1, WorkerConfig::default());
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(1, b"state"))), Outcome::Stored);
    // One of the same size whose first batch differs, and one that is longer.
    let other = object(1, 2, 10, &[50_000; 4]);
    assert_eq!(other.size, sample().size);
    assert_eq!(bed.outcome(Job::PutObject(other)), Outcome::Conflict);
    assert_eq!(bed.outcome(Job::PutObject(object(1, 2, 0, &[50_000; 5]))), Outcome::Conflict);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(1, b"STATE"))), Outcome::Conflict);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(1, b"longer"))), Outcome::Conflict);
    assert_eq!(bed.outcome(Job::PutManifest(manifest(2, b"STATE"))), Outcome::Stored);
    let extent = sample().extents[0].1.clone();
    let (next, from, max_bytes) = (None, Offset::ZERO, u32::MAX);
    let section = bed.outcome(Job::Read { extent, next, from, max_bytes });
    assert_eq!(section, Outcome::Data(sample().parts[..4].to_vec().into()), "unchanged");
}

#[test]
fn what_somebody_must_set_right_is_reported() {
    let bed = Bed::new("denied", 1, WorkerConfig::default());
    let denied = StoreError::Denied { verb: Verb::Put, advice: "allow it".to_owned() };
    bed.faults.next(Verb::Put, Fault::Error(denied.clone()));
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Failed(denied));
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
}

#[test]
fn what_arrived_damaged_is_read_anew() {
    let bed = Bed::new("damaged", 1, WorkerConfig::default());
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
    let extent = sample().extents[0].1.clone();
    let read = || {
        let (extent, from) = (extent.clone(), Offset::ZERO);
        bed.outcome(Job::Read { extent, next: None, from, max_bytes: u32::MAX })
    };
    let whole = Outcome::Data(sample().parts[..4].to_vec().into());
    let position = usize::try_from(extent.position).expect("small");
    bed.faults.next(Verb::Get, Fault::Flip(position + 7));
    assert_ne!(read(), whole, "damaged on its way");
    assert_ne!(read(), whole, "and kept");
    bed.send(0, 1, Job::Forget(extent.clone()));
    let (from, max_bytes) = (Offset::ZERO, u32::MAX);
    bed.send(0, 2, Job::Read { extent: extent.clone(), next: None, from, max_bytes });
    let replies = [bed.reply().1, bed.reply().1];
    let [forgotten, again] = replies.map(|Reply { token, outcome }| (token, outcome));
    assert_eq!((forgotten, again), ((1, Outcome::Nothing), (2, whole.clone())));
    assert_eq!(read(), whole, "what came then is kept");
}

#[test]
fn a_read_has_a_deadline() {
    let read_deadline = Duration::from_millis(30);
    let bed = Bed::new("deadline", 2, WorkerConfig { read_deadline, ..WorkerConfig::default() });
    assert_eq!(bed.outcome(Job::PutObject(sample())), Outcome::Stored);
    bed.faults.always(Verb::Get, Fault::Delay(PATIENCE));
    let extent = sample().extents[0].1.clone();
    bed.send(0, 1, Job::Find { extent, timestamp: 0 });
    // Others are served meanwhile.
    bed.send(1, 2, Job::PutManifest(manifest(1, b"state")));
    let (client, reply) = bed.reply();
    assert_eq!((client, reply), (1, Reply { token: 2, outcome: Outcome::Stored }));
    let timeout = StoreError::Timeout { verb: Verb::Get, after: read_deadline };
    assert_eq!(bed.reply().1, Reply { token: 1, outcome: Outcome::Failed(timeout) });
}

#[test]
fn a_client_has_as_many_jobs_as_it_may() {
    let bed = Bed::new("full", 1, WorkerConfig { jobs_max: 2, ..WorkerConfig::default() });
    for round in 0..3 {
        let list = |token| {
            let (prefix, after) = (String::new(), None);
            Request { token: round * 10 + token, job: Job::List { prefix, after } }
        };
        let client = &bed.clients[0];
        client.try_send(list(1)).expect("room");
        client.try_send(list(2)).expect("room");
        let refused = client.try_send(list(3)).expect_err("no room");
        assert_eq!(refused.token, round * 10 + 3, "it comes back as it was");
        bed.wakes.recv_timeout(PATIENCE).expect("a reply");
        bed.wakes.recv_timeout(PATIENCE).expect("a reply");
        client.try_send(list(4)).expect_err("a reply that was not fetched counts");
        assert!(client.poll_reply().is_some() && client.poll_reply().is_some());
        assert!(client.poll_reply().is_none());
    }
}

#[test]
fn a_write_ends_with_its_client() {
    let mut bed = Bed::new("client-gone", 2, WorkerConfig::default());
    bed.faults.always(Verb::Put, down(Verb::Put));
    bed.send(0, 1, Job::PutObject(sample()));
    let metrics = bed.metrics();
    while metrics.queue_depth.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    drop(bed.clients.remove(0));
    while metrics.queue_depth.load(Relaxed) > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn the_worker_ends_while_the_store_is_down() {
    let mut bed = Bed::new("stop", 1, WorkerConfig::default());
    for verb in Verb::ALL {
        bed.faults.always(verb, Fault::Delay(PATIENCE));
    }
    bed.send(0, 1, Job::PutObject(sample()));
    bed.send(0, 2, Job::Find { extent: sample().extents[0].1.clone(), timestamp: 0 });
    let worker = bed.worker.take().expect("it runs");
    assert!(!worker.has_failed());
    // Joins the thread.
    drop(worker);
    let store = run(bed.folder.store(&Faults::default()));
    assert_eq!(run(store.list_all("")), Ok(Vec::new()));
}
