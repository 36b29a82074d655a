//! A bucket at one moment: its listing and the newest manifest of each group.
//!
//! Nothing is locked and nobody is asked. A broker deletes an object only after it has stored a
//! manifest that does not list it as live. So if no newer manifest file appears while the objects
//! are listed, all that the newest one lists as live must be among them.

use std::collections::BTreeMap;

use model::RaftGroupId;
use s3_uploader::{
    Audit, AuditReport, AuditedGroup, BucketReader, GroupHead, Listed, Manifest, ManifestFile,
    ManifestName, Sound, Unsound,
};

use super::ObjectError;
use super::topics::Topics;

/// Listings that a newer manifest file may spoil; a broker stores one in five minutes.
const ATTEMPTS_MAX: usize = 10;

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

impl View {
    pub(super) fn of(bucket: &BucketReader) -> Result<Self, ObjectError> {
        for _ in 0..ATTEMPTS_MAX {
            let files = manifest_files(bucket)?;
            let listed = bucket.answered(bucket.store.list_all(""))?;
            if newest(&manifest_files(bucket)?) == newest(&files) {
                return Self::read(bucket, &files, listed);
            }
        }
        Err(ObjectError::Unsettled { url: bucket.url.clone().into() })
    }

    fn read(
        bucket: &BucketReader,
        files: &[(ManifestName, i64)],
        listed: Vec<Listed>,
    ) -> Result<Self, ObjectError> {
        let mut view = Self { listed, groups: Vec::new(), topics: None, damaged: Vec::new() };
        let mut settled = None;
        for (name, stored_ms) in files.iter().rev() {
            if settled == Some(name.group) {
                continue;
            }
            match bucket.manifest_file(*name)?.and_then(|file| contents(&file)) {
                Ok(Contents::Metadata(topics)) => view.topics = Some(topics),
                Ok(Contents::Group(GroupHead { manifest, .. })) => {
                    view.groups.push(Group { file: *name, manifest, stored_ms: *stored_ms });
                }
                Err(Unsound::Gone(_)) => continue,
                Err(Unsound::Damaged(reason)) => {
                    view.damaged.push(DamagedFile { name: *name, reason });
                    continue;
                }
            }
            settled = Some(name.group);
        }
        Ok(view)
    }

    pub(super) fn audit(&self) -> AuditReport {
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|Group { file, manifest, stored_ms }| AuditedGroup {
                group: file.group,
                manifest,
                stored_ms: *stored_ms,
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

/// In order of group and sequence.
fn manifest_files(bucket: &BucketReader) -> Result<Vec<(ManifestName, i64)>, ObjectError> {
    let listed = bucket.answered(bucket.store.list_all("manifest/"))?;
    let named = |file: &Listed| Some((file.key.parse().ok()?, file.modified_ms));
    Ok(listed.iter().filter_map(named).collect())
}

/// The newest file of each data group: that of group 0 tells of no object.
fn newest(files: &[(ManifestName, i64)]) -> BTreeMap<RaftGroupId, u64> {
    let names = files.iter().map(|(name, _)| (name.group, name.sequence));
    names.filter(|(group, _)| *group != RaftGroupId::METADATA).collect()
}
