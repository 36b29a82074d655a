//! What is in the bucket, and what of it is damaged.

use std::collections::BTreeSet;
use std::ops::Range;

use model::{LogIndex, PartitionId, RaftGroupId};
use s3_uploader::{
    BucketReader, Directory, Extent, ManifestFile, ManifestName, ObjectName, RangeName, Section,
    StoreError, decode_index,
};
use uuid::Uuid;

use super::{Highest, RecoverError};

/// Reads a bucket, and notes what of it cannot be used.
pub(super) struct Bucket {
    reader: BucketReader,
    pub(super) cluster_id: Uuid,
    /// One line each.
    pub(super) damage: Vec<String>,
    /// Partitions with records whose topics are not in the metadata: deleted, most of all.
    pub(super) topicless: BTreeSet<PartitionId>,
}

/// An object of a group's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) name: RangeName,
    pub(super) size: u64,
}

/// A part of the bucket, or why it is not what it should be.
pub(super) type Sound<T> = Result<T, String>;

impl Bucket {
    pub(super) fn new(reader: BucketReader) -> Self {
        let cluster_id = reader.cluster_id;
        Self { reader, cluster_id, damage: Vec::new(), topicless: BTreeSet::new() }
    }

    /// The newest manifest file of a group that is whole and that `decode` takes, and the highest
    /// numbers of all.
    pub(super) fn newest<T>(
        &mut self,
        group: RaftGroupId,
        mut decode: impl FnMut(&ManifestFile) -> Sound<T>,
    ) -> Result<(Option<(ManifestFile, T)>, Highest), RecoverError> {
        let listed = self.list(&ManifestName::prefix(group))?;
        let mut names: Vec<ManifestName> =
            listed.iter().filter_map(|object| object.key.parse().ok()).collect();
        names.sort_unstable();
        let mut highest = Highest::default();
        while let Some(name) = names.pop() {
            highest.index = highest.index.max(LogIndex::new(name.sequence));
            let file = self.reader.manifest_file(name)?.map_err(|unsound| unsound.to_string());
            let found = file.and_then(|file| {
                let decoded = decode(&file)?;
                Ok((file, decoded))
            });
            match found {
                Ok((file, decoded)) => {
                    highest.see(file.index, file.term);
                    return Ok((Some((file, decoded)), highest));
                }
                Err(reason) => {
                    self.damage.push(format!("{name}: {reason}; the one before it is used"));
                }
            }
        }
        Ok((None, highest))
    }

    /// All objects of a group's log.
    pub(super) fn objects(&self, group: RaftGroupId) -> Result<Vec<Listed>, RecoverError> {
        let listed = self.list(&ObjectName::group_prefix(group))?;
        let range = |object: &s3_uploader::Listed| match object.key.parse() {
            Ok(ObjectName::Range(name)) => Some(Listed { name, size: object.size }),
            _ => None,
        };
        Ok(listed.iter().filter_map(range).collect())
    }

    pub(super) fn has(&self, object: &ObjectName) -> Result<bool, RecoverError> {
        match self.reader.store.size(&object.to_string()) {
            Err(StoreError::NotFound { .. }) => Ok(false),
            size => Ok(self.reader.answered(size).map(|_| true)?),
        }
    }

    /// What an object says about itself.
    pub(super) fn directory(&self, object: Listed) -> Result<Sound<Directory>, RecoverError> {
        let found = self.reader.directory(ObjectName::Range(object.name), object.size)?;
        Ok(found.map_err(|unsound| unsound.to_string()))
    }

    /// All data of a section; its index is checked as well, since readers will need it.
    pub(super) fn section(&self, section: &Section) -> Result<Sound<bytes::Bytes>, RecoverError> {
        let extent = &section.extent;
        let index = self.part(extent, extent.index_range())?;
        let data = self.part(extent, extent.data_range())?;
        Ok(index.and_then(|index| {
            decode_index(&index, extent).map_err(|error| error.to_string())?;
            let data = data?;
            section.check_data(&data).map_err(|error| error.to_string())?;
            Ok(data)
        }))
    }

    fn part(
        &self,
        extent: &Extent,
        range: Range<u64>,
    ) -> Result<Sound<bytes::Bytes>, RecoverError> {
        let part = self.reader.store.get_range(&extent.object.to_string(), range);
        Ok(self.reader.sound(part)?.map_err(|unsound| unsound.to_string()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<s3_uploader::Listed>, RecoverError> {
        Ok(self.reader.answered(self.reader.store.list_all(prefix))?)
    }
}
