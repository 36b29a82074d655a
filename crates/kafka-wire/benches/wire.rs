//! What a request costs before and after the broker's own work.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kafka_wire::client::encode_request;
use kafka_wire::fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse};
use kafka_wire::messages as m;
use kafka_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::records::RecordBatchBuilder;
use kafka_wire::validate::{ValidationRules, validate};
use kafka_wire::{ApiKey, Compression, RequestHeader, Response, StrBytes, decode, encode};

const NOW: i64 = 1_700_000_000_000;

fn batch(records: usize, compression: Compression) -> BytesMut {
    let mut builder = RecordBatchBuilder::new().compression(compression);
    for i in 0..records {
        let value: Vec<u8> = (0..1024u32).map(|at| (at % 61).to_be_bytes()[3]).collect();
        builder.append(NOW, Some(&i.to_be_bytes()), Some(&value), &[]);
    }
    builder.build()
}

fn produce_frame(records: usize) -> BytesMut {
    let partition = PartitionProduceData::default()
        .with_records(Some(batch(records, Compression::None).freeze()));
    let topic = TopicProduceData::default().with_partition_data(vec![partition]);
    let request = m::ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
    let frame = encode_request(13, 1, "bench", &request).expect("short");
    BytesMut::from(&frame[4..])
}

fn decode_requests(criterion: &mut Criterion) {
    for records in [1, 16] {
        let frame = produce_frame(records);
        criterion.bench_function(&format!("decode produce v13, {records} KiB"), |bencher| {
            bencher.iter_batched(|| frame.clone(), decode, BatchSize::SmallInput);
        });
    }
    let topics = ["a", "b", "c"].map(|name| {
        m::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(StrBytes::from_static_str(name).into()))
    });
    let request = m::MetadataRequest::default().with_topics(Some(topics.to_vec()));
    let frame = encode_request(12, 1, "bench", &request).expect("short");
    let frame = BytesMut::from(&frame[4..]);
    criterion.bench_function("decode metadata v12, 3 topics", |bencher| {
        bencher.iter_batched(|| frame.clone(), decode, BatchSize::SmallInput);
    });
}

fn validate_batches(criterion: &mut Criterion) {
    let rules = ValidationRules { now_ms: NOW, ..ValidationRules::default() };
    for (records, codec) in [
        (1, Compression::None),
        (16, Compression::None),
        (16, Compression::Lz4),
        (16, Compression::Zstd),
    ] {
        let records_bytes = batch(records, codec);
        let name = format!("validate {records} records of 1 KiB, {}", codec.name());
        criterion.bench_function(&name, |bencher| {
            bencher.iter_batched_ref(
                || records_bytes.clone(),
                |records| validate(records, &rules),
                BatchSize::SmallInput,
            );
        });
    }
}

fn encode_fetch(criterion: &mut Criterion) {
    let header = RequestHeader {
        api_key: ApiKey::Fetch,
        api_version: 17,
        correlation_id: 1,
        client_id: None,
    };
    let records = Bytes::from(vec![7; 1 << 20]);
    criterion.bench_function("encode fetch v17, 1 MiB", |bencher| {
        bencher.iter(|| {
            let mut partition = FetchPartitionResponse::empty(0);
            partition.records = vec![records.clone()];
            let topic =
                FetchTopicResponse { partitions: vec![partition], ..FetchTopicResponse::default() };
            let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
            black_box(encode(&header, Response::Fetch(response)))
        });
    });
}

criterion_group!(benches, decode_requests, validate_batches, encode_fetch);
criterion_main!(benches);
