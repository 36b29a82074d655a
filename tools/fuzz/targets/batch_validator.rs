//! Any record batch that a client may send: as it is, and as a sender would write it, with length
//! and checksum in order, so that the code behind these checks is reached too.
#![no_main]

const LENGTH_AT: usize = 8;
const CRC_AT: usize = 17;
const CRC_COVERS: usize = 21;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    kafka_wire::fuzz::fuzz_batch(bytes);
    if bytes.len() > CRC_COVERS {
        let mut batch = bytes.to_vec();
        let length = u32::try_from(batch.len() - LENGTH_AT - 4).expect("inputs are short");
        batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_COVERS..]);
        batch[CRC_AT..CRC_COVERS].copy_from_slice(&crc.to_be_bytes());
        kafka_wire::fuzz::fuzz_batch(&batch);
    }
});
