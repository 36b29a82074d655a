use std::path::Path;

use uring::{DeviceFile, OpenMode};
use wal_uring::sim::{SimDisk, SimDiskOptions};
use wal_uring::{BlockDevice, Disk, FileDevice, Identity, Part, Record, StreamId, Wal, WalOptions};

use super::*;
use crate::wal::{PathArgs, WalCommand, WalError};

fn args(path: &Path) -> FormatArgs {
    FormatArgs {
        path: path.to_owned(),
        size: Some(8 << 20),
        shards: 2,
        cluster_id: Some(Uuid::from_u128(1)),
        node_id: 3,
        replacement: false,
        block_size: None,
        segment_size: Some(256 << 10),
        force: false,
    }
}

fn scratch(name: &str) -> PathBuf {
    // Beside the test binary: a file system with direct I/O, unlike /tmp on some hosts.
    let folder = std::env::current_exe().expect("a binary").with_file_name("tools-tests");
    std::fs::create_dir_all(&folder).expect("writable");
    let path = folder.join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn run(command: &WalCommand) -> (String, Result<(), WalError>) {
    let mut out = Vec::new();
    let result = command.run(&mut out);
    (String::from_utf8(out).expect("text"), result)
}

/// Runs a WAL in memory and puts its image over the file.
fn fill(path: &Path, slice_index: u16) {
    let file = DeviceFile::open(path, OpenMode::ReadWrite).expect("opens");
    let mut device = FileDevice::new(&file).expect("size");
    let size = device.geometry().size;
    let mut image = std::fs::read(path).expect("readable");
    let mut disk = SimDisk::with_image(1, SimDiskOptions::new(size, 4096), image);
    let identity =
        Identity { cluster_id: Uuid::from_u128(1), node_id: 3, slice_index, slice_count: 2 };
    let opened = Wal::open(&mut disk, &identity, WalOptions::default(), &mut |_| {});
    let (mut wal, _) = opened.expect("formatted");
    for index in 0..10 {
        let stream = StreamId::new(9);
        let record = Record::Entry {
            stream,
            term: 1,
            index,
            parts: &[Part::of(b"some data")],
            vital: false,
        };
        wal.append(record).expect("room");
        let disk: &mut dyn Disk = &mut disk;
        wal.submit(disk);
    }
    wal.begin_shutdown();
    while !wal.shutdown_done() {
        wal.submit(&mut disk);
        if let Some(done) = disk.step() {
            wal.complete(&mut disk, done);
        }
    }
    image = disk.kill();
    let mut buf = uring::AlignedBuf::zeroed(image.len(), 4096);
    buf.copy_from_slice(&image);
    device.write_at(0, &buf).expect("writes");
}

#[test]
fn a_formatted_file_is_verified_dumped_and_its_damage_found() {
    let path = scratch("format-verify");
    let mut out = Vec::new();
    args(&path).run(&mut out).expect("formats");
    assert!(String::from_utf8_lossy(&out).contains("2 shard(s)"));
    let again = args(&path).run(&mut Vec::new());
    assert!(matches!(again, Err(FormatCommandError::Format(FormatError::Exists { .. }))));

    fill(&path, 1);
    let target = PathArgs { path: path.clone() };
    let (text, result) = run(&WalCommand::Verify(target.clone()));
    result.expect(&text);
    assert!(text.contains("10 records, 90 bytes of data"), "{text}");
    assert!(run(&WalCommand::Inspect(target.clone())).0.contains("slice 1 of 2"));
    let dump = crate::wal::DumpArgs { path: path.clone(), slice: Some(1), stream: None, bytes: 4 };
    let (text, result) = run(&WalCommand::Dump(dump));
    result.expect(&text);
    assert!(text.contains("entry stream 9 term 1 index 3"), "{text}");

    let mut image = std::fs::read(&path).expect("readable");
    // The first frame of the second slice: behind the superblock area and the segment header.
    image[(4 << 20) + (64 << 10) + 4096 + 100] ^= 1;
    std::fs::write(&path, &image).expect("writable");
    let (text, result) = run(&WalCommand::Verify(target));
    assert!(matches!(result, Err(WalError::Damaged { count: 1, .. })), "{text}");
    assert!(text.contains("device offset 4263936"), "{text}");
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn sizes_have_units() {
    assert_eq!(parse_size("256MiB"), Ok(256 << 20));
    assert_eq!(parse_size("4096"), Ok(4096));
    assert!(parse_size("1GB").is_err() && parse_size("x").is_err() && parse_size("").is_err());
    assert!(parse_size("99999999TiB").is_err());
}
