//! Prints the log, a frame or record a line.

use std::io::{self, Write};
use std::path::PathBuf;

use wal_uring::{ImageDevice, Recovered, ScanEvent, StreamId, scan};

use super::{BLOCK_SIZE, WalError, open, slices};

#[derive(Clone, Debug, clap::Args)]
pub struct DumpArgs {
    /// WAL file or block device.
    pub path: PathBuf,
    /// Only this slice.
    #[arg(long)]
    pub slice: Option<u16>,
    /// Only records of this stream, and no frames.
    #[arg(long)]
    pub stream: Option<u64>,
    /// Print up to this many bytes of each record's data, as hexadecimal.
    #[arg(long, default_value_t = 0)]
    pub bytes: usize,
}

pub(super) fn dump(args: &DumpArgs, out: &mut dyn Write) -> Result<(), WalError> {
    let image = open(&args.path)?;
    let mut device = ImageDevice::new(&image, BLOCK_SIZE);
    let mut count = 0;
    for loaded in slices(&mut device)? {
        let superblock = loaded?.superblock;
        if args.slice.is_some_and(|slice| slice != superblock.slice_index) {
            continue;
        }
        writeln!(out, "slice {}", superblock.slice_index)?;
        let mut written = Ok(());
        let scanned = scan(&mut device, &superblock, &mut |event| {
            // The scan cannot be stopped from here: after an error the rest is not printed.
            if written.is_ok() {
                written = print_event(args, &event, out);
            }
        });
        written?;
        match scanned {
            Ok(report) => writeln!(out, "end LSN {} {:?}", report.end, report.tail)?,
            Err(error) => {
                writeln!(out, "error: {error}")?;
                count += 1;
            }
        }
    }
    if count > 0 {
        return Err(WalError::Damaged { path: args.path.clone(), count });
    }
    Ok(())
}

fn print_event(args: &DumpArgs, event: &ScanEvent<'_>, out: &mut dyn Write) -> io::Result<()> {
    match *event {
        ScanEvent::Frame { .. } if args.stream.is_some() => Ok(()),
        ScanEvent::Frame { header, offset } => writeln!(
            out,
            "frame LSN {} offset {offset} {:?} epoch {} durable {} records {} bytes {}",
            header.lsn(),
            header.kind(),
            header.writer_epoch(),
            header.durable_lsn(),
            header.record_count(),
            header.payload_size()
        ),
        ScanEvent::Record(Recovered::Entry { stream, term, index, data, at }) => {
            if !wanted(args, stream) {
                return Ok(());
            }
            write!(out, "  entry stream {stream} term {term} index {index} LSN {}", at.lsn)?;
            print_data(args, data, out)
        }
        ScanEvent::Record(Recovered::State { stream, data, at }) => {
            if !wanted(args, stream) {
                return Ok(());
            }
            write!(out, "  state stream {stream} LSN {}", at.lsn)?;
            print_data(args, data, out)
        }
    }
}

fn wanted(args: &DumpArgs, stream: StreamId) -> bool {
    args.stream.is_none_or(|wanted| wanted == stream.get())
}

fn print_data(args: &DumpArgs, data: &[u8], out: &mut dyn Write) -> io::Result<()> {
    write!(out, " bytes {}", data.len())?;
    let shown = &data[..data.len().min(args.bytes)];
    if !shown.is_empty() {
        write!(out, " ")?;
    }
    for byte in shown {
        write!(out, "{byte:02x}")?;
    }
    writeln!(out)
}
