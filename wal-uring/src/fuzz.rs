//! Entry for the recovery fuzzer: bytes become damage to a small log, some of it with the checksums
//! put right again, so that the code behind the checksums is reached too.

use std::sync::OnceLock;

use uuid::Uuid;

use crate::format::{FormatOptions, ZeroFill, format};
use crate::frame::FRAME_HEADER_SIZE;
use crate::ring::SUPERBLOCK_AREA_SIZE;
use crate::sim::{SimDisk, SimDiskOptions};
use crate::superblock::{COPY_SIZE, SUPERBLOCK_SIZE};
use crate::{Identity, Location, Lsn, Part, Record, StreamId, Wal, WalOptions};

const BLOCK_SIZE: u32 = 512;
const SEGMENT_SIZE: u64 = 32 << 10;
const SIZE: u64 = SUPERBLOCK_AREA_SIZE + 4 * SEGMENT_SIZE;
const OPTIONS: SimDiskOptions = SimDiskOptions::new(SIZE, BLOCK_SIZE);
const IDENTITY: Identity =
    Identity { cluster_id: Uuid::nil(), node_id: 1, slice_index: 0, slice_count: 1 };

/// Overlays `bytes` on a small formatted image and opens it: must return, whatever they are. If the
/// image opens, it is used for a while.
///
/// The bytes are a list of edits: a kind, a place (2 bytes), a size (1 byte), that many bytes.
#[doc(hidden)]
pub fn fuzz_recovery(bytes: &[u8]) {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut image = IMAGE.get_or_init(sample_image).clone();
    let mut rest = bytes;
    while let [kind, low, high, size, tail @ ..] = rest {
        let (edit, after) = tail.split_at(usize::from(*size).min(tail.len()));
        overlay(&mut image, *kind, usize::from(u16::from_le_bytes([*low, *high])), edit);
        rest = after;
    }
    let mut disk = SimDisk::with_image(1, OPTIONS, image);
    let opened = Wal::open(&mut disk, &IDENTITY, WalOptions::default(), &mut |_| {});
    if let Ok((mut wal, _)) = opened {
        work(&mut wal, &mut disk);
    }
}

fn overlay(image: &mut [u8], kind: u8, place: usize, edit: &[u8]) {
    let area = crate::in_memory(SUPERBLOCK_AREA_SIZE);
    match kind % 4 {
        // Anywhere.
        0 => put(image, place * 4, edit),
        // The same field of all superblock copies.
        1 => {
            for copy in image[..4 * COPY_SIZE].chunks_exact_mut(COPY_SIZE) {
                put(&mut copy[8..SUPERBLOCK_SIZE], place % SUPERBLOCK_SIZE, edit);
                reseal(&mut copy[..SUPERBLOCK_SIZE]);
            }
        }
        // A header of a block.
        2 => {
            let block = area + place % 256 * BLOCK_SIZE as usize;
            put(&mut image[block + 4..block + FRAME_HEADER_SIZE], place / 256, edit);
            reseal(&mut image[block..block + FRAME_HEADER_SIZE]);
        }
        // The payload behind a header, as large as the header says.
        _ => {
            let block = area + place % 256 * BLOCK_SIZE as usize;
            let payload_at = block + FRAME_HEADER_SIZE;
            put(&mut image[payload_at..], place / 256, edit);
            let size = image[block + 12..block + 16].try_into().map_or(0, u32::from_le_bytes);
            let Some(payload) = image[payload_at..].get(..size as usize) else { return };
            let crc = crc32c::crc32c(payload);
            image[block + 4..block + 8].copy_from_slice(&crc.to_le_bytes());
            reseal(&mut image[block..payload_at]);
        }
    }
}

fn put(target: &mut [u8], at: usize, edit: &[u8]) {
    let target = target.get_mut(at..).unwrap_or_default();
    let size = edit.len().min(target.len());
    target[..size].copy_from_slice(&edit[..size]);
}

fn reseal(sealed: &mut [u8]) {
    let crc = crc32c::crc32c(&sealed[4..]);
    sealed[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A ring with some frames, a wrapped segment and a tail.
fn sample_image() -> Vec<u8> {
    let options = FormatOptions {
        cluster_id: IDENTITY.cluster_id,
        node_id: IDENTITY.node_id,
        incarnation: 0,
        ring_id: Uuid::from_u128(1),
        slice_count: 1,
        block_size: Some(BLOCK_SIZE),
        segment_size: Some(SEGMENT_SIZE),
        zero_fill: ZeroFill::Headers,
        force: true,
    };
    let mut disk = SimDisk::new(1, OPTIONS);
    format(&mut disk, &options, &mut |_, _| {}).expect("a new disk");
    let opened = Wal::open(&mut disk, &IDENTITY, WalOptions::default(), &mut |_| {});
    let (mut wal, _) = opened.expect("just formatted");
    for round in 0..30 {
        work(&mut wal, &mut disk);
        if round % 10 == 9 {
            wal.trim(Lsn::new(wal.durable_lsn().get().saturating_sub(SEGMENT_SIZE)));
        }
    }
    disk.kill()
}

/// Appends, commits, reads.
fn work(wal: &mut Wal, disk: &mut SimDisk) {
    let mut places: Vec<Location> = Vec::new();
    for (index, size) in [0_usize, 10, 300, 4000].into_iter().enumerate() {
        let data = vec![7; size];
        let index = index as u64;
        let stream = StreamId::new(3);
        let record =
            Record::Entry { stream, term: 1, index, parts: &[Part::of(&data)], vital: false };
        places.extend(wal.append(record).map(|appended| appended.data));
    }
    wal.submit(disk);
    while let Some(done) = disk.step() {
        wal.complete(disk, done);
        wal.submit(disk);
    }
    for (at, token) in places.into_iter().zip(0..) {
        // A refusal is as good: it did not panic.
        drop(wal.read(disk, at, token));
    }
    while let Some(done) = disk.step() {
        wal.complete(disk, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn damage_of_every_kind_is_survived() {
        for seed in 0..2000 {
            let mut random = Random::new(seed);
            let mut bytes = vec![0; 1 + random.below_usize(80)];
            random.fill(&mut bytes);
            // Small edits reach more.
            if let Some(size) = bytes.get_mut(3) {
                *size %= 16;
            }
            println!("seed {seed}");
            fuzz_recovery(&bytes);
        }
    }

    #[test]
    fn the_undamaged_image_opens() {
        let mut disk = SimDisk::with_image(1, OPTIONS, sample_image());
        let mut records = 0;
        let sink = &mut |_: crate::Recovered<'_>| records += 1;
        Wal::open(&mut disk, &IDENTITY, WalOptions::default(), sink).expect("undamaged");
        assert!(records > 0);
    }
}
