//! A bucket at one moment: its listing and the newest manifest of each group.
//!
//! Nothing is locked and nobody is asked. A broker deletes an object only after it has stored a
//! manifest that does not list it as live. So if no newer manifest file appears while the objects
//! are listed, all that the newest one lists as live must be among them.

use std::collections::BTreeMap;

use model::RaftGroupId;
use s3_uploader::{
    Audit, AuditReport, AuditedGroup, BlockingStore, Directory, GroupHead, Listed, Manifest,
    ManifestFile, ManifestName, ObjectError as Malformed, ObjectName, StoreError, StoreOptions,
    StoreUrl, TRAILER_SIZE,
};
use uuid::Uuid;

use super::ObjectError;
use super::topics::Topics;

/// Listings that a newer manifest file may spoil; a broker stores one in five minutes.
const ATTEMPTS_MAX: usize = 10;

/// An open store.
pub(super) struct Bucket {
    pub(super) store: BlockingStore,
    pub(super) url: StoreUrl,
    pub(super) cluster_id: Uuid,
}

/// See the module's text.
pub(super) struct View {
    pub(super) listed: Vec<Listed>,
    pub(super) groups: Vec<Group>,
    /// Nothing if there is no metadata that can be read.
    pub(super) topics: Option<Topics>,
    /// Manifest files newer than those that are used.
    pub(super) damaged: Vec<DamagedFile>,
}

/// A data group as its newest sound manifest file has it.
pub(super) struct Group {
    pub(super) file: ManifestName,
    pub(super) manifest: Manifest,
    stored_ms: i64,
}

pub(super) struct DamagedFile {
    pub(super) name: ManifestName,
    pub(super) reason: String,
}

/// What a manifest file has that is of use here.
pub(super) enum Contents {
    Metadata(Topics),
    Group(GroupHead),
}

/// Why a part of the bucket cannot be used.
pub(super) enum Unsound {
    /// It is not there any more.
    Gone,
    Damaged(String),
}

pub(super) type Sound<T> = Result<T, Unsound>;

impl Bucket {
    pub(super) fn open(url: &StoreUrl) -> Result<Self, ObjectError> {
        let boxed = || Box::new(url.clone());
        let store = BlockingStore::open(url, StoreOptions::default())
            .map_err(|source| ObjectError::Store { url: boxed(), source })?;
        let owner = store.owner().map_err(|source| ObjectError::Claim { url: boxed(), source })?;
        let cluster_id = owner.ok_or_else(|| ObjectError::Nobody { url: boxed() })?;
        Ok(Self { store, url: url.clone(), cluster_id })
    }

    pub(super) fn view(&self) -> Result<View, ObjectError> {
        for _ in 0..ATTEMPTS_MAX {
            let files = self.manifest_files()?;
            let listed = self.answered(self.store.list_all(""))?;
            if newest(&self.manifest_files()?) == newest(&files) {
                return self.read(&files, listed);
            }
        }
        Err(ObjectError::Unsettled { url: self.url.clone().into() })
    }

    /// In order of group and sequence.
    fn manifest_files(&self) -> Result<Vec<(ManifestName, i64)>, ObjectError> {
        let listed = self.answered(self.store.list_all("manifest/"))?;
        let named = |file: &Listed| Some((file.key.parse().ok()?, file.modified_ms));
        Ok(listed.iter().filter_map(named).collect())
    }

    fn read(
        &self,
        files: &[(ManifestName, i64)],
        listed: Vec<Listed>,
    ) -> Result<View, ObjectError> {
        let mut view = View { listed, groups: Vec::new(), topics: None, damaged: Vec::new() };
        let mut settled = None;
        for (name, stored_ms) in files.iter().rev() {
            if settled == Some(name.group) {
                continue;
            }
            match self.manifest_file(*name)?.and_then(|file| contents(&file)) {
                Ok(Contents::Metadata(topics)) => view.topics = Some(topics),
                Ok(Contents::Group(GroupHead { manifest, .. })) => {
                    view.groups.push(Group { file: *name, manifest, stored_ms: *stored_ms });
                }
                Err(Unsound::Gone) => continue,
                Err(Unsound::Damaged(reason)) => {
                    view.damaged.push(DamagedFile { name: *name, reason });
                    continue;
                }
            }
            settled = Some(name.group);
        }
        Ok(view)
    }

    pub(super) fn manifest_file(
        &self,
        name: ManifestName,
    ) -> Result<Sound<ManifestFile>, ObjectError> {
        let bytes = self.sound(self.store.get(&name.to_string()))?;
        Ok(bytes.and_then(|bytes| {
            let file = ManifestFile::decode(&bytes)
                .map_err(|error| Unsound::Damaged(error.to_string()))?;
            if file.cluster_id != self.cluster_id || file.name() != name {
                let reason = format!("it is {} of cluster {}", file.name(), file.cluster_id);
                return Err(Unsound::Damaged(reason));
            }
            Ok(file)
        }))
    }

    /// What an object says about itself.
    pub(super) fn directory(
        &self,
        name: ObjectName,
        size: u64,
    ) -> Result<Sound<Directory>, ObjectError> {
        let mut wanted = TRAILER_SIZE as u64;
        loop {
            let start = size.saturating_sub(wanted);
            let tail = self.sound(self.store.get_range(&name.to_string(), start..size))?;
            let decoded = match tail {
                Ok(tail) => Directory::decode(&tail),
                Err(unsound) => return Ok(Err(unsound)),
            };
            let reason = match decoded {
                Err(Malformed::ShortTail { wanted: more, .. }) if more > wanted && more <= size => {
                    wanted = more;
                    continue;
                }
                Err(error) => error.to_string(),
                Ok(found) if found.name != name || found.size != size => {
                    format!("it is {} of {} bytes", found.name, found.size)
                }
                Ok(found) => return Ok(Ok(found)),
            };
            return Ok(Err(Unsound::Damaged(reason)));
        }
    }

    fn answered<T>(&self, result: Result<T, StoreError>) -> Result<T, ObjectError> {
        result.map_err(|source| ObjectError::Store { url: self.url.clone().into(), source })
    }

    /// Tells a damaged object from a store that does not answer.
    pub(super) fn sound<T>(&self, result: Result<T, StoreError>) -> Result<Sound<T>, ObjectError> {
        match result {
            Err(StoreError::NotFound { .. }) => Ok(Err(Unsound::Gone)),
            Err(error @ (StoreError::Truncated { .. } | StoreError::Checksum { .. })) => {
                Ok(Err(Unsound::Damaged(error.to_string())))
            }
            result => self.answered(result).map(Ok),
        }
    }
}

impl View {
    pub(super) fn audit(&self) -> AuditReport {
        let audited = |group: &Group| (group.file.group, group.stored_ms);
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|known| {
                let (group, stored_ms) = audited(known);
                AuditedGroup { group, manifest: &known.manifest, stored_ms }
            })
            .collect();
        let hosted = self.topics.as_ref().map(Topics::ids);
        Audit { listed: &self.listed, groups: &groups, hosted }.run()
    }

    pub(super) fn name(&self, id: model::PartitionId) -> String {
        self.topics.as_ref().map_or_else(|| format!("partition {id}"), |topics| topics.name(id))
    }
}

/// What a manifest file says.
pub(super) fn contents(file: &ManifestFile) -> Sound<Contents> {
    if file.group == RaftGroupId::METADATA {
        let topics = Topics::decode(&file.state).map(Contents::Metadata);
        let reason = "it is no metadata of a version that is known".to_owned();
        return topics.ok_or(Unsound::Damaged(reason));
    }
    match GroupHead::decode(&file.state) {
        Ok((head, _)) => Ok(Contents::Group(head)),
        Err(error) => Err(Unsound::Damaged(error.to_string())),
    }
}

/// The newest file of each data group: that of group 0 tells of no object.
fn newest(files: &[(ManifestName, i64)]) -> BTreeMap<RaftGroupId, u64> {
    let names = files.iter().map(|(name, _)| (name.group, name.sequence));
    names.filter(|(group, _)| *group != RaftGroupId::METADATA).collect()
}
