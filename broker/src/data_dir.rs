//! The data directory of `tailrace dev`: one WAL, cut into a slice for each shard. What the
//! broker is (cluster id, node id, shard count) stands in the WAL's superblocks and nowhere else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::NodeId;
use tools::format::{random_incarnation, random_uuid};
use uring::device::{DeviceFile, OpenMode};
use wal_uring::FileDevice;
use wal_uring::format::{FormatOptions, ZeroFill, format_path};
use wal_uring::slice::load_slice;

use crate::config::{CLUSTER_SIZES, NodeSettings};
use crate::node::Identity;
use crate::start::{StartError, data_dir_error};

const WAL_FILE: &str = "wal";
const OBJECTS: &str = "objects";

/// An open data directory; nobody else can open it until this is dropped.
pub(crate) struct DataDir {
    pub(crate) device: Arc<DeviceFile>,
    /// Where the objects are if no store is given: an absolute path.
    pub(crate) objects: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) shard_count: u16,
}

impl DataDir {
    /// Opens the directory, or makes it: `shard_count` counts only then.
    pub(crate) fn open(
        settings: &NodeSettings,
        shard_count: u16,
        out: &mut dyn Write,
    ) -> Result<Self, StartError> {
        let directory = &settings.data_dir;
        fs::create_dir_all(directory).map_err(|error| data_dir_error(directory, error))?;
        let path = wal_path(directory, settings.wal.as_deref());
        if !path.exists() {
            let is_alone = settings.nodes.is_empty();
            if is_alone && settings.replacement {
                return Err(StartError::LoneReplacement);
            }
            if !is_alone && !settings.new_cluster && !settings.replacement {
                return Err(StartError::NoWal { path });
            }
            let count = settings.nodes.len();
            if settings.new_cluster && !is_alone && !CLUSTER_SIZES.contains(&count) {
                return Err(StartError::ClusterSize { count });
            }
            create(&path, settings, shard_count, out)?;
        }
        let device = DeviceFile::open(&path, OpenMode::ReadWrite)?;
        let mut blocks = FileDevice::new(&device).map_err(|error| data_dir_error(&path, error))?;
        let loaded = load_slice(&mut blocks, 0, 1)
            .map_err(|source| StartError::Load { path: path.clone(), source })?;
        let found = loaded.superblock;
        let identity = Identity {
            cluster_id: found.cluster_id,
            node: NodeId::new(found.node_id),
            incarnation: found.incarnation,
        };
        check_identity(&path, settings, identity)?;
        if let Some(asked) = settings.core_count
            && asked != found.slice_count
        {
            return Err(StartError::CoreCount { found: found.slice_count, asked });
        }
        let root = fs::canonicalize(directory).map_err(|error| data_dir_error(directory, error))?;
        Ok(Self {
            objects: root.join(OBJECTS),
            device: Arc::new(device),
            identity,
            shard_count: found.slice_count,
        })
    }

    /// What was found, for the start's output.
    pub(crate) fn lines(&self) -> Vec<String> {
        let cache = self.device.write_cache();
        let durable = if cache.needs_sync() {
            "each group commit carries RWF_DSYNC"
        } else {
            "a completed write is durable, no RWF_DSYNC"
        };
        vec![
            format!("cluster-id={}", self.identity.cluster_id),
            format!("shards={}", self.shard_count),
            format!("device write cache: {cache}: {durable}"),
        ]
    }
}

/// A broker whose configuration says who it is does not take up another one's log.
fn check_identity(
    path: &Path,
    settings: &NodeSettings,
    Identity { cluster_id, node: node_id, .. }: Identity,
) -> Result<(), StartError> {
    let other_cluster = settings.cluster_id.is_some_and(|asked| asked != cluster_id);
    let other_node = !settings.nodes.is_empty() && settings.node_id != node_id;
    if other_cluster || other_node {
        return Err(StartError::Identity { path: path.to_owned(), cluster_id, node_id });
    }
    Ok(())
}

/// Where the WAL of a data directory is.
pub(crate) fn wal_path(directory: &Path, wal: Option<&Path>) -> PathBuf {
    wal.map_or_else(|| directory.join(WAL_FILE), Path::to_owned)
}

fn create(
    path: &Path,
    settings: &NodeSettings,
    slice_count: u16,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let options = FormatOptions {
        cluster_id: settings.cluster_id.map_or_else(random_uuid, Ok)?,
        node_id: settings.node_id.get(),
        incarnation: if settings.replacement { random_incarnation()? } else { 0 },
        ring_id: random_uuid()?,
        slice_count,
        block_size: None,
        segment_size: None,
        zero_fill: ZeroFill::All,
        force: false,
    };
    let shown = PathBuf::from(path);
    writeln!(out, "formatting {} ({})", shown.display(), settings.wal_size)
        .map_err(StartError::Output)?;
    format_path(path, Some(settings.wal_size.get()), &options, &mut |_, _| {})?;
    Ok(())
}
