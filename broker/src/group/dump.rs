//! What a raft snapshot holds of a partition of `__consumer_offsets`, in place of the entries that
//! are gone from the log: the records that still say something. Normative:
//! `docs/formats/consumer-offsets.md`.

use bytes::Bytes;

use super::Coordinator;
use super::classic::Group;
use super::record::{self, RecordError};
use crate::codec::{DecodeError, Reader, Writer};

impl Coordinator {
    /// The records that bring back what is committed in this partition now: keys and values for
    /// [`load`](Self::load), each key once. What is on its way into the log is not in them, and
    /// neither are records that were not understood.
    ///
    /// They may be younger than the entries that the snapshot stands for, as long as those that
    /// brought them are durable: the later entries are then loaded after them. A record depends on
    /// no earlier one, and the last of a key wins, so the end is the same. An offset or a group
    /// that a later tombstone deletes is either still here, and deleted then, or not here any more,
    /// and then the tombstone finds nothing. In between, the groups may be of no moment that ever
    /// was: nobody is to be served before all has been loaded.
    pub fn dump(&self, partition: i32) -> Vec<(Bytes, Bytes)> {
        let here = self.groups.values().filter(|group| group.partition == partition);
        here.flat_map(Group::dump).collect()
    }
}

impl Group {
    fn dump(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let metadata = || Ok((record::group_key(&self.id)?, self.in_log.clone()));
        let offsets = self.offsets.iter().map(|(topic, partition, entry)| {
            record::offset_commit(&self.id, topic, partition, entry)
        });
        let records = std::iter::once_with(metadata).chain(offsets);
        // What has been in a record fits into one, unless it came from Kafka in a longer form.
        records.filter_map(|record: Result<_, RecordError>| {
            let (key, value) = record.ok()?;
            Some((key, value?))
        })
    }
}

/// Appends records as the part of a snapshot.
pub fn encode_records(records: &[(Bytes, Bytes)], writer: &mut Writer) {
    writer.count(records.len());
    for (key, value) in records {
        writer.bytes(key);
        writer.bytes(value);
    }
}

/// The records of [`encode_records`].
pub fn decode_records(reader: &mut Reader<'_>) -> Result<Vec<(Bytes, Bytes)>, DecodeError> {
    reader.list("records", |reader| {
        let key = Bytes::copy_from_slice(reader.bytes("record key")?);
        Ok((key, Bytes::copy_from_slice(reader.bytes("record value")?)))
    })
}
