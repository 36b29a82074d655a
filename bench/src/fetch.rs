//! `tailrace bench fetch`: how fast a topic is read from its beginning to its end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Args;
use kafka_wire::batch::BatchHeader;
use kafka_wire::client;
use kafka_wire::messages as m;
use serde::Serialize;

use crate::BenchError;
use crate::clock::Clock;
use crate::kafka::{self, CLIENT_ID, KafkaError, error_name, io_error, topic_name};
use crate::produce::float;

const FETCH_VERSION: i16 = 12;
const WAIT_MS: i32 = 500;

/// Reads a topic from its beginning to where it ends now, as fast as it can
///
/// One thread and connection for each address that leads partitions; one request at a time for all
/// of them that are not read to their end. Batches are not looked into.
#[derive(Args, Clone, Debug, Serialize)]
pub struct FetchArgs {
    /// A broker to connect to first
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Topic to read
    #[arg(long, default_value = "tailrace-bench")]
    pub topic: String,
    /// Bytes of a partition that are asked for in a request
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(i32).range(1..))]
    pub partition_bytes: i32,
    /// Read no faster than so many units of 1,000,000 bytes a second, on each connection
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Also write settings and result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What `tailrace bench fetch` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub kind: &'static str,
    pub settings: FetchArgs,
    /// Of record batches.
    pub bytes: u64,
    pub requests: u64,
    pub seconds: f64,
    /// In units of 1,000,000 bytes.
    pub megabytes_per_second: f64,
}

/// Measures, prints the result to `out`, and returns it.
pub fn run(args: &FetchArgs, out: &mut dyn Write) -> Result<Report, BenchError> {
    let leaders = kafka::leaders_of(&args.bootstrap, &args.topic)?;
    let clock = Clock::start();
    let mut threads = Vec::new();
    for (address, partitions) in leaders {
        let args = args.clone();
        let reader = move || Reader::new(&args, address, &partitions)?.run();
        let thread = uring::spawn_pinned("fetch", None, reader);
        threads.push(thread.map_err(BenchError::io("start a thread"))?);
    }
    let (mut bytes, mut requests) = (0, 0);
    for thread in threads {
        let done = thread.join().map_err(|_| BenchError::Panicked)??;
        bytes += done.bytes;
        requests += done.requests;
    }
    let seconds = Duration::from_nanos(clock.now()).as_secs_f64();
    let megabytes_per_second = float(bytes) / 1e6 / seconds;
    let settings = args.clone();
    let report = Report { kind: "fetch", settings, bytes, requests, seconds, megabytes_per_second };
    writeln!(out, "{bytes} bytes in {requests} requests: {megabytes_per_second:.1} MB/s")
        .map_err(BenchError::io("print the result"))?;
    if let Some(json) = &args.json {
        crate::write_json(json, &report)?;
    }
    Ok(report)
}

/// One connection and the partitions that are read over it.
struct Reader {
    stream: TcpStream,
    topic: String,
    partition_bytes: i32,
    /// Bytes a second.
    rate: Option<u64>,
    /// By partition, the next offset, and the end once it is known.
    positions: BTreeMap<i32, (i64, Option<i64>)>,
    bytes: u64,
    requests: u64,
    /// Of the last reply, to be used again: fresh memory would cost as much as reading it.
    buffer: BytesMut,
}

impl Reader {
    fn new(args: &FetchArgs, address: SocketAddr, partitions: &[i32]) -> Result<Self, BenchError> {
        Ok(Self {
            stream: kafka::connect(address)?,
            topic: args.topic.clone(),
            partition_bytes: args.partition_bytes,
            rate: args.rate.map(|rate| u64::from(rate) * 1_000_000),
            positions: partitions.iter().map(|partition| (*partition, (0, None))).collect(),
            bytes: 0,
            requests: 0,
            buffer: BytesMut::new(),
        })
    }

    fn run(mut self) -> Result<Self, BenchError> {
        let clock = Clock::start();
        while !self.positions.is_empty() {
            let request = self.request();
            let frame = self.exchange(&request)?;
            self.take_all(frame.clone())?;
            self.buffer = frame.try_into_mut().unwrap_or_default();
            self.requests += 1;
            self.positions.retain(|_, (next, end)| end.is_none_or(|end| *next < end));
            self.pace(&clock);
        }
        Ok(self)
    }

    /// Waits until as much may have been read.
    #[expect(clippy::disallowed_methods, reason = "nothing else is to be done on this thread")]
    fn pace(&self, clock: &Clock) {
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(float(self.bytes) / float(rate));
        std::thread::sleep(due.saturating_sub(Duration::from_nanos(clock.now())));
    }

    fn request(&self) -> m::FetchRequest {
        let partition = |(partition, (next, _)): (&i32, &(i64, _))| {
            m::fetch_request::FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*next)
                .with_partition_max_bytes(self.partition_bytes)
        };
        let topic = m::fetch_request::FetchTopic::default()
            .with_topic(topic_name(&self.topic))
            .with_partitions(self.positions.iter().map(partition).collect());
        m::FetchRequest::default()
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    fn take_all(&mut self, frame: Bytes) -> Result<(), BenchError> {
        let decoded = client::decode_response::<m::FetchRequest>(FETCH_VERSION, frame);
        let (_, reply) = decoded.map_err(KafkaError::from)?;
        let partitions = reply.responses.iter().flat_map(|topic| &topic.partitions);
        for data in partitions {
            self.take(data)?;
        }
        Ok(())
    }

    /// Notes how far one partition is read.
    fn take(&mut self, data: &m::fetch_response::PartitionData) -> Result<(), BenchError> {
        if data.error_code != 0 {
            return Err(BenchError::Refused { error: error_name(data.error_code) });
        }
        let Some((next, end)) = self.positions.get_mut(&data.partition_index) else {
            return Ok(());
        };
        end.get_or_insert(data.high_watermark);
        let mut records = data.records.as_deref().unwrap_or_default();
        self.bytes += records.len() as u64;
        while let Some(header) = BatchHeader::read(records) {
            *next = header.last_offset() + 1;
            records = header.size().and_then(|size| records.get(size..)).unwrap_or_default();
        }
        Ok(())
    }

    /// The reply's frame; what it holds beyond the reply is of an earlier one.
    fn exchange(&mut self, request: &m::FetchRequest) -> Result<Bytes, KafkaError> {
        let frame = client::encode_request(FETCH_VERSION, 0, CLIENT_ID, request)?;
        self.stream.write_all(&frame).map_err(io_error("send a request"))?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).map_err(io_error("read a reply"))?;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        let mut reply = std::mem::take(&mut self.buffer);
        reply.resize(size.max(reply.len()), 0);
        self.stream.read_exact(&mut reply[..size]).map_err(io_error("read a reply"))?;
        Ok(reply.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use kafka_wire::records::RecordBatchBuilder;

    use super::*;

    fn reader() -> Reader {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let args = FetchArgs {
            bootstrap: String::new(),
            topic: "t".to_owned(),
            partition_bytes: 1000,
            rate: None,
            json: None,
        };
        Reader::new(&args, listener.local_addr().unwrap(), &[0, 3]).unwrap()
    }

    #[test]
    fn a_partition_is_read_on_after_the_last_batch() {
        let mut reader = reader();
        let mut builder = RecordBatchBuilder::new();
        builder.append(1, None, Some(b"one"), &[]).append(2, None, Some(b"two"), &[]);
        let (mut both, mut second) = (builder.build(), builder.build());
        kafka_wire::batch::patch(&mut both, 10, 0);
        kafka_wire::batch::patch(&mut second, 12, 0);
        both.extend_from_slice(&second);
        let size = both.len() as u64;
        let data = m::fetch_response::PartitionData::default()
            .with_partition_index(3)
            .with_high_watermark(20)
            .with_records(Some(both.freeze()));
        reader.take(&data).unwrap();
        assert_eq!(reader.positions[&3], (14, Some(20)));
        assert_eq!((reader.positions[&0], reader.bytes), ((0, None), size));
        let request = reader.request();
        let offsets: Vec<_> =
            request.topics[0].partitions.iter().map(|of| (of.partition, of.fetch_offset)).collect();
        assert_eq!(offsets, [(0, 0), (3, 14)]);
        assert!(reader.take(&data.with_error_code(1)).is_err());
    }
}
