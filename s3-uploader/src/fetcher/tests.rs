use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::object::BuiltObject;
use crate::sample::{Folder, object};
use crate::store::{Fault, Faults, Verb};

const CONFIG: FetchConfig = FetchConfig {
    chunk_size: 100_000,
    cache_bytes: 10_000_000,
    index_bytes: 100_000,
    requests_max: 8,
    ahead_max: 4,
};

struct Bed {
    fetcher: Fetcher,
    faults: Faults,
    /// All bytes of the object.
    bytes: Bytes,
    extents: Vec<Extent>,
    _folder: Folder,
}

impl Bed {
    /// A store with these objects, and a fetcher; the bytes and extents are those of the first.
    async fn new(test: &str, config: FetchConfig, objects: &[BuiltObject]) -> Self {
        let (folder, faults) = (Folder::new(test), Faults::default());
        let store = folder.store(&faults).await;
        for object in objects {
            store.put_new(&object.name.to_string(), object.parts.clone()).await.expect("a put");
        }
        Self {
            fetcher: Fetcher::new(Rc::new(store), config),
            faults,
            bytes: Bytes::from(objects[0].parts.concat()),
            extents: objects[0].extents.iter().map(|(_, extent)| extent.clone()).collect(),
            _folder: folder,
        }
    }

    fn gets(&self) -> u64 {
        self.fetcher.0.store.metrics().verb(Verb::Get).requests()
    }

    fn part(&self, range: Range<u64>) -> Pieces {
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("small"));
        self.bytes.slice(start..end).into()
    }
}

/// Batches of 30,000 bytes: three to an interval.
fn sizes(count: usize) -> Vec<usize> {
    vec![30_000; count]
}

#[tokio::test]
async fn what_was_damaged_is_asked_for_again_once_it_is_forgotten() {
    let bed = Bed::new("forgotten", CONFIG, &[object(1, 1, 100, &sizes(3))]).await;
    let reads = async {
        let extent = &bed.extents[0];
        let read = || bed.fetcher.read(extent, None, Offset::new(100), u32::MAX);
        read().await.expect("records");
        let gets = bed.gets();
        read().await.expect("records");
        assert_eq!(bed.gets(), gets, "it is in the cache");
        bed.fetcher.forget_extent(extent);
        read().await.expect("records");
        assert!(bed.gets() > gets, "it is not");
    };
    LocalSet::new().run_until(reads).await;
}

#[tokio::test]
async fn every_offset_is_read_in_whole_intervals() {
    let objects = [object(1, 2, 100, &sizes(10))];
    let bed = Bed::new("every_offset", CONFIG, &objects).await;
    let reads = async {
        for (extent, start) in bed.extents.iter().zip([0, 300_000]) {
            for from in 100..200 {
                let interval = u64::try_from((from - 100) / 30).expect("small") * 90_000 + start;
                for max_bytes in [0, 179_999, 180_000] {
                    let left = extent.data_range().end - interval;
                    let whole = (u64::from(max_bytes) / 90_000).max(1) * 90_000;
                    let size = if left <= u64::from(max_bytes) { left } else { whole };
                    let expected = interval..interval + size.min(left);
                    let read = bed.fetcher.read(extent, None, Offset::new(from), max_bytes).await;
                    assert!(read.expect("records") == bed.part(expected), "{from} {max_bytes}");
                }
            }
            for from in [99, 200] {
                let outside = bed.fetcher.read(extent, None, Offset::new(from), 1).await;
                assert!(matches!(outside, Err(FetchError::Outside { .. })), "{outside:?}");
            }
        }
    };
    LocalSet::new().run_until(reads).await;
    // Chunks of the whole object, each once.
    assert_eq!(bed.gets(), 7);
}

#[tokio::test]
async fn a_timestamp_is_found_in_the_first_interval_that_has_it() {
    let objects = [object(1, 2, 0, &sizes(10))];
    let bed = Bed::new("timestamps", CONFIG, &objects).await;
    let finds = async {
        let extent = &bed.extents[1];
        for (timestamp, start) in [(i64::MIN, 0), (2900, 0), (2901, 90_000), (9900, 270_000)] {
            let found = bed.fetcher.find(extent, timestamp).await.expect("an answer");
            let start = extent.position + start;
            let expected = start..extent.data_range().end.min(start + 90_000);
            assert_eq!(found.expect("an interval"), bed.part(expected), "{timestamp}");
        }
        assert_eq!(bed.fetcher.find(extent, 9901).await.expect("an answer"), None);
    };
    LocalSet::new().run_until(finds).await;
}

#[tokio::test]
async fn readers_of_one_chunk_share_its_request() {
    let objects = [object(1, 20, 0, &[4_000])];
    let config = FetchConfig { ahead_max: 0, ..CONFIG };
    let bed = Bed::new("shared", config, &objects).await;
    bed.faults.next(Verb::Get, Fault::Delay(Duration::from_millis(20)));
    let read = async |extent: &Extent| {
        let read = bed.fetcher.read(extent, None, extent.base, 1).await.expect("records");
        assert_eq!(read, bed.part(extent.data_range()));
    };
    let all = async {
        futures_util::future::join_all(bed.extents.iter().map(&read)).await;
        futures_util::future::join_all(bed.extents.iter().map(&read)).await;
    };
    LocalSet::new().run_until(all).await;
    assert_eq!(bed.gets(), 1, "the object is smaller than a chunk");
    let metrics = bed.fetcher.0.store.metrics();
    assert_eq!(metrics.cache_misses.load(Relaxed), 20, "all waited for the one request");
    assert_eq!(metrics.cache_hits.load(Relaxed), 40);
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let objects = [object(1, 1, 0, &sizes(60))];
    let config = FetchConfig { cache_bytes: 350_000, ahead_max: 0, ..CONFIG };
    let bed = Bed::new("bounded", config, &objects).await;
    let reads = async {
        for _ in 0..2 {
            for from in (0..600).step_by(30) {
                bed.fetcher.read(&bed.extents[0], None, Offset::new(from), 1).await.expect("some");
            }
        }
    };
    LocalSet::new().run_until(reads).await;
    let metrics = bed.fetcher.0.store.metrics();
    assert_eq!(metrics.cache_bytes.load(Relaxed), 300_000);
    assert_eq!(bed.gets(), 1 + 18 + 18, "the index once, the data twice");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_does_not_wait_for_each_chunk() {
    let objects = [object(1, 1, 0, &sizes(60)), object(2, 1, 600, &sizes(60))];
    let next = objects[1].extents[0].1.clone();
    let mut took = Vec::new();
    for (test, ahead_max) in [("behind", 0), ("ahead", 4)] {
        let bed = Bed::new(test, FetchConfig { ahead_max, ..CONFIG }, &objects).await;
        bed.faults.always(Verb::Get, Fault::Delay(Duration::from_millis(100)));
        let started = Instant::now();
        let reads = async {
            for from in (0..1200).step_by(30) {
                let (extent, after) = match from {
                    ..600 => (&bed.extents[0], Some(&next)),
                    _ => (&next, None),
                };
                let from = Offset::new(from);
                bed.fetcher.read(extent, after, from, 90_000).await.expect("records");
            }
        };
        LocalSet::new().run_until(reads).await;
        took.push(started.elapsed().as_millis() / 100);
        assert!(bed.gets() <= 38, "no chunk twice: {}", bed.gets());
    }
    // Without, each of 36 chunks of data and two indexes is waited for.
    assert!(took[0] >= 38, "{took:?}");
    assert!(took[1] <= 14, "{took:?}");
}

#[tokio::test]
async fn no_more_is_asked_for_ahead_than_the_cache_keeps() {
    let objects = [1, 2, 3, 4].map(|first| object(first, 1, 0, &sizes(60)));
    // 18 chunks of data and one of the index in each object, and room for ten chunks.
    let config = FetchConfig { cache_bytes: 1_000_000, ..CONFIG };
    let bed = Bed::new("room", config, &objects).await;
    let reads = async {
        for from in (0..600).step_by(30) {
            for object in &objects {
                let extent = &object.extents[0].1;
                bed.fetcher.read(extent, None, Offset::new(from), 1).await.expect("records");
                let unread = bed.fetcher.0.unread.borrow().len();
                assert!(unread <= 2, "{unread} chunks that nobody has read");
            }
        }
    };
    LocalSet::new().run_until(reads).await;
    let ahead = bed.fetcher.0.store.metrics().read_ahead.load(Relaxed);
    assert!(ahead >= 18, "{ahead}: it reads ahead all the time");
    assert_eq!(bed.gets(), 4 * 19, "no chunk twice");
}

#[tokio::test]
async fn chunks_that_nobody_came_for_do_not_stop_reading_ahead() {
    let objects = [1, 2, 3].map(|first| object(first, 1, 0, &sizes(60)));
    let config = FetchConfig { cache_bytes: 1_200_000, ..CONFIG };
    let bed = Bed::new("left", config, &objects).await;
    let ahead = || bed.fetcher.0.store.metrics().read_ahead.load(Relaxed);
    let reads = async {
        let read = |object: usize, from: i64| {
            let extent = &objects[object].extents[0].1;
            bed.fetcher.read(extent, None, Offset::new(from), 1)
        };
        for object in [0, 1] {
            for from in [0, 30] {
                read(object, from).await.expect("records");
            }
        }
        let left = ahead();
        for from in (0..600).step_by(30) {
            read(2, from).await.expect("records");
        }
        assert!(ahead() >= left + 8, "{left} and then {}", ahead());
    };
    LocalSet::new().run_until(reads).await;
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_asked_for_again() {
    let objects = [object(1, 1, 0, &sizes(4))];
    let extent = objects[0].extents[0].1.clone();
    let in_chunk = usize::try_from(extent.index_position % 100_000).expect("small");
    let faults = [Fault::Flip(in_chunk + 3), Fault::Truncate(1_000), Fault::Truncate(100_000)];
    for (number, fault) in faults.into_iter().enumerate() {
        let bed = Bed::new(&format!("damaged-{number}"), CONFIG, &objects).await;
        bed.faults.next(Verb::Get, fault.clone());
        let read = bed.fetcher.read(&extent, None, Offset::ZERO, 1);
        let read = LocalSet::new().run_until(read).await;
        assert_eq!(read.expect("records"), bed.part(0..90_000), "{fault:?}");
        bed.faults.always(Verb::Get, fault);
        let fresh = Fetcher::new(bed.fetcher.0.store.clone(), CONFIG);
        let read = fresh.read(&extent, None, Offset::ZERO, 1);
        LocalSet::new().run_until(read).await.expect_err("damaged for good");
    }
}

#[tokio::test]
async fn an_object_that_is_not_as_its_manifest_says_is_an_error() {
    let objects = [object(1, 1, 0, &sizes(4)), object(2, 1, 0, &sizes(3))];
    let bed = Bed::new("other", CONFIG, &objects).await;
    let mut extent = objects[0].extents[0].1.clone();
    extent.object = objects[1].name;
    let reads = async {
        let short = bed.fetcher.read(&extent, None, Offset::ZERO, 1).await;
        assert!(
            matches!(&short, Err(FetchError::Store(StoreError::Truncated { .. }))),
            "{short:?}"
        );
        extent.object = ObjectName::range(
            model::RaftGroupId::new(9),
            model::Term::new(1),
            model::LogIndex::new(1),
            model::LogIndex::new(1),
        )
        .expect("a range");
        let absent = bed.fetcher.read(&extent, None, Offset::ZERO, 1).await;
        assert!(matches!(&absent, Err(FetchError::Store(StoreError::NotFound { .. }))));
    };
    LocalSet::new().run_until(reads).await;
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let objects = [object(1, 1, 0, &sizes(4))];
    let bed = Bed::new("failure", CONFIG, &objects).await;
    let denied = StoreError::Denied { verb: Verb::Get, advice: "no".to_owned() };
    bed.faults.next(Verb::Get, Fault::Error(denied.clone()));
    let reads = async {
        let read = bed.fetcher.read(&bed.extents[0], None, Offset::ZERO, 1);
        assert_eq!(read.await, Err(FetchError::Store(denied)));
        let read = bed.fetcher.read(&bed.extents[0], None, Offset::ZERO, 1);
        assert_eq!(read.await.expect("records"), bed.part(0..90_000));
    };
    LocalSet::new().run_until(reads).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_outlives_the_reader_that_made_it() {
    let objects = [object(1, 1, 0, &[1000])];
    let bed = Bed::new("outlives", CONFIG, &objects).await;
    bed.faults.next(Verb::Get, Fault::Delay(Duration::from_millis(100)));
    let reads = async {
        let read = bed.fetcher.read(&bed.extents[0], None, Offset::ZERO, 1);
        tokio::time::timeout(Duration::from_millis(50), read).await.expect_err("given up");
        let started = Instant::now();
        bed.fetcher.read(&bed.extents[0], None, Offset::ZERO, 1).await.expect("records");
        assert!(started.elapsed() <= Duration::from_millis(60), "{:?}", started.elapsed());
    };
    LocalSet::new().run_until(reads).await;
    assert_eq!(bed.gets(), 1);
}
