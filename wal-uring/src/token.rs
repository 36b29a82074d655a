//! Tokens of the WAL's requests: bit 63 says that they are ours, bits 60 and 61 which part's.

use crate::{TOKEN_SPACE, in_memory};

const CLASS_SHIFT: u32 = 60;
const NUMBER_MASK: u64 = (1 << CLASS_SHIFT) - 1;
const CLASS_WRITE: u64 = 0;
const CLASS_SUPERBLOCK: u64 = 1;
const CLASS_READ: u64 = 2;

/// What a completion is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Token {
    /// A frame write, by number.
    Write(u64),
    /// A superblock copy.
    Superblock(u64),
    /// A catch-up read, by slot.
    Read(usize),
}

impl Token {
    pub(crate) fn parse(token: u64) -> Option<Self> {
        if token & TOKEN_SPACE == 0 {
            return None;
        }
        let number = token & NUMBER_MASK;
        match (token >> CLASS_SHIFT) & 0b111 {
            CLASS_WRITE => Some(Self::Write(number)),
            CLASS_SUPERBLOCK => Some(Self::Superblock(number)),
            CLASS_READ => Some(Self::Read(in_memory(number))),
            _ => None,
        }
    }
}

pub(crate) const fn write(number: u64) -> u64 {
    TOKEN_SPACE | (CLASS_WRITE << CLASS_SHIFT) | (number & NUMBER_MASK)
}

pub(crate) fn superblock(copy_index: u32) -> u64 {
    TOKEN_SPACE | (CLASS_SUPERBLOCK << CLASS_SHIFT) | u64::from(copy_index)
}

pub(crate) const fn read(slot: usize) -> u64 {
    TOKEN_SPACE | (CLASS_READ << CLASS_SHIFT) | slot as u64
}
