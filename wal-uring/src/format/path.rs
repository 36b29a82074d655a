//! Format by path: a block device as it is, or a file made for the purpose.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use uring::{DeviceFile, OpenMode};

use super::{FormatError, FormatOptions, ZeroFill, format};
use crate::device::FileDevice;
use crate::superblock::COPY_SIZE;

/// Formats a block device, or makes a file of `size` bytes: preallocated, filled with zeros once so
/// that later writes change no file-system metadata, under another name until it is complete.
pub fn format_path(
    path: &Path,
    size: Option<u64>,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FormatError> {
    let metadata = fs::metadata(path);
    if metadata.as_ref().is_ok_and(|it| it.file_type().is_block_device()) {
        if let Some(value) = size {
            let why = "a block device is used whole; leave the size out";
            return Err(FormatError::Option { what: "size", value, why });
        }
        let device = DeviceFile::open(path, OpenMode::ReadWrite)?;
        let options = FormatOptions { zero_fill: ZeroFill::Headers, ..*options };
        return format_open(&device, path, &options, progress);
    }
    let Some(size) = size else {
        let why = "a file needs one";
        return Err(FormatError::Option { what: "size", value: 0, why });
    };
    if metadata.is_ok() {
        if !options.force {
            return Err(FormatError::Exists { path: path.to_owned() });
        }
        // Held while it is replaced: a WAL that a broker has open is not pulled from under it.
        let _held = DeviceFile::open(path, OpenMode::ReadWrite)?;
        return format_file(path, size, options, progress);
    }
    format_file(path, size, options, progress)
}

fn format_file(
    path: &Path,
    size: u64,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FormatError> {
    let size = size / COPY_SIZE as u64 * COPY_SIZE as u64;
    let partial = partial_path(path);
    let made = fill_file(&partial, size, options, progress)
        .and_then(|()| publish(&partial, path).map_err(|source| failed(path, "rename", source)));
    if made.is_err() {
        // The first error is the one to tell; a partial file that stays is overwritten next time.
        let _ = fs::remove_file(&partial);
    }
    made.map_err(|error| match error {
        FormatError::Device { source, .. } | FormatError::File { source, .. }
            if source.kind() == io::ErrorKind::StorageFull =>
        {
            FormatError::NoSpace { path: path.to_owned(), size }
        }
        other => other,
    })
}

fn fill_file(
    partial: &Path,
    size: u64,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FormatError> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(partial, "remove", error));
        }
        _ => {}
    }
    let device = DeviceFile::open(partial, OpenMode::Create)?;
    let file = device.file().map_err(|source| failed(partial, "open", source))?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        // The zeros below take the space, only slower.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            device.resize(size).map_err(|source| failed(partial, "resize", source))?;
        }
        Err(error) => return Err(failed(partial, "allocate", error.into())),
    }
    // A new file holds nothing to be afraid for.
    let options = FormatOptions { zero_fill: ZeroFill::All, force: true, ..*options };
    format_open(&device, partial, &options, progress)
}

fn format_open(
    device: &DeviceFile,
    path: &Path,
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FormatError> {
    let mut device =
        FileDevice::new(device).map_err(|source| failed(path, "find the size of", source))?;
    format(&mut device, options, progress)
}

/// Gives the file its name, durably.
fn publish(partial: &Path, path: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    fs::rename(partial, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".formatting");
    PathBuf::from(name)
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> FormatError {
    FormatError::File { path: path.to_owned(), action, source }
}
