//! Bytes that nobody wrote: of manifests, and of edits to one.

use prop::sample::Index;

use super::histories::{OTHER, OWN};
use super::*;

/// A manifest with some of everything in it.
fn sample() -> Manifest {
    let mut manifest = Manifest::default();
    let edits = [
        offloaded(1, 10, &[(0, 0, 5, 10), (1, 0, 5, 10), (2, 7, 9, 3)]),
        offloaded(11, 20, &[(0, 5, 9, 10), (1, 5, 6, 10)]),
        offloaded(21, 30, &[(0, 9, 10, 10)]),
        merged(1, &[(0, 0, 9, 20)]),
        log_start(1, 6),
        log_start(3, 60),
    ];
    for (edit, now_ms) in edits.iter().zip(0..) {
        manifest.apply(edit, now_ms).expect("fits");
    }
    manifest
}

/// The same with partitions that came and went.
fn sample_of_moves() -> Manifest {
    let mut manifest = sample();
    let edits = [
        offloaded(31, 40, &[(0, 10, 11, 3), (4, 0, 5, 10), (5, 0, 5, 10)]),
        lent(4),
        adopted(6, 20),
        Edit::Sealed { partition: PartitionId::new(5), id: LogIndex::new(21) },
    ];
    for (edit, now_ms) in edits.iter().zip(6..) {
        manifest.apply(edit, now_ms).expect("fits");
    }
    manifest
}

fn lent(partition: u64) -> Edit {
    Edit::Lent { partition: PartitionId::new(partition), to: OTHER, since: 9 }
}

/// A partition comes with an object of its old group and one that `sample_of_moves` has lent.
fn adopted(partition: u64, id: u64) -> Edit {
    let objects = [range_name(31, 40), ObjectName::merged(OTHER, Term::new(1), 9)];
    let laid = objects.map(|object| (object, laid_out(object, &[(0, 0, 5, 10)]).0[0].1.clone()));
    let [(own, first), (foreign, second)] = laid;
    let second = Extent { base: Offset::new(5), end: Offset::new(7), ..second };
    Edit::Adopted(Box::new(Adoption {
        group: OWN,
        partition: PartitionId::new(partition),
        id: LogIndex::new(id),
        epoch_base: 2,
        log_start: Offset::new(1),
        end: Some(Offset::new(7)),
        objects: vec![(own, 10 + 10 + 3 + 3 * INDEX_SIZE + 100), (foreign, 500)],
        extents: vec![first, second],
        state: Bytes::from_static(b"state"),
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever decodes is the only reading of its bytes, and keeps the invariants, so that edits
    /// apply to it without a panic.
    #[test]
    fn random_bytes_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        tail in prop::collection::vec(any::<u8>(), 0..200),
        edit in any_edit(),
    ) {
        let changed = |manifest: Manifest| {
            let mut bytes = manifest.encode().to_vec();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes
        };
        let headed = [&[3], &tail[..]].concat();
        for bytes in &[changed(sample()), changed(sample_of_moves()), tail, headed] {
            let Ok(mut manifest) = Manifest::decode(bytes) else { continue };
            prop_assert_eq!(&manifest.encode()[..], bytes);
            let _ = manifest.apply(&edit, 5);
            let _ = manifest.apply(&adopted(4, 30), 6);
            let _ = manifest.apply(&lent(0), 7);
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
            let _ = manifest.apply(&dropped(&[0, 1, 2, 3, 4, 5, 6]), 8);
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }

    /// Bytes of edits that would fit, changed here and there: what still decodes is applied or
    /// refused, and what is applied keeps the invariants that `decode` checks.
    #[test]
    fn changed_edits_keep_the_invariants(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
    ) {
        for edit in [
            offloaded(41, 50, &[(0, 11, 12, 5), (2, 9, 12, 5)]),
            merged(3, &[(0, 0, 10, 20)]),
            log_start(2, 8),
            dropped(&[0, 1]),
            Edit::Removed { objects: vec![range_name(11, 20)] },
            Edit::Released { partition: PartitionId::new(4), objects: vec![range_name(31, 40)] },
            adopted(4, 30),
            lent(0),
        ] {
            let mut manifest = sample_of_moves();
            let mut bytes = edit.encode(5).to_vec();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let Ok((edit, now_ms)) = Edit::decode(&bytes) else { continue };
            let applied = manifest.apply(&edit, now_ms);
            prop_assert!(applied.is_ok() || manifest == sample_of_moves());
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
