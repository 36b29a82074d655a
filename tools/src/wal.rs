//! `tailrace wal inspect|verify|dump`: looks at a WAL file or block device, read-only.
//!
//! The device is mapped into memory and locked against brokers. Nothing is ever written.

mod dump;
mod verify;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use uring::{MappedFile, map_readonly};
use wal_uring::ImageDevice;
use wal_uring::superblock::{COPY_COUNT, LoadError, Loaded};

pub use dump::DumpArgs;

/// The finest block: any device's image can be read in these.
const BLOCK_SIZE: u32 = 512;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum WalCommand {
    /// Show the superblocks of each slice.
    Inspect(PathArgs),
    /// Read the whole log and check everything; fails if anything is damaged.
    Verify(PathArgs),
    /// Print the frames and records of the log, one a line.
    Dump(DumpArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct PathArgs {
    /// WAL file or block device.
    pub path: PathBuf,
}

/// Why a look at a WAL failed.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Superblock(#[from] LoadError),
    #[error("{path} is damaged: {count} error(s), listed above")]
    Damaged { path: PathBuf, count: u64 },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl WalCommand {
    pub fn run(&self, out: &mut dyn Write) -> Result<(), WalError> {
        match self {
            Self::Inspect(args) => inspect(args, out),
            Self::Verify(args) => verify::verify(args, out),
            Self::Dump(args) => dump::dump(args, out),
        }
    }
}

fn inspect(args: &PathArgs, out: &mut dyn Write) -> Result<(), WalError> {
    let image = open(&args.path)?;
    let mut device = ImageDevice::new(&image, BLOCK_SIZE);
    for loaded in slices(&mut device)? {
        print_superblock(&loaded?, out)?;
    }
    Ok(())
}

fn open(path: &PathBuf) -> Result<MappedFile, WalError> {
    let open = || map_readonly(&File::open(path)?);
    open().map_err(|source| WalError::Open { path: path.clone(), source })
}

/// The superblock of each slice; the first one, which tells how many there are, must be readable.
fn slices(device: &mut ImageDevice<'_>) -> Result<Vec<Result<Loaded, LoadError>>, WalError> {
    let first = wal_uring::slice::load_slice(device, 0, 1)?;
    let count = first.superblock.slice_count;
    let mut all = vec![Ok(first)];
    all.extend((1..count).map(|index| wal_uring::slice::load_slice(device, index, count)));
    Ok(all)
}

fn print_superblock(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let found = &loaded.superblock;
    let layout = &found.layout;
    writeln!(
        out,
        "slice {} of {}: device offset {}, {} bytes",
        found.slice_index, found.slice_count, layout.slice_offset, found.slice_size
    )?;
    writeln!(
        out,
        "  cluster {}, node {}, ring {}",
        found.cluster_id, found.node_id, found.ring_id
    )?;
    writeln!(
        out,
        "  {} segments of {} bytes, blocks of {} bytes, window {} bytes",
        layout.segment_count, layout.segment_size, layout.block_size, layout.window_size
    )?;
    writeln!(
        out,
        "  superblock: {} of {COPY_COUNT} copies current, sequence {}, writer epoch {}, {}",
        COPY_COUNT as usize - loaded.faults.len(),
        found.sequence,
        found.writer_epoch,
        if found.clean { "clean shutdown" } else { "in use or crashed" }
    )?;
    writeln!(
        out,
        "  LSN: trimmed {}, durable at least {}",
        found.trimmed_lsn, found.durable_lsn_hint
    )?;
    for fault in &loaded.faults {
        writeln!(out, "  {fault}; the next open repairs it")?;
    }
    Ok(())
}
