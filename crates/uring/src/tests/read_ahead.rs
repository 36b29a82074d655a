//! One read on its way.

use super::TempPath;
use crate::{AlignedBuf, DeviceFile, OpenMode, ReadAhead};

const BLOCK: usize = 4096;

/// Blocks of 0, 1, 2 and 3.
fn four_blocks(path: &TempPath) -> DeviceFile {
    let file = DeviceFile::open(&path.0, OpenMode::Create).expect("a file");
    for block in 0..4 {
        let mut buf = AlignedBuf::zeroed(BLOCK, BLOCK);
        buf.fill(block);
        file.write_at(offset(block.into()), &buf).expect("written");
    }
    file
}

fn offset(block: u64) -> u64 {
    block * BLOCK as u64
}

fn begin(ahead: &mut ReadAhead, block: u64) {
    ahead.begin(offset(block), 2 * BLOCK).expect("begun");
}

/// The first byte of each block that a read of two at this one gives.
fn take(ahead: &mut ReadAhead, block: u64) -> Option<[u8; 2]> {
    let mut buf = AlignedBuf::zeroed(2 * BLOCK, BLOCK);
    let found = ahead.take(offset(block), &mut buf).expect("a ring");
    found.then(|| [buf[0], buf[BLOCK]])
}

#[test]
fn what_was_begun_is_there_and_nothing_else() {
    let path = TempPath::new("read-ahead");
    let file = four_blocks(&path);
    let mut ahead = ReadAhead::new(&file, 2).expect("a ring");
    assert_eq!(take(&mut ahead, 0), None, "nothing was begun");
    begin(&mut ahead, 1);
    assert_eq!(take(&mut ahead, 1), Some([1, 2]));
    assert_eq!(take(&mut ahead, 1), None, "it was taken");
    begin(&mut ahead, 2);
    let mut shorter = AlignedBuf::zeroed(BLOCK, BLOCK);
    assert!(!ahead.take(offset(2), &mut shorter).expect("a ring"), "a shorter one");
    begin(&mut ahead, 3);
    assert_eq!(take(&mut ahead, 3), None, "the file ends within it");
    begin(&mut ahead, 0);
    begin(&mut ahead, 1);
    ahead.give_up().expect("a ring");
    assert_eq!(take(&mut ahead, 0), None, "it was given up");
    assert_eq!(take(&mut ahead, 1), None, "it was given up");
    begin(&mut ahead, 0);
    drop(ahead);
}

#[test]
fn the_oldest_makes_room_and_the_others_are_taken_in_any_order() {
    let path = TempPath::new("read-ahead-order");
    let file = four_blocks(&path);
    let mut ahead = ReadAhead::new(&file, 2).expect("a ring");
    (0..3).for_each(|block| begin(&mut ahead, block));
    assert_eq!(take(&mut ahead, 2), Some([2, 3]));
    assert_eq!(take(&mut ahead, 0), None, "a third one was begun");
    assert_eq!(take(&mut ahead, 1), Some([1, 2]));
    ahead.begin(offset(3), BLOCK).expect("begun");
    let mut shorter = AlignedBuf::zeroed(BLOCK, BLOCK);
    assert!(ahead.take(offset(3), &mut shorter).expect("a ring"), "of another size");
    assert_eq!(shorter[0], 3);
}
