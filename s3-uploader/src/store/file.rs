//! A folder as a store. What it promises on any local file system and on NFS:
//!
//! - An object appears whole or not at all: it is written to a temporary file, flushed, and then
//!   given its name, which fails if the name is taken.
//! - Once a write has returned, its file and every folder above it are flushed.

mod direct;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Advice, CWD, RenameFlags, fadvise, renameat_with};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use self::direct::{REQUEST_SIZE, Writer};
use crate::fail_point::{FailPoint, fail_point};
use crate::store::{Etag, Listed, PAGE_KEYS_MAX, Page, Put, StoreError, Verb, key};

/// Names with a dot in front are the store's own: no key has one.
const TEMPORARY: &str = ".tmp";
const LOCK: &str = ".lock";
/// A temporary file of that age belongs to no writer any more.
const TEMPORARY_AGE_MAX: Duration = Duration::from_hours(24);
/// Ranges that are read at a time. A device serves what waits in turn, and the WAL's next write
/// with it: 16 requests of 1 MiB were 13 ms of it. Two keep it busy.
const READS_MAX: usize = 2;
/// A folder may be removed between its making and its use, because it is empty.
const PLACE_ATTEMPTS_MAX: u32 = 16;

/// Clones are the same store.
#[derive(Clone, Debug)]
pub(super) struct FileStore(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Part of temporary names: several processes may write into one folder.
    seed: u64,
    temporaries: AtomicU64,
    reads: Semaphore,
}

impl FileStore {
    /// A folder that is there, for those who only read: nothing is made in it.
    pub(super) fn to_read(root: &Path, seed: u64) -> Self {
        Self(Arc::new(Folder {
            root: root.to_owned(),
            seed,
            temporaries: AtomicU64::new(0),
            reads: Semaphore::new(READS_MAX),
        }))
    }

    pub(super) async fn open(root: &Path, seed: u64) -> Result<Self, StoreError> {
        let store = Self::to_read(root, seed);
        let root = root.to_owned();
        let opened = store.run(|folder| folder.prepare()).await;
        opened.map_err(|error| {
            let advice = format!(
                "cannot write to the object folder {}: {error}: give this user leave to, or name \
                 another one",
                root.display()
            );
            StoreError::Config { advice }
        })?;
        Ok(store)
    }

    pub(super) async fn put_new(&self, key: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        let target = key.to_owned();
        let put = self.run(move |folder| folder.put_new(&target, &parts)).await;
        put.map_err(|error| refusal(Verb::Put, key, &error))
    }

    pub(super) async fn put_if_match(
        &self,
        key: &str,
        etag: &Etag,
        bytes: Bytes,
    ) -> Result<Etag, StoreError> {
        let (target, etag) = (key.to_owned(), etag.clone());
        let put = self.run(move |folder| folder.put_if_match(&target, &etag, bytes)).await;
        let put = put.map_err(|error| refusal(Verb::Put, key, &error))?;
        put.ok_or_else(|| StoreError::PreconditionFailed { key: key.to_owned() })
    }

    pub(super) async fn get(&self, key: &str) -> Result<(Bytes, Etag), StoreError> {
        let path = self.0.path(key);
        let read = self.run(move |_| {
            let mut file = File::open(path)?;
            let etag = etag_of(&file)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok((Bytes::from(bytes), etag))
        });
        read.await.map_err(|error| refusal(Verb::Get, key, &error))
    }

    /// Fewer bytes if the object ends before.
    pub(super) async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let path = self.0.path(key);
        let _turn = self.0.reads.acquire().await.expect("it is never closed");
        let read = self.run(move |_| read_range(&File::open(path)?, range));
        read.await.map_err(|error| refusal(Verb::Get, key, &error))
    }

    pub(super) async fn size(&self, key: &str) -> Result<u64, StoreError> {
        let path = self.0.path(key);
        let size = self.run(move |_| match fs::metadata(path)? {
            file if file.is_file() => Ok(file.len()),
            _ => Err(ErrorKind::IsADirectory.into()),
        });
        size.await.map_err(|error| refusal(Verb::Get, key, &error))
    }

    pub(super) async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let (begin, after) = (prefix.to_owned(), after.map(str::to_owned));
        let listed = self.run(move |folder| {
            let mut listing = Listing { prefix: begin, after, page: Page::default() };
            listing.walk(&folder.root, "")?;
            Ok(listing.page)
        });
        listed.await.map_err(|error| refusal(Verb::List, prefix, &error))
    }

    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        let deleted = self.run(move |folder| folder.delete(&keys));
        deleted.await.map_err(|error| refusal(Verb::Delete, "objects", &error))
    }

    /// On a thread where waiting for a disk holds up no other request.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folder = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }
}

impl Folder {
    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Makes the folder and sees that it can be written.
    fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(self.root.join(TEMPORARY))?;
        let (path, file) = self.temporary()?;
        let now = file.metadata()?.modified()?;
        for entry in fs::read_dir(self.root.join(TEMPORARY))? {
            let entry = entry?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
            if age.is_some_and(|age| age > TEMPORARY_AGE_MAX) {
                present(fs::remove_file(entry.path()))?;
            }
        }
        fs::remove_file(path)
    }

    fn put_new(&self, key: &str, parts: &[Bytes]) -> io::Result<Put> {
        let target = self.path(key);
        // Spares the writing; what decides is the rename below.
        if fs::exists(&target)? {
            self.flush_above(&target)?;
            return Ok(Put::Exists);
        }
        let (temporary, _) = self.write_temporary(parts)?;
        fail_point(FailPoint::PutWritten);
        let placed = self.place_new(&temporary, &target);
        if !matches!(placed, Ok(Put::Created)) {
            present(fs::remove_file(&temporary))?;
        }
        let put = placed?;
        // Also what another writer placed: its name may not be durable yet, and the caller may
        // take its object for our own.
        self.flush_above(&target)?;
        Ok(put)
    }

    fn place_new(&self, temporary: &Path, target: &Path) -> io::Result<Put> {
        let parent = target.parent().unwrap_or(&self.root);
        let mut attempts = 0;
        loop {
            attempts += 1;
            DirBuilder::new().recursive(true).create(parent)?;
            let moved = match renameat_with(CWD, temporary, CWD, target, RenameFlags::NOREPLACE) {
                // Not every file system knows the flag, NFS for one; links are as exclusive.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    fs::hard_link(temporary, target).and_then(|()| fs::remove_file(temporary))
                }
                moved => moved.map_err(io::Error::from),
            };
            match moved {
                Ok(()) => return Ok(Put::Created),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Put::Exists),
                Err(error)
                    if error.kind() == ErrorKind::NotFound && attempts < PLACE_ATTEMPTS_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Nothing if the object is not as `etag` says. The lock is for others who replace; a name that
    /// is new needs none.
    fn put_if_match(&self, key: &str, etag: &Etag, bytes: Bytes) -> io::Result<Option<Etag>> {
        let target = self.path(key);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join(LOCK))?;
        lock.lock()?;
        if etag_of(&File::open(&target)?)? != *etag {
            return Ok(None);
        }
        let (temporary, file) = self.write_temporary(&[bytes])?;
        fs::rename(temporary, &target)?;
        self.flush_above(&target)?;
        etag_of(&file).map(Some)
    }

    fn write_temporary(&self, parts: &[Bytes]) -> io::Result<(PathBuf, File)> {
        let (path, file) = self.temporary()?;
        match write_all(&file, parts) {
            Ok(()) => Ok((path, file)),
            Err(error) => {
                // A full disk: what was written of it must not stay.
                present(fs::remove_file(&path))?;
                Err(error)
            }
        }
    }

    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let number = self.temporaries.fetch_add(1, Relaxed);
        let name = format!("{:016x}-{}-{number}", self.seed, std::process::id());
        let path = self.root.join(TEMPORARY).join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok((path, file))
    }

    /// Makes the names of a path durable, from its folder up to the store's.
    fn flush_above(&self, path: &Path) -> io::Result<()> {
        let folders = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.root));
        for folder in folders {
            // One that is gone held nothing any more.
            present(File::open(folder).and_then(|folder| folder.sync_all()))?;
        }
        Ok(())
    }

    fn delete(&self, keys: &[String]) -> io::Result<()> {
        for key in keys {
            let path = self.path(key);
            if !present(fs::remove_file(&path))? {
                continue;
            }
            let folders = path.ancestors().skip(1);
            for folder in folders.take_while(|above| *above != self.root) {
                // Not empty, mostly.
                if fs::remove_dir(folder).is_err() {
                    present(File::open(folder).and_then(|folder| folder.sync_all()))?;
                    break;
                }
            }
        }
        Ok(())
    }
}

fn write_all(file: &File, parts: &[Bytes]) -> io::Result<()> {
    let mut writer = Writer::new(file, parts.iter().map(Bytes::len).sum())?;
    parts.iter().try_for_each(|part| writer.write(part))?;
    writer.finish()
}

/// A listing on its way through the folders, in the order of the keys' bytes.
struct Listing {
    prefix: String,
    after: Option<String>,
    page: Page,
}

impl Listing {
    /// `above` is what the keys in this folder begin with.
    fn walk(&mut self, folder: &Path, above: &str) -> io::Result<()> {
        for (key, entry) in entries_of(folder, above)? {
            if self.page.more {
                break;
            }
            if key.ends_with('/') {
                let wanted = key.starts_with(&self.prefix) || self.prefix.starts_with(&key);
                let passed = self.after.as_ref().is_some_and(|after| {
                    key.as_str() <= after.as_str() && !after.starts_with(&key)
                });
                if wanted && !passed {
                    self.walk(&entry.path(), &key)?;
                }
                continue;
            }
            let passed = self.after.as_ref().is_some_and(|after| key <= *after);
            if passed || !key.starts_with(&self.prefix) {
                continue;
            }
            if self.page.objects.len() == PAGE_KEYS_MAX {
                self.page.more = true;
                break;
            }
            match entry.metadata() {
                Ok(metadata) => self.page.objects.push(Listed {
                    key,
                    size: metadata.len(),
                    modified_ms: metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What is in a folder, each with its key; folders' end in a slash, by which they sort. What no
/// store wrote is left out.
fn entries_of(folder: &Path, above: &str) -> io::Result<Vec<(String, fs::DirEntry)>> {
    let mut entries = Vec::new();
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(entries),
        Err(error) => return Err(error),
    };
    for entry in listed {
        let entry = entry?;
        let kind = entry.file_type()?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if (kind.is_file() || kind.is_dir()) && key::check_key(&name).is_ok() {
            let slash = if kind.is_dir() { "/" } else { "" };
            entries.push((format!("{above}{name}{slash}"), entry));
        }
    }
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let size = file.metadata()?.len();
    let end = range.end.min(size);
    let wanted = usize::try_from(end.saturating_sub(range.start)).map_err(io::Error::other)?;
    // Ahead of what is asked for nothing: the fetcher does that, and knows who reads on.
    fadvise(file, 0, None, Advice::Random)?;
    let mut bytes = vec![0; wanted];
    let places = (range.start..).step_by(REQUEST_SIZE);
    for (piece, at) in bytes.chunks_mut(REQUEST_SIZE).zip(places) {
        file.read_exact_at(piece, at)?;
    }
    Ok(Bytes::from(bytes))
}

/// A replaced file is another inode; one that reuses the number has another time.
fn etag_of(file: &File) -> io::Result<Etag> {
    let of = file.metadata()?;
    Ok(Etag(format!("{:x}-{:x}-{:x}-{:x}", of.ino(), of.mtime(), of.mtime_nsec(), of.len())))
}

/// Whether there was something to work on.
fn present(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn refusal(verb: Verb, key: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        // A folder of that name is no object, nor is what is below an object.
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory => {
            StoreError::NotFound { key: key.to_owned() }
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            let advice = format!("{key}: {error}: give this user leave to, down from the folder");
            StoreError::Denied { verb, advice }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let reason = format!("{key}: {error}: make room in the object folder");
            StoreError::Unavailable { verb, reason }
        }
        _ => StoreError::Unavailable { verb, reason: format!("{key}: {error}") },
    }
}
