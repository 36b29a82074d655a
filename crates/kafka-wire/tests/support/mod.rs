//! Frames that Kafka's own classes wrote (`testdata/GoldenFrames.java`), shared by the tests.
#![expect(dead_code, reason = "each test binary uses a part")]

use bytes::BytesMut;
use kafka_wire::ApiKey;

pub(crate) struct Golden {
    pub(crate) is_request: bool,
    pub(crate) api_key: ApiKey,
    pub(crate) version: i16,
    /// Without length prefix.
    pub(crate) frame: Vec<u8>,
}

impl Golden {
    pub(crate) fn name(&self) -> String {
        let kind = if self.is_request { "request" } else { "response" };
        format!("{} {kind} v{}", self.api_key, self.version)
    }

    pub(crate) fn bytes(&self) -> BytesMut {
        BytesMut::from(self.frame.as_slice())
    }
}

pub(crate) fn frames() -> Vec<Golden> {
    include_str!("../../testdata/frames.txt").lines().map(parse).collect()
}

pub(crate) fn requests() -> Vec<Golden> {
    frames().into_iter().filter(|golden| golden.is_request).collect()
}

pub(crate) fn responses() -> Vec<Golden> {
    frames().into_iter().filter(|golden| !golden.is_request).collect()
}

/// Codec name and batch, as Java's producer writes them.
pub(crate) fn batches() -> Vec<(&'static str, BytesMut)> {
    let line = |line: &'static str| {
        let (name, hex) = line.split_once(' ').expect("two words");
        (name, BytesMut::from(unhex(hex).as_slice()))
    };
    include_str!("../../testdata/batches.txt").lines().map(line).collect()
}

fn parse(line: &str) -> Golden {
    let words: Vec<&str> = line.split(' ').collect();
    let [kind, api_key, version, hex] = words[..] else { panic!("four words: {line}") };
    Golden {
        is_request: kind == "request",
        api_key: ApiKey::from_code(api_key.parse().expect("a number")).expect("served"),
        version: version.parse().expect("a number"),
        frame: unhex(hex),
    }
}

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}
