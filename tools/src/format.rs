//! `tailrace format`: prepares a file or block device for the WALs of a node's shards.

use std::io::{self, Write};
use std::path::PathBuf;

use rustix::rand::{GetRandomFlags, getrandom};
use uuid::{Builder, Uuid};
use wal_uring::format::{ZeroFill, format_path};
use wal_uring::{FormatError, FormatOptions};

use crate::size::{Size, SizeError};

#[derive(Clone, Debug, clap::Args)]
pub struct FormatArgs {
    /// Block device, or file to make.
    #[arg(long)]
    pub path: PathBuf,
    /// Size of the file: 256MiB, 1GiB, or bytes. Not for block devices.
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Shards of the node: each gets an equal slice.
    #[arg(long, default_value_t = 1)]
    pub shards: u16,
    /// The cluster that the WAL belongs to; a new one if not given.
    #[arg(long)]
    pub cluster_id: Option<Uuid>,
    /// The node that the WAL belongs to.
    #[arg(long, default_value_t = 0)]
    pub node_id: i32,
    /// The device replaces one that the node has lost: the cluster gives it a part anew.
    #[arg(long)]
    pub replacement: bool,
    /// Bytes to which writes are aligned: 512 to 4096.
    #[arg(long, value_parser = parse_block_size)]
    pub block_size: Option<u32>,
    /// Size of a segment; a record may have a quarter of it.
    #[arg(long, value_parser = parse_size)]
    pub segment_size: Option<u64>,
    /// Overwrite what is there.
    #[arg(long)]
    pub force: bool,
}

/// Why a format failed.
#[derive(Debug, thiserror::Error)]
pub enum FormatCommandError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("no randomness from the kernel: {0}")]
    Random(rustix::io::Errno),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl FormatArgs {
    pub fn run(&self, out: &mut dyn Write) -> Result<(), FormatCommandError> {
        let cluster_id = self.cluster_id.map_or_else(random_uuid, Ok)?;
        let options = FormatOptions {
            cluster_id,
            node_id: self.node_id,
            incarnation: if self.replacement { random_incarnation()? } else { 0 },
            ring_id: random_uuid()?,
            slice_count: self.shards,
            block_size: self.block_size,
            segment_size: self.segment_size,
            zero_fill: ZeroFill::All,
            force: self.force,
        };
        let mut shown = Ok(());
        let mut percent_shown = None;
        format_path(&self.path, self.size, &options, &mut |done, total| {
            let percent = done.saturating_mul(100) / total.max(1) / 5 * 5;
            if shown.is_ok() && percent_shown.replace(percent) != Some(percent) {
                shown = write!(out, "\rformatting: {percent}%").and_then(|()| out.flush());
            }
        })?;
        shown?;
        writeln!(
            out,
            "\rformatted {}: {} shard(s), node {}, cluster {cluster_id}",
            self.path.display(),
            self.shards,
            self.node_id
        )?;
        Ok(())
    }
}

fn parse_size(text: &str) -> Result<u64, SizeError> {
    text.parse().map(Size::get)
}

/// A random UUID, version 4.
pub fn random_uuid() -> Result<Uuid, FormatCommandError> {
    let mut bytes = [0; 16];
    let filled = getrandom(&mut bytes[..], GetRandomFlags::empty());
    // The kernel never cuts a request of up to 256 bytes short.
    filled.map_err(FormatCommandError::Random)?;
    Ok(Builder::from_random_bytes(bytes).into_uuid())
}

/// A number for a disk that replaces a lost one: no two disks of a node have the same.
pub fn random_incarnation() -> Result<u32, FormatCommandError> {
    let (_, low) = random_uuid()?.as_u64_pair();
    let bytes = low.to_le_bytes();
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).max(1))
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    u32::try_from(size).map_err(|_| format!("{text} is too large"))
}

#[cfg(test)]
mod tests;
