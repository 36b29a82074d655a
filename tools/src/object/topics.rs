//! Names of partitions, from the state of group 0. Normative: `docs/formats/metadata-command.md`.
//!
//! The broker has the codec of the whole state; this reads past what is not asked for here.

use std::collections::{BTreeMap, BTreeSet};

use model::PartitionId;

/// The second one ends with the disks that were replaced, the third one with the racks of brokers,
/// the fourth with what has changed of brokers and groups since the cluster began, the fifth with
/// the partitions that have moved, or move.
const VERSIONS: [u8; 5] = [1, 2, 3, 4, 5];

/// Topics and their partitions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Topics {
    topics: BTreeMap<String, BTreeSet<PartitionId>>,
    names: BTreeMap<PartitionId, String>,
    ids: BTreeSet<PartitionId>,
}

impl Topics {
    /// `None` if the bytes are not a state of group 0 that this version knows.
    pub(super) fn decode(state: &[u8]) -> Option<Self> {
        let mut reader = Reader(state);
        let version = reader.u8()?;
        if !VERSIONS.contains(&version) {
            return None;
        }
        reader.u64()?; // image version
        if reader.flag()? {
            reader.take(16)?; // cluster id
        }
        reader.take(8 + 8)?; // next partition and producer id
        reader.list(|reader| {
            reader.u32()?; // node
            reader.list(Reader::endpoint)
        })?;
        reader.list(|reader| {
            reader.u64()?; // group
            reader.list(|reader| reader.take(4 + 2).map(drop)) // replicas
        })?;
        let mut topics = Self::default();
        reader.list(|reader| topics.read(reader))?;
        if version > 1 {
            reader.list(|reader| {
                reader.u32()?; // node
                reader.list(|reader| reader.u32().map(drop)) // incarnations
            })?;
        }
        if version > 2 {
            reader.list(|reader| {
                reader.u32()?; // node
                reader.text().map(drop) // rack
            })?;
        }
        if version > 3 {
            reader.list(Reader::standing)?;
            reader.list(|reader| {
                reader.u64()?; // group
                reader.list(|reader| reader.take(4 + 2).map(drop))?; // leaving
                reader.u64()?; // asked
                reader.list(|reader| reader.u64().map(drop)) // founders
            })?;
        }
        if version > 4 {
            reader.list(|reader| {
                reader.take(8 + 4 + 8 + 8)?; // partition, epoch base, moved, arrived
                if reader.flag()? {
                    reader.take(8 + 8)?; // to, id
                }
                Some(())
            })?;
        }
        reader.0.is_empty().then_some(topics)
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let name = reader.text()?;
        reader.take(16)?; // topic id
        reader.flag()?; // internal
        let mut index = 0_u32;
        reader.list(|reader| {
            let id = PartitionId::new(reader.u64()?);
            reader.u64()?; // group
            self.names.insert(id, format!("{name}-{index}"));
            self.ids.insert(id);
            self.topics.entry(name.to_owned()).or_default().insert(id);
            index += 1;
            Some(())
        })?;
        reader.list(|reader| {
            reader.text()?;
            reader.text().map(drop)
        })
    }

    pub(super) fn ids(&self) -> &BTreeSet<PartitionId> {
        &self.ids
    }

    pub(super) fn of(&self, topic: &str) -> Option<&BTreeSet<PartitionId>> {
        self.topics.get(topic)
    }

    /// `topic-index`, or the number of a partition whose topic is deleted.
    pub(super) fn name(&self, id: PartitionId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("partition {id} of no topic"))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (PartitionId, &str)> {
        self.names.iter().map(|(id, name)| (*id, name.as_str()))
    }
}

/// Takes fields off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let size = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.take(size)?).ok()
    }

    fn list(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        (0..self.u32()?).try_for_each(|_| element(self))
    }

    fn endpoint(&mut self) -> Option<()> {
        self.u32()?; // broker
        self.text()?; // host
        self.take(2)?; // port
        if self.flag()? {
            self.take(2)?; // shard
        }
        Some(())
    }

    /// What was decided of a broker.
    fn standing(&mut self) -> Option<()> {
        self.take(4 + 1)?; // node, state
        if self.flag()? {
            self.text()?; // host
            self.take(2)?; // port
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the broker's own codec writes and reads.
    const GOLDEN: &[u8] = include_bytes!("../../../broker/testdata/metadata-snapshot.v1.bin");
    const WITH_RACKS: &[u8] = include_bytes!("../../../broker/testdata/metadata-snapshot.v3.bin");

    #[test]
    fn the_brokers_state_is_understood() {
        // A broker that was added, one that drains, and a group that one leaves.
        let standings =
            [&[2, 0, 0, 0, 4, 0, 0, 0, 0, 1, 1, 0, 0, 0, b'h', 7, 0][..], &[5, 0, 0, 0, 1, 0]];
        let changes = [&[1, 0, 0, 0][..], &[1; 8], &[1, 0, 0, 0], &[0; 6], &[9; 8], &[0; 4]];
        let tail = [standings.concat(), changes.concat()].concat();
        let changed = [&[4], &WITH_RACKS[1..], &tail].concat();
        // A partition that has moved, and one that moves.
        let moved = [&[2, 0, 0, 0][..], &[1; 28], &[0], &[2; 28], &[1], &[3; 16]].concat();
        let moved = [&[5], &changed[1..], &moved].concat();
        for golden in [GOLDEN, WITH_RACKS, &changed, &moved] {
            let topics = Topics::decode(golden).expect("a known version");
            let names: Vec<_> = topics.names().map(|(id, name)| (id.get(), name)).collect();
            assert_eq!(names, [(1, "orders-0"), (2, "orders-1"), (3, "orders-2")]);
        }
    }

    #[test]
    fn every_prefix_and_another_version_are_refused() {
        for len in 0..GOLDEN.len() {
            assert_eq!(Topics::decode(&GOLDEN[..len]), None, "prefix {len}");
        }
        let mut other = GOLDEN.to_vec();
        other[0] = 2;
        assert_eq!(Topics::decode(&other), None);
    }
}
