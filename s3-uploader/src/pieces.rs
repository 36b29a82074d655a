//! Bytes that lie in several buffers and are read one after the other, without joining them first.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// See the module's text. Equal to others with the same bytes, wherever those are cut.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<_> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let remaining = pieces.iter().map(Bytes::len).sum();
        Self { pieces, remaining }
    }

    /// The first `N` bytes, if there are so many; they stay.
    pub fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        let mut found = [0; N];
        let mut room = found.as_mut_slice();
        for piece in &self.pieces {
            if !room.has_remaining_mut() {
                break;
            }
            room.put_slice(&piece[..piece.len().min(room.len())]);
        }
        (!room.has_remaining_mut()).then_some(found)
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self::new([bytes])
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self::new(pieces)
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "only {} bytes are left", self.remaining);
        self.remaining -= count;
        let mut left = count;
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            if left < piece.len() {
                piece.advance(left);
                break;
            }
            left -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// Without a copy if they lie in one buffer.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.remaining, "only {} bytes are left", self.remaining);
        match self.pieces.front_mut() {
            Some(piece) if len < piece.len() => {
                self.remaining -= len;
                piece.split_to(len)
            }
            Some(piece) if len == piece.len() => {
                self.remaining -= len;
                self.pieces.pop_front().unwrap_or_default()
            }
            _ => {
                let mut joined = BytesMut::with_capacity(len);
                joined.put(self.take(len));
                joined.freeze()
            }
        }
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |of: &Self| of.pieces.iter().flatten().copied().collect::<Vec<u8>>();
        self.remaining == other.remaining && bytes(self) == bytes(other)
    }
}

impl Eq for Pieces {}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bytes` in buffers of `size`, with empty ones between.
    fn cut(bytes: &Bytes, size: usize) -> Pieces {
        let starts = (0..bytes.len()).step_by(size);
        let piece = |start| bytes.slice(start..bytes.len().min(start + size));
        Pieces::from(starts.flat_map(|start| [piece(start), Bytes::new()]).collect::<Vec<_>>())
    }

    #[test]
    fn the_bytes_are_the_same_wherever_they_are_cut() {
        let whole: Bytes = (0..60).collect();
        for size in 1..61 {
            for len in 0..61 {
                let mut pieces = cut(&whole, size);
                assert_eq!(pieces.peek(), whole.first_chunk::<7>().copied());
                assert_eq!(pieces.copy_to_bytes(len), whole[..len], "{size} {len}");
                assert_eq!(pieces.remaining(), 60 - len);
                assert_eq!(pieces, Pieces::from(whole.slice(len..)));
                assert_eq!(pieces.peek::<7>().is_some(), 60 - len >= 7);
                let mut others = cut(&whole, size);
                others.advance(len);
                assert_eq!(others, pieces);
            }
        }
    }

    #[test]
    fn nothing_is_copied_that_lies_in_one_buffer() {
        let whole: Bytes = (0..60).collect();
        let mut pieces = cut(&whole, 20);
        let places = [(12, Some(0)), (8, Some(12)), (10, Some(20)), (11, None), (19, Some(41))];
        for (len, start) in places {
            let taken = pieces.copy_to_bytes(len);
            let shared = start.map(|start| whole[start..].as_ptr());
            assert_eq!(Some(taken.as_ptr()) == shared, start.is_some(), "{len} {start:?}");
        }
    }

    #[test]
    fn other_bytes_are_not_equal() {
        assert_ne!(
            Pieces::from(Bytes::from_static(b"ab")),
            Pieces::from(Bytes::from_static(b"ac"))
        );
        assert_ne!(Pieces::from(Bytes::from_static(b"ab")), Pieces::default());
    }
}
