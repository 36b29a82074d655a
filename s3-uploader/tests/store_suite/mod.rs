//! What a store must do, whatever it is: each check is run on every kind of store.

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use s3_uploader::{ClaimError, Put, Store, StoreError, StoreOptions, StoreUrl, Verb};
use uuid::Uuid;

/// Makes a test of each check, on an empty store whose address `$place` gives for the test's name.
macro_rules! store_suite {
    ($place:path: $($check:ident)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                Box::pin(store_suite::$check($place(stringify!($check)))).await;
            }
        )*
    };
}

/// The list of all checks, for both kinds.
macro_rules! all_checks {
    ($place:path) => {
        store_suite! { $place:
            an_object_is_read_as_it_was_written
            of_racing_writers_one_wins
            of_racing_large_writers_one_wins
            ranges_are_exact
            a_listing_is_in_order_and_by_pages
            absent_objects_are_told_apart
            deletion_is_of_what_is_there
            a_large_object_is_written_in_parts
            a_replacement_is_conditional
            a_store_belongs_to_one_cluster
            conditions_are_kept
            keys_stay_below_the_prefix
            stores_in_one_bucket_are_apart
            requests_are_counted
        }
    };
}

async fn open(url: &StoreUrl) -> Store {
    let options = StoreOptions { multipart_above: 6 << 20, part_size: 5 << 20, ..crate::options() };
    Store::open(url, options).await.expect("the store opens")
}

fn parts(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

/// Bytes of which no two runs are alike.
fn noise(size: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    Bytes::from(bytes)
}

fn is_absent<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::NotFound { .. }))
}

pub(crate) async fn an_object_is_read_as_it_was_written(url: StoreUrl) {
    let store = open(&url).await;
    let written = [Bytes::from_static(b"one, "), Bytes::new(), Bytes::from_static(b"two")];
    for key in ["a", "a.b/c-d/e_f.seg", "manifest/00000000000000000001/00000000000000000002"] {
        assert!(!store.exists(key).await.expect("an answer"));
        assert_eq!(store.put_new(key, written.to_vec()).await, Ok(Put::Created));
        let (bytes, _) = store.get(key).await.expect("the object");
        assert_eq!(bytes, "one, two");
        assert_eq!(store.size(key).await, Ok(8));
        assert!(store.exists(key).await.expect("an answer"));
        assert_eq!(store.put_new(key, parts("three")).await, Ok(Put::Exists));
        assert_eq!(store.get(key).await.expect("the object").0, "one, two");
    }
    assert_eq!(store.put_new("empty", Vec::new()).await, Ok(Put::Created));
    assert_eq!(store.size("empty").await, Ok(0));
    // Another process finds the same.
    let again = open(&url).await;
    assert_eq!(again.get("a").await.expect("the object").0, "one, two");
}

pub(crate) async fn of_racing_writers_one_wins(url: StoreUrl) {
    let store = Rc::new(open(&url).await);
    for round in 0..10 {
        race(&store, &format!("race/{round}"), 100).await;
    }
}

pub(crate) async fn of_racing_large_writers_one_wins(url: StoreUrl) {
    let store = Rc::new(open(&url).await);
    race(&store, "race", 7 << 20).await;
}

async fn race(store: &Store, key: &str, size: usize) {
    let contents: Vec<_> = (0..8).map(|racer| noise(size, racer)).collect();
    let puts = contents.iter().map(|content| store.put_new(key, vec![content.clone()]));
    let puts = join_all(puts).await;
    let won: Vec<_> = (0..8).filter(|racer| puts[*racer] == Ok(Put::Created)).collect();
    let lost = puts.iter().filter(|put| **put == Ok(Put::Exists)).count();
    assert_eq!((won.len(), lost), (1, 7), "{puts:?}");
    let (size, expected) = (store.size(key).await.expect("a size"), &contents[won[0]]);
    assert_eq!(&store.get_range(key, 0..size).await.expect("the object"), expected);
}

pub(crate) async fn ranges_are_exact(url: StoreUrl) {
    let store = open(&url).await;
    let bytes = noise(100_000, 1);
    store.put_new("object", vec![bytes.clone()]).await.expect("a put");
    for (start, end) in [(0, 1), (0, 100_000), (99_999, 100_000), (4096, 8192), (777, 1777)] {
        let range = store.get_range("object", start..end).await.expect("the range");
        let (start, end) = (usize::try_from(start), usize::try_from(end));
        assert_eq!(range, bytes[start.expect("small")..end.expect("small")]);
    }
    assert_eq!(store.get_range("object", 5..5).await, Ok(Bytes::new()));
    let truncated =
        |found| Err(StoreError::Truncated { key: "object".to_owned(), expected: 1000, found });
    assert_eq!(store.get_range("object", 99_500..100_500).await, truncated(500));
    assert_eq!(store.get_range("object", 100_000..101_000).await, truncated(0));
    assert_eq!(store.get_range("object", 200_000..201_000).await, truncated(0));
}

pub(crate) async fn a_listing_is_in_order_and_by_pages(url: StoreUrl) {
    let store = Rc::new(open(&url).await);
    assert_eq!(store.list_all("").await, Ok(Vec::new()), "an empty store");
    let mut keys: Vec<String> = (0..1050).map(|n| format!("group/{:020}/{n:020}", n % 3)).collect();
    // Bytes order these otherwise than folders would: `-` and `.` come before `/`.
    keys.extend(["a/b", "a-b", "a.b", "a0", "a/b.c", "a", "group"].map(str::to_owned));
    // A file system has no file and folder of one name; no key of ours needs that.
    keys.retain(|key| key != "a" && key != "group" && key != "a/b");
    for some in keys.chunks(64) {
        try_join_all(some.iter().map(|key| store.put_new(key, parts(key)))).await.expect("puts");
    }
    keys.sort_unstable();

    let first = store.list("", None).await.expect("a page");
    assert!(first.more);
    assert_eq!(first.objects.len(), 1000);
    let listed = store.list_all("").await.expect("all pages");
    assert_eq!(
        listed.iter().map(|object| &object.key).collect::<Vec<_>>(),
        keys.iter().collect::<Vec<_>>()
    );
    assert!(
        listed.iter().all(|object| object.size == u64::try_from(object.key.len()).expect("small"))
    );
    assert!(listed.iter().all(|object| object.modified_ms > 1_700_000_000_000));

    let prefix = format!("group/{:020}/", 1);
    let expected: Vec<_> = keys.iter().filter(|key| key.starts_with(&prefix)).collect();
    let listed = store.list_all(&prefix).await.expect("all pages");
    assert_eq!(listed.iter().map(|object| &object.key).collect::<Vec<_>>(), expected);
    for (prefix, after, count) in [
        (prefix.as_str(), Some(expected[340].as_str()), 9),
        (prefix.as_str(), expected.last().map(|key| key.as_str()), 0),
        (prefix.as_str(), Some("a"), 350),
        ("group/0000000000000000000", Some("group/00000000000000000002/"), 350),
        ("a", None, 4),
        ("a", Some("a-b"), 3),
        ("a", Some("a/"), 2),
        ("zzz", None, 0),
        ("group/none/", None, 0),
    ] {
        let page = store.list(prefix, after).await.expect("a page");
        assert_eq!((page.objects.len(), page.more), (count, false), "{prefix} after {after:?}");
    }
}

pub(crate) async fn absent_objects_are_told_apart(url: StoreUrl) {
    let store = open(&url).await;
    store.put_new("a/b", parts("x")).await.expect("a put");
    for key in ["b", "a/c", "a/b.c", "b/c"] {
        assert!(is_absent(&store.get(key).await), "{key}");
        assert!(is_absent(&store.get_range(key, 0..1).await), "{key}");
        assert!(is_absent(&store.size(key).await), "{key}");
        assert_eq!(store.exists(key).await, Ok(false), "{key}");
    }
}

pub(crate) async fn deletion_is_of_what_is_there(url: StoreUrl) {
    let store = open(&url).await;
    let keys: Vec<_> = (0..5).map(|n| format!("group/{n}/object")).collect();
    store.delete(&keys).await.expect("absent objects are as good as deleted");
    for key in &keys {
        store.put_new(key, parts("x")).await.expect("a put");
    }
    store.delete(&keys[1..3]).await.expect("a deletion");
    store.delete(&keys[..3]).await.expect("a deletion of some that are there");
    let left = store.list_all("group/").await.expect("a page");
    assert_eq!(left.iter().map(|object| &object.key).collect::<Vec<_>>(), [&keys[3], &keys[4]]);
    store.delete(&[]).await.expect("nothing to delete");
    assert_eq!(store.put_new(&keys[0], parts("y")).await, Ok(Put::Created), "a name is free again");
    // More than one request may name.
    let many: Vec<_> = (0..1100).map(|n| format!("many/{n}")).collect();
    store.put_new(&many[1099], parts("x")).await.expect("a put");
    store.delete(&many).await.expect("a deletion");
    assert_eq!(store.exists(&many[1099]).await, Ok(false));
}

pub(crate) async fn a_large_object_is_written_in_parts(url: StoreUrl) {
    let store = open(&url).await;
    let bytes = noise(20 << 20, 2);
    let pieces: Vec<_> = (0..20).map(|n| bytes.slice(n << 20..(n + 1) << 20)).collect();
    assert_eq!(store.put_new("large", pieces.clone()).await, Ok(Put::Created));
    assert_eq!(store.size("large").await, Ok(20 << 20));
    let read = store.get_range("large", 0..20 << 20).await.expect("all of it");
    assert!(read == bytes, "the object differs from what was written");
    let middle = store.get_range("large", (5 << 20) - 3..(5 << 20) + 3).await.expect("a seam");
    assert_eq!(middle, bytes[(5 << 20) - 3..(5 << 20) + 3]);
    assert_eq!(store.put_new("large", pieces).await, Ok(Put::Exists));
    assert_eq!(store.list_all("").await.expect("a page").len(), 1, "nothing is left of an upload");
}

pub(crate) async fn a_replacement_is_conditional(url: StoreUrl) {
    let store = open(&url).await;
    store.put_new("object", parts("one")).await.expect("a put");
    let (_, first) = store.get("object").await.expect("the object");
    let second = store.put_if_match("object", &first, Bytes::from_static(b"two")).await;
    let second = second.expect("a replacement");
    assert_ne!(first, second);
    let (bytes, found) = store.get("object").await.expect("the object");
    assert_eq!((bytes, &found), (Bytes::from_static(b"two"), &second));
    let stale = store.put_if_match("object", &first, Bytes::from_static(b"three")).await;
    assert_eq!(stale, Err(StoreError::PreconditionFailed { key: "object".to_owned() }));
    let absent = store.put_if_match("absent", &second, Bytes::from_static(b"three")).await;
    assert!(absent.is_err(), "{absent:?}");
    assert_eq!(store.get("object").await.expect("the object").0, "two");
}

pub(crate) async fn a_store_belongs_to_one_cluster(url: StoreUrl) {
    let (ours, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let store = open(&url).await;
    assert_eq!(store.owner().await, Ok(None));
    assert_eq!(store.claim(ours).await, Ok(()));
    assert_eq!(store.claim(ours).await, Ok(()));
    assert_eq!(store.owner().await, Ok(Some(ours)));
    let refused = open(&url).await.claim(other).await;
    assert_eq!(refused, Err(ClaimError::BelongsTo { other: ours }));
    let (text, _) = store.get("cluster").await.expect("the claim");
    assert_eq!(text, "tailrace cluster 1\n00000000-0000-0000-0000-000000000001\n");
    store.delete(&["cluster".to_owned()]).await.expect("a deletion");
    store.put_new("cluster", parts("something else")).await.expect("a put");
    assert_eq!(store.claim(ours).await, Err(ClaimError::Unreadable));
}

pub(crate) async fn conditions_are_kept(url: StoreUrl) {
    let store = open(&url).await;
    store.probe_conditional_writes().await.expect("the store keeps conditions");
    assert_eq!(store.list_all("").await, Ok(Vec::new()), "the probe leaves nothing");
}

pub(crate) async fn keys_stay_below_the_prefix(url: StoreUrl) {
    let store = open(&url).await;
    for key in ["", "/a", "../a", "a/../../b", "a//b", "a/", ".tmp/a", "a\nb"] {
        let put = store.put_new(key, parts("x")).await;
        assert!(matches!(put, Err(StoreError::Config { .. })), "{key}: {put:?}");
        assert!(store.get(key).await.is_err(), "{key}");
        assert!(store.delete(&[key.to_owned()]).await.is_err(), "{key}");
    }
    assert!(store.list("../", None).await.is_err());
}

pub(crate) async fn stores_in_one_bucket_are_apart(url: StoreUrl) {
    let below = |name: &str| -> StoreUrl {
        let (place, parameters) = match url.to_string().split_once('?') {
            Some((place, parameters)) => (place.to_owned(), format!("?{parameters}")),
            None => (url.to_string(), String::new()),
        };
        format!("{place}/{name}{parameters}").parse().expect("an address")
    };
    let (one, two) = (open(&below("one")).await, open(&below("one-two")).await);
    assert_eq!(one.put_new("a", parts("1")).await, Ok(Put::Created));
    assert_eq!(two.put_new("a", parts("2")).await, Ok(Put::Created));
    assert_eq!(one.list_all("").await.expect("a page").len(), 1);
    assert_eq!(two.get("a").await.expect("the object").0, "2");
    one.delete(&["a".to_owned()]).await.expect("a deletion");
    assert_eq!(two.exists("a").await, Ok(true));
}

pub(crate) async fn requests_are_counted(url: StoreUrl) {
    let store = open(&url).await;
    store.put_new("a", parts("12345")).await.expect("a put");
    store.get_range("a", 1..4).await.expect("a range");
    store.size("b").await.expect_err("absent");
    store.list("", None).await.expect("a page");
    store.delete(&["a".to_owned()]).await.expect("a deletion");
    let metrics = store.metrics();
    let counts = Verb::ALL.map(|verb| metrics.verb(verb).requests());
    assert_eq!(counts, [1, 2, 1, 1, 0]);
    let bytes = [&metrics.bytes_up, &metrics.bytes_down];
    assert_eq!(bytes.map(|bytes| bytes.load(std::sync::atomic::Ordering::Relaxed)), [5, 3]);
    let errors: BTreeSet<_> =
        metrics.errors().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(errors, BTreeSet::from([("not_found", 1)]));
}
