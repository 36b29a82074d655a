use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{Recorder, TempPath, pattern, tight, turn_until};
use crate::io::FileId;
use crate::{
    AlignedBuf, DeviceError, DeviceFile, OpenMode, Reactor, ReactorConfig, SetupError, WriteCache,
};

const SIZE: u64 = 1 << 20;

fn file_of_zeros(path: &Path) -> DeviceFile {
    let device = DeviceFile::open(path, OpenMode::Create).expect("a file system with O_DIRECT");
    device.resize(SIZE).unwrap();
    device.write_at(0, &AlignedBuf::zeroed(SIZE as usize, 4096)).unwrap();
    device
}

fn filled(reactor: &mut Reactor, seed: usize, len: usize) -> AlignedBuf {
    let mut buf = reactor.io().take_buffer(len);
    buf.copy_from_slice(&pattern(seed, len));
    buf
}

#[test]
fn writes_are_read_back_from_slots_and_from_the_heap() {
    let path = TempPath::new("round-trip");
    let device = file_of_zeros(&path.0);
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let file = reactor.io().register_file(device.file().unwrap()).unwrap();
    // Many more than there are entries and slots; both queues overflow.
    for token in 0..128_u64 {
        let buf = filled(&mut reactor, token as usize, 8192);
        assert_eq!(buf.is_registered(), token < 2);
        assert_eq!(buf.as_ptr().addr() % 4096, 0);
        reactor.io().write(file, token, token * 8192, buf, 8192, token % 5 == 0);
    }
    turn_until(&mut reactor, &mut recorder, "writes", |_, seen| seen.disk.len() == 128);
    for done in recorder.disk.drain(..) {
        done.result.unwrap();
        assert!(*done.buf == pattern(done.token as usize, 8192));
    }
    for token in 0..128_u64 {
        let buf = reactor.io().take_buffer(8192);
        reactor.io().read(file, token, token * 8192, buf, 8192);
    }
    turn_until(&mut reactor, &mut recorder, "reads", |_, seen| seen.disk.len() == 128);
    for done in recorder.disk.drain(..) {
        done.result.unwrap();
        assert!(*done.buf == pattern(done.token as usize, 8192), "read {}", done.token);
    }
    let mut buf = AlignedBuf::zeroed(8192, 4096);
    device.read_at(3 * 8192, &mut buf).unwrap();
    assert!(*buf == pattern(3, 8192));
    device.sync().unwrap();
    assert_eq!(device.size().unwrap(), SIZE);
}

#[test]
fn a_slot_of_another_reactor_is_plain_memory_here() {
    let path = TempPath::new("foreign-slot");
    let device = file_of_zeros(&path.0);
    let mut owner = Reactor::new(&tight()).unwrap();
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let file = reactor.io().register_file(device.file().unwrap()).unwrap();
    let foreign = filled(&mut owner, 7, 8192);
    assert!(foreign.is_registered());
    drop(owner);
    reactor.io().write(file, 1, 0, foreign, 8192, false);
    turn_until(&mut reactor, &mut recorder, "write", |_, seen| !seen.disk.is_empty());
    recorder.disk.remove(0).result.unwrap();
    let mut buf = AlignedBuf::zeroed(8192, 4096);
    device.read_at(0, &mut buf).unwrap();
    assert!(*buf == pattern(7, 8192));
}

#[test]
fn failures_come_back_with_the_buffer() {
    let path = TempPath::new("failures");
    let device = file_of_zeros(&path.0);
    let mut reactor = Reactor::new(&tight()).unwrap();
    let mut recorder = Recorder::default();
    let file = reactor.io().register_file(device.file().unwrap()).unwrap();
    let foreign = {
        let mut other = Reactor::new(&tight()).unwrap();
        other.io().register_file(device.file().unwrap()).unwrap();
        other.io().register_file(device.file().unwrap()).unwrap()
    };
    let mut fails = |file: FileId, offset: u64, len: usize| {
        let buf = reactor.io().take_buffer(8192);
        reactor.io().read(file, 9, offset, buf, len);
        turn_until(&mut reactor, &mut recorder, "read", |_, seen| !seen.disk.is_empty());
        let done = recorder.disk.remove(0);
        assert_eq!((done.token, done.buf.len()), (9, 8192));
        done.result.expect_err("must fail")
    };
    assert_eq!(fails(file, SIZE - 4096, 8192).kind(), ErrorKind::UnexpectedEof);
    assert_eq!(fails(file, 1, 4096).raw_os_error(), Some(libc::EINVAL));
    assert_eq!(fails(foreign, 0, 4096).raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_second_opener_is_told_and_a_later_one_is_not() {
    let path = TempPath::new("exclusive");
    let device = file_of_zeros(&path.0);
    let mut reactor = Reactor::new(&tight()).unwrap();
    reactor.io().register_file(device.file().unwrap()).unwrap();
    let bell = reactor.doorbell();
    drop(device);
    let error = DeviceFile::open(&path.0, OpenMode::ReadWrite).expect_err("held by the reactor");
    assert!(matches!(error, DeviceError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("fuser -v"), "{error}");
    DeviceFile::open(&path.0, OpenMode::ReadOnly).expect("readers may look");
    let plain = std::fs::File::open(&path.0).unwrap();
    assert_eq!(crate::map_readonly(&plain).expect_err("held").kind(), ErrorKind::WouldBlock);

    drop(reactor);
    DeviceFile::open(&path.0, OpenMode::ReadWrite).expect("free again, though a bell is left");
    bell.ring();
    let map = crate::map_readonly(&plain).unwrap();
    assert_eq!(map.len() as u64, SIZE);
    assert!(map.iter().all(|byte| *byte == 0));
}

#[test]
fn what_cannot_do_direct_io_is_refused() {
    let missing = DeviceFile::open("/var/tmp/not-there/wal", OpenMode::ReadWrite);
    assert!(matches!(missing, Err(DeviceError::NotFound { .. })));
    let wrong = DeviceFile::open("/dev/null", OpenMode::ReadWrite);
    assert!(matches!(wrong, Err(DeviceError::WrongKind { .. })));
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let path = TempPath(memory.join(format!("tailrace-uring-{}", std::process::id())));
        let error = DeviceFile::open(&path.0, OpenMode::Create).expect_err("tmpfs");
        assert!(matches!(error, DeviceError::NoDirectIo { .. }), "{error}");
    }
}

#[test]
fn the_write_cache_of_a_partition_is_its_device_s() {
    let root = TempPath::new("sys");
    let (sys, disk) = (root.0.join("dev/block"), root.0.join("devices/nvme0n1"));
    std::fs::create_dir_all(&sys).unwrap();
    std::fs::create_dir_all(disk.join("queue")).unwrap();
    std::fs::create_dir_all(disk.join("nvme0n1p1")).unwrap();
    symlink(&disk, sys.join("259:0")).unwrap();
    symlink(disk.join("nvme0n1p1"), sys.join("259:1")).unwrap();
    for (text, expected) in [
        ("write back\n", Some(WriteCache::Volatile)),
        ("write through\n", Some(WriteCache::WriteThrough)),
        ("nonsense\n", None),
    ] {
        std::fs::write(disk.join("queue/write_cache"), text).unwrap();
        assert_eq!(crate::device::write_cache_in(&sys, 259, 0), expected);
        assert_eq!(crate::device::write_cache_in(&sys, 259, 1), expected);
    }
    assert_eq!(crate::device::write_cache_in(&sys, 0, 43), None);
    std::fs::remove_dir_all(&root.0).unwrap();
    assert!(WriteCache::Unknown.needs_sync() && !WriteCache::WriteThrough.needs_sync());
}

/// Runs itself again as a process of its own, whose limits it may lower.
#[test]
fn a_low_memlock_limit_is_named() {
    const CHILD: &str = "TAILRACE_TEST_LOW_MEMLOCK";
    if std::env::var_os(CHILD).is_some() {
        return meet_a_low_memlock_limit();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::disk::a_low_memlock_limit_is_named"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

fn meet_a_low_memlock_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let limit = Rlimit { current: Some(512 << 10), maximum: Some(512 << 10) };
    setrlimit(Resource::Memlock, limit).unwrap();
    let mut held = capabilities(None).unwrap();
    held.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, held).unwrap();
    let error = Reactor::new(&ReactorConfig::default()).err().expect("2 MiB of buffers");
    assert!(matches!(error, SetupError::MemlockTooLow { bytes: 2_097_152, .. }), "{error}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    let fits = ReactorConfig { fixed_buffer_count: 0, ..ReactorConfig::default() };
    let mut reactor = Reactor::new(&fits).expect("without registered buffers it fits");
    assert!(!reactor.io().take_buffer(4096).is_registered());
}

#[test]
fn files_are_close_on_exec() {
    let path = TempPath::new("cloexec");
    let device = file_of_zeros(&path.0);
    let file = device.file().unwrap();
    let flags = rustix::io::fcntl_getfd(&file).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "{}", file.as_raw_fd());
}
