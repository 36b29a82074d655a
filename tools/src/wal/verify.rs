//! Reads the whole log of each slice and checks everything that can be checked.

use std::io::Write;

use wal_uring::superblock::{LoadError, Loaded};
use wal_uring::{ImageDevice, OpenError, ScanReport, scan};

use super::{BLOCK_SIZE, PathArgs, WalError, open, print_superblock, slices};

pub(super) fn verify(args: &PathArgs, out: &mut dyn Write) -> Result<(), WalError> {
    let image = open(&args.path)?;
    let mut device = ImageDevice::new(&image, BLOCK_SIZE);
    let mut count = 0;
    for (index, loaded) in slices(&mut device)?.into_iter().enumerate() {
        count += verify_slice(&mut device, index, loaded, out)?;
    }
    if count > 0 {
        return Err(WalError::Damaged { path: args.path.clone(), count });
    }
    Ok(())
}

/// Returns the number of errors.
fn verify_slice(
    device: &mut ImageDevice<'_>,
    index: usize,
    loaded: Result<Loaded, LoadError>,
    out: &mut dyn Write,
) -> Result<u64, WalError> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(out, "slice {index}\n  error: {error}")?;
            return Ok(1);
        }
    };
    print_superblock(&loaded, out)?;
    // A copy of an older update is what a crash amid an update leaves; a damaged one is not.
    let mut count = 0;
    for fault in loaded.faults.iter().filter(|fault| fault.error.is_some()) {
        writeln!(out, "  error: {fault}")?;
        count += 1;
    }
    match scan(device, &loaded.superblock, &mut |_| {}) {
        Ok(report) => count += print_report(&report, out)?,
        // Its line tells a broker's operator what to do; here only the finding matters.
        Err(OpenError::Corrupt(corruption)) => {
            writeln!(out, "  error: {corruption}")?;
            count += 1;
        }
        Err(error) => {
            writeln!(out, "  error: {error}")?;
            count += 1;
        }
    }
    Ok(count)
}

fn print_report(report: &ScanReport, out: &mut dyn Write) -> Result<u64, WalError> {
    writeln!(
        out,
        "  log: written to LSN {}, said durable to {}",
        report.end, report.recorded_durable_lsn
    )?;
    writeln!(
        out,
        "  frames: {} data, {} seal, {} mark; {} records, {} bytes of data",
        report.data_frames,
        report.seal_frames,
        report.mark_frames,
        report.records,
        report.data_bytes
    )?;
    match report.tail {
        Some(tail) if tail.is_torn() => {
            writeln!(out, "  tail: torn ({tail:?}); the next open cuts it off")?;
        }
        Some(tail) => writeln!(out, "  tail: clean ({tail:?})")?,
        None => writeln!(out, "  tail: clean (the ring is full)")?,
    }
    for offset in &report.damaged_segment_headers {
        writeln!(out, "  error: segment header at device offset {offset} is damaged")?;
    }
    Ok(report.damaged_segment_headers.len() as u64)
}
