//! What is in the bucket, and what of it is damaged.

use std::collections::BTreeSet;

use model::{LogIndex, PartitionId, RaftGroupId};
use s3_uploader::{
    BlockingStore, Directory, ManifestFile, ManifestName, ObjectError, ObjectName, RangeName,
    Section, StoreError, StoreOptions, StoreUrl, TRAILER_SIZE, decode_index,
};
use uuid::Uuid;

use super::{Highest, RecoverError};

/// Reads a bucket, and notes what of it cannot be used.
pub(super) struct Bucket {
    store: BlockingStore,
    url: StoreUrl,
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
    pub(super) fn open(url: &StoreUrl) -> Result<Self, RecoverError> {
        let failed = |source| RecoverError::Store { url: url.clone().into(), source };
        let store = BlockingStore::open(url, StoreOptions::default()).map_err(failed)?;
        let owner = store.owner();
        let owner =
            owner.map_err(|source| RecoverError::Claim { url: url.clone().into(), source })?;
        let cluster_id = owner.ok_or_else(|| RecoverError::Nobody { url: url.clone().into() })?;
        Ok(Self {
            store,
            url: url.clone(),
            cluster_id,
            damage: Vec::new(),
            topicless: BTreeSet::new(),
        })
    }

    /// The newest manifest file of a group that is whole and that `decode` takes, and the highest
    /// numbers of all.
    pub(super) fn newest<T>(
        &mut self,
        group: RaftGroupId,
        mut decode: impl FnMut(&ManifestFile) -> Sound<T>,
    ) -> Result<(Option<(ManifestFile, T)>, Highest), RecoverError> {
        let listed = self.store.list_all(&ManifestName::prefix(group));
        let listed = self.answered(listed)?;
        let mut names: Vec<ManifestName> =
            listed.iter().filter_map(|object| object.key.parse().ok()).collect();
        names.sort_unstable();
        let mut highest = Highest::default();
        while let Some(name) = names.pop() {
            highest.index = highest.index.max(LogIndex::new(name.sequence));
            let found = self.manifest_file(name)?.and_then(|file| {
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

    fn manifest_file(&self, name: ManifestName) -> Result<Sound<ManifestFile>, RecoverError> {
        let bytes = self.sound(self.store.get(&name.to_string()))?;
        Ok(bytes.and_then(|bytes| {
            let file = ManifestFile::decode(&bytes).map_err(|error| error.to_string())?;
            if file.cluster_id != self.cluster_id || file.name() != name {
                return Err(format!("it is {} of cluster {}", file.name(), file.cluster_id));
            }
            Ok(file)
        }))
    }

    /// All objects of a group's log.
    pub(super) fn objects(&self, group: RaftGroupId) -> Result<Vec<Listed>, RecoverError> {
        let listed = self.answered(self.store.list_all(&ObjectName::group_prefix(group)))?;
        let range = |object: &s3_uploader::Listed| match object.key.parse() {
            Ok(ObjectName::Range(name)) => Some(Listed { name, size: object.size }),
            _ => None,
        };
        Ok(listed.iter().filter_map(range).collect())
    }

    pub(super) fn has(&self, object: &ObjectName) -> Result<bool, RecoverError> {
        match self.store.size(&object.to_string()) {
            Err(StoreError::NotFound { .. }) => Ok(false),
            size => self.answered(size).map(|_| true),
        }
    }

    /// What an object says about itself.
    pub(super) fn directory(&self, object: Listed) -> Result<Sound<Directory>, RecoverError> {
        let name = ObjectName::Range(object.name);
        let mut wanted = TRAILER_SIZE as u64;
        loop {
            let start = object.size.saturating_sub(wanted);
            let tail = self.store.get_range(&name.to_string(), start..object.size);
            let decoded = match self.sound(tail)? {
                Ok(tail) => Directory::decode(&tail),
                Err(reason) => return Ok(Err(reason)),
            };
            return Ok(match decoded {
                Err(ObjectError::ShortTail { wanted: more, .. })
                    if more > wanted && more <= object.size =>
                {
                    wanted = more;
                    continue;
                }
                Err(error) => Err(error.to_string()),
                Ok(found) if found.name != name || found.size != object.size => {
                    Err(format!("it is {} of {} bytes", found.name, found.size))
                }
                Ok(found) => Ok(found),
            });
        }
    }

    /// All data of a section; its index is checked as well, since readers will need it.
    pub(super) fn section(&self, section: &Section) -> Result<Sound<bytes::Bytes>, RecoverError> {
        let extent = &section.extent;
        let key = extent.object.to_string();
        let index = self.sound(self.store.get_range(&key, extent.index_range()))?;
        let data = self.sound(self.store.get_range(&key, extent.data_range()))?;
        Ok(index.and_then(|index| {
            decode_index(&index, extent).map_err(|error| error.to_string())?;
            let data = data?;
            section.check_data(&data).map_err(|error| error.to_string())?;
            Ok(data)
        }))
    }

    fn answered<T>(&self, result: Result<T, StoreError>) -> Result<T, RecoverError> {
        result.map_err(|source| RecoverError::Store { url: self.url.clone().into(), source })
    }

    /// Tells a damaged object from a store that does not answer.
    fn sound<T>(&self, result: Result<T, StoreError>) -> Result<Sound<T>, RecoverError> {
        match result {
            Err(
                error @ (StoreError::NotFound { .. }
                | StoreError::Truncated { .. }
                | StoreError::Checksum { .. }),
            ) => Ok(Err(error.to_string())),
            result => self.answered(result).map(Ok),
        }
    }
}
