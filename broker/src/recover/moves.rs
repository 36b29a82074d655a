//! All data groups, and the partitions that moved between them (ADR 0014).
//!
//! Where a partition is says the metadata: no object is stored before the bucket has the metadata
//! that knows of what is in it. The manifest file of a group may be from before a partition came to
//! it. Then no object of that group has records that came since, and what the groups have of it
//! where it was is all there is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{LogIndex, PartitionId, RaftGroupId};
use s3_uploader::{Arrival, Edit, Manifest};

use super::RecoverError;
use super::bucket::Bucket;
use super::group::{GroupRebuild, Loaded};
use super::metadata::Metadata;
use crate::cluster::Arrived;
use crate::partition::{Origin, Partition};

/// All data groups, up to the last object of each.
pub(super) fn rebuild_groups(
    bucket: &mut Bucket,
    metadata: &mut Metadata,
    now_ms: i64,
) -> Result<BTreeMap<RaftGroupId, GroupRebuild>, RecoverError> {
    let ids: Vec<_> = metadata.image().data_groups().map(|group| group.id).collect();
    let loaded = ids.into_iter().map(|group| Loaded::of(bucket, group));
    let loaded: Vec<_> = loaded.collect::<Result<_, _>>()?;
    while follow_lent(&loaded, metadata) {}
    let hosts = Arc::new(metadata.hosts());
    let mut groups = BTreeMap::new();
    for found in loaded {
        let mut rebuild = GroupRebuild::start(bucket, found, Arc::clone(&hosts), now_ms);
        rebuild.take_objects(bucket)?;
        rebuild.settle_log_starts();
        groups.insert(rebuild.group, rebuild);
    }
    for (id, hosted) in hosts.iter() {
        match groups.get(&hosted.home.group) {
            None => return Err(RecoverError::NoGroup { name: hosted.name.clone() }),
            Some(home) if !home.has_arrived(*id) => {
                let adopted = adopt(&mut groups, *id, hosted.home, now_ms);
                adopted
                    .map_err(|reason| RecoverError::Moved { name: hosted.name.clone(), reason })?;
            }
            Some(home) => note_later(home, *id, hosted.home, metadata),
        }
    }
    let present: BTreeSet<_> = groups.values().flat_map(|it| &it.present).copied().collect();
    for rebuild in groups.values() {
        rebuild.check_present(bucket, |object| present.contains(object))?;
    }
    Ok(groups)
}

/// A group that lends a partition has it no more, though older metadata says so.
fn follow_lent(loaded: &[Loaded], metadata: &mut Metadata) -> bool {
    let hosts = metadata.hosts();
    let arrival = |id: PartitionId, group: RaftGroupId| {
        loaded.iter().find(|it| it.group == group)?.manifest.arrival(id)
    };
    let mut followed = false;
    for from in loaded {
        for (id, lent) in from.manifest.lent() {
            let home = hosts.get(&id).map(|hosted| hosted.home);
            let Some(home) = home.filter(|home| home.group == from.group) else { continue };
            let Some(Arrival { id: by, epoch_base }) = arrival(id, lent.to) else { continue };
            if by > home.id {
                let at = LogIndex::new(lent.since);
                metadata.note_arrival(id, Arrived { group: lent.to, id: by, epoch_base, at });
                followed = true;
            }
        }
    }
    followed
}

/// A partition may have come back by a later move than older metadata knows.
fn note_later(home: &GroupRebuild, id: PartitionId, known: Arrived, metadata: &mut Metadata) {
    let later = home.manifest.arrival(id).filter(|arrival| arrival.id > known.id);
    if let Some(Arrival { id: by, epoch_base }) = later {
        metadata.note_arrival(id, Arrived { id: by, epoch_base, ..known });
    }
}

/// Gives a partition to the group that it had come to, from the one that knows most of it. Of two
/// that know the same it is the one that had it first: the other may have had it for a move that
/// was called off, and does not know what became of the objects since.
fn adopt(
    groups: &mut BTreeMap<RaftGroupId, GroupRebuild>,
    id: PartitionId,
    home: Arrived,
    now_ms: i64,
) -> Result<(), String> {
    let Arrived { group, id: by, epoch_base, .. } = home;
    let found = groups.values().filter_map(|it| Some((it, it.partitions.get(&id)?)));
    let known_most = found.max_by_key(|(from, log)| {
        (log.log_end(), Reverse(from.manifest.arrival(id).map(|arrival| arrival.id)))
    });
    let nothing = Manifest::default();
    let (manifest, state) = match known_most {
        Some((from, log)) => (&from.manifest, log.encode_whole()),
        None => (&nothing, Partition::new(id).encode_whole()),
    };
    let state = state.ok_or("not all of it is in the object store")?;
    let arrival = Arrival { id: by, epoch_base };
    let adoption = manifest.adoption(id, group, arrival, state.into());
    let origin = Origin { index: LogIndex::default(), id: by, epoch_base };
    let log = Partition::adopted(&adoption.state, origin).map_err(|error| error.to_string())?;
    let Some(home) = groups.get_mut(&group) else { return Ok(()) };
    let edit = Edit::Adopted(Box::new(adoption));
    home.manifest.apply(&edit, now_ms).map_err(|error| error.to_string())?;
    home.partitions.insert(id, log);
    Ok(())
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
