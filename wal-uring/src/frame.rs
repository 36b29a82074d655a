//! One frame is one group commit: a header, then records, padded to the device's block.

mod builder;
mod header;
mod record;

pub use builder::{ClosedFrame, FrameWriter, Stamp};
pub use header::{FRAME_HEADER_SIZE, FrameFields, FrameHeader, FrameKind, HeaderError};
pub use record::{
    Part, RECORD_HEADER_SIZE, RecordError, RecordIter, RecordKey, RecordView, decode_single,
};
