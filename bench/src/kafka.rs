//! The Kafka side of the load: finds leaders, creates the topic, prepares requests, reads replies.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kafka_wire::client::{self, ClientError, ClientRequest};
use kafka_wire::messages as m;
use kafka_wire::produce::{ProducePartitionResponse, ProduceResponse, ProduceTopicResponse};
use kafka_wire::records::RecordBatchBuilder;
use kafka_wire::{
    ApiKey, ErrorCode, FrameError, FrameLimits, FrameReader, RequestHeader, Response, StrBytes,
};

use crate::clock::sleep;

pub(crate) const CLIENT_ID: &str = "tailrace-bench";
const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;

/// Of a frame: length, API key and version come before it.
const CORRELATION_ID: std::ops::Range<usize> = 8..12;

/// Of one record or more; the broker's own limit is lower.
const REPLY_SIZE_MAX: usize = 64 << 20;

/// What a broker gets to answer a call that is not measured, and to elect the leaders.
const PATIENCE: Duration = Duration::from_secs(10);
const LEADER_RETRY: Duration = Duration::from_millis(50);
const LEADER_TRIES: u128 = PATIENCE.as_millis() / LEADER_RETRY.as_millis();

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error("cannot find the address of {address}: {source}")]
    Address { address: String, source: io::Error },
    #[error("cannot {action}: {source}")]
    Io { action: &'static str, source: io::Error },
    #[error("the broker's reply does not decode: {0}")]
    Client(#[from] ClientError),
    #[error("the broker's reply is not framed: {0}")]
    Frame(#[from] FrameError),
    #[error("the broker closed the connection")]
    Closed,
    #[error("a reply to request {found:?} came where that to {expected} was due")]
    Order { expected: i32, found: Option<i32> },
    #[error("topic {topic} cannot be created: {error}")]
    Create { topic: String, error: String },
    #[error("topic {topic} has {found} partitions with a leader, not {wanted}, after 10 s: {why}")]
    Partitions { topic: String, found: usize, wanted: i32, why: String },
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Workload {
    pub topic: String,
    pub partitions: i32,
    /// Bytes of a record's value.
    pub record_size: usize,
    pub batch_records: u64,
    pub acks: i16,
}

/// Prepared Produce requests, one for each partition, sent in turns.
#[derive(Debug)]
pub struct Requests {
    frames: Vec<BytesMut>,
}

/// Splits and checks the replies of one connection.
#[derive(Debug)]
pub struct Replies {
    reader: FrameReader,
    next_id: i32,
    /// What the first request that failed was told.
    pub first_error: Option<String>,
}

impl Requests {
    /// For these partitions; there must be one.
    pub fn new(workload: &Workload, partitions: &[i32]) -> Result<Self, ClientError> {
        let mut batch = RecordBatchBuilder::new();
        let value: Vec<u8> = (b'a'..=b'z').cycle().take(workload.record_size).collect();
        for _ in 0..workload.batch_records {
            batch.append(unix_ms(), None, Some(&value), &[]);
        }
        let records = batch.build().freeze();
        let frame = |partition: &i32| {
            let data = m::produce_request::PartitionProduceData::default()
                .with_index(*partition)
                .with_records(Some(records.clone()));
            let topic = m::produce_request::TopicProduceData::default()
                .with_name(topic_name(&workload.topic))
                .with_partition_data(vec![data]);
            let request = m::ProduceRequest::default()
                .with_acks(workload.acks)
                .with_timeout_ms(30_000)
                .with_topic_data(vec![topic]);
            let frame = client::encode_request(PRODUCE_VERSION, 0, CLIENT_ID, &request)?;
            Ok(BytesMut::from(&frame[..]))
        };
        Ok(Self { frames: partitions.iter().map(frame).collect::<Result<_, ClientError>>()? })
    }

    /// The `index`-th request of the connection, ready to be sent.
    pub fn get(&mut self, index: u64) -> &[u8] {
        let turn = index % (self.frames.len() as u64).max(1);
        let turn = usize::try_from(turn).unwrap_or_default();
        let Some(frame) = self.frames.get_mut(turn) else { return &[] };
        frame[CORRELATION_ID].copy_from_slice(&correlation_id(index).to_be_bytes());
        frame
    }

    /// Bytes of the first request.
    pub fn size(&self) -> usize {
        self.frames.first().map_or(0, BytesMut::len)
    }
}

impl Default for Replies {
    fn default() -> Self {
        let limits = FrameLimits { produce_max: REPLY_SIZE_MAX, other_max: REPLY_SIZE_MAX };
        Self { reader: FrameReader::new(limits), next_id: 0, first_error: None }
    }
}

impl Replies {
    pub fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    /// Whether the next reply tells of success; `None` if it is not there yet.
    pub fn next_reply(&mut self) -> Result<Option<bool>, KafkaError> {
        let Some(frame) = self.reader.next_frame()? else { return Ok(None) };
        let found = client::correlation_id(&frame);
        if found != Some(self.next_id) {
            return Err(KafkaError::Order { expected: self.next_id, found });
        }
        self.next_id = self.next_id.wrapping_add(1);
        let (_, body) =
            client::decode_response::<m::ProduceRequest>(PRODUCE_VERSION, frame.freeze())?;
        let partitions = body.responses.iter().flat_map(|topic| &topic.partition_responses);
        let failed = partitions.map(|partition| partition.error_code).find(|code| *code != 0);
        if let (Some(code), None) = (failed, &self.first_error) {
            self.first_error = Some(error_name(code));
        }
        Ok(Some(failed.is_none()))
    }
}

/// The reply to a Produce request of one partition, as a broker would send it: what the bare echo
/// answers. The correlation id is at bytes 4..8.
pub fn canned_reply(topic: &str) -> Bytes {
    let header = RequestHeader {
        api_key: ApiKey::Produce,
        api_version: PRODUCE_VERSION,
        correlation_id: 0,
        client_id: None,
    };
    let partitions = vec![ProducePartitionResponse::appended(0, 0, 0)];
    let name = StrBytes::from_string(topic.to_owned());
    let topics = vec![ProduceTopicResponse { name, partitions, ..Default::default() }];
    let response = Response::Produce(ProduceResponse { topics, ..Default::default() });
    let pieces = kafka_wire::encode(&header, response).unwrap_or_default();
    pieces.concat().into()
}

/// Makes sure that the topic is there; returns which partitions each address leads.
pub fn prepare(
    bootstrap: &str,
    workload: &Workload,
) -> Result<BTreeMap<SocketAddr, Vec<i32>>, KafkaError> {
    let mut stream = connect(resolve(bootstrap)?)?;
    create_topic(&mut stream, workload)?;
    let mut tries = LEADER_TRIES;
    loop {
        let (leaders, why) = leaders(&mut stream, &workload.topic)?;
        let found = leaders.values().map(Vec::len).sum();
        if usize::try_from(workload.partitions) == Ok(found) {
            return Ok(leaders);
        }
        if tries == 0 {
            let (topic, wanted) = (workload.topic.clone(), workload.partitions);
            return Err(KafkaError::Partitions { topic, found, wanted, why });
        }
        tries -= 1;
        sleep(LEADER_RETRY);
    }
}

/// The partitions of a topic that is there, by the address that leads them.
pub(crate) fn leaders_of(
    bootstrap: &str,
    topic: &str,
) -> Result<BTreeMap<SocketAddr, Vec<i32>>, KafkaError> {
    let mut stream = connect(resolve(bootstrap)?)?;
    Ok(leaders(&mut stream, topic)?.0)
}

/// Unless it is there. While the cluster elects a controller, nobody can.
fn create_topic(stream: &mut TcpStream, workload: &Workload) -> Result<(), KafkaError> {
    let topic = m::create_topics_request::CreatableTopic::default()
        .with_name(topic_name(&workload.topic))
        .with_num_partitions(workload.partitions)
        .with_replication_factor(-1);
    let timeout_ms = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
    let request =
        m::CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms);
    let codes = [ErrorCode::None.code(), ErrorCode::TopicAlreadyExists.code()];
    let mut tries = LEADER_TRIES;
    loop {
        let reply = call(stream, CREATE_TOPICS_VERSION, &request)?;
        let mut topics = reply.topics.iter();
        let Some(refused) = topics.find(|topic| !codes.contains(&topic.error_code)) else {
            return Ok(());
        };
        if tries == 0 || refused.error_code != ErrorCode::NotController.code() {
            let message = refused.error_message.as_deref().unwrap_or_default();
            let error = format!("{} {message}", error_name(refused.error_code));
            return Err(KafkaError::Create { topic: workload.topic.clone(), error });
        }
        tries -= 1;
        sleep(LEADER_RETRY);
    }
}

/// By address, the partitions that have a leader; and a reason if some have none.
fn leaders(
    stream: &mut TcpStream,
    topic: &str,
) -> Result<(BTreeMap<SocketAddr, Vec<i32>>, String), KafkaError> {
    let wanted =
        m::metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = m::MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(true);
    let reply = call(stream, METADATA_VERSION, &request)?;
    let mut addresses = BTreeMap::new();
    for broker in &reply.brokers {
        let address = format!("{}:{}", &*broker.host, broker.port);
        addresses.insert(broker.node_id, resolve(&address)?);
    }
    let (mut leaders, mut why) = (BTreeMap::<_, Vec<i32>>::new(), String::from("no error told"));
    for topic in &reply.topics {
        if topic.error_code != 0 {
            why = error_name(topic.error_code);
        }
        for partition in &topic.partitions {
            match addresses.get(&partition.leader_id) {
                Some(address) if partition.error_code == 0 => {
                    leaders.entry(*address).or_default().push(partition.partition_index);
                }
                _ => why = error_name(partition.error_code),
            }
        }
    }
    Ok((leaders, why))
}

fn call<R: ClientRequest>(
    stream: &mut TcpStream,
    version: i16,
    request: &R,
) -> Result<R::Response, KafkaError> {
    let frame = client::encode_request(version, 0, CLIENT_ID, request)?;
    stream.write_all(&frame).map_err(io_error("send a request"))?;
    let mut replies = Replies::default();
    let mut bytes = [0; 4096];
    loop {
        if let Some(frame) = replies.reader.next_frame()? {
            return Ok(client::decode_response::<R>(version, frame.freeze())?.1);
        }
        match stream.read(&mut bytes).map_err(io_error("read a reply"))? {
            0 => return Err(KafkaError::Closed),
            len => replies.push(&bytes[..len]),
        }
    }
}

pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, KafkaError> {
    let stream = TcpStream::connect(address).map_err(io_error("connect to the broker"))?;
    stream.set_nodelay(true).map_err(io_error("set TCP_NODELAY"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io_error("set a time-out"))?;
    Ok(stream)
}

fn resolve(address: &str) -> Result<SocketAddr, KafkaError> {
    let failed = |source| KafkaError::Address { address: address.to_owned(), source };
    let mut found = address.to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(io::Error::other("it has no address")))
}

pub(crate) fn io_error(action: &'static str) -> impl Fn(io::Error) -> KafkaError {
    move |source| KafkaError::Io { action, source }
}

/// Ids wrap around; replies are expected to do the same.
fn correlation_id(index: u64) -> i32 {
    let low = u32::try_from(index & u64::from(u32::MAX)).unwrap_or_default();
    low.cast_signed()
}

pub(crate) fn topic_name(topic: &str) -> m::TopicName {
    m::TopicName(StrBytes::from_string(topic.to_owned()))
}

pub(crate) fn error_name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |code| code.to_string())
}

#[expect(clippy::disallowed_methods, reason = "records carry the time of the wall")]
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn workload() -> Workload {
        let topic = "t".to_owned();
        Workload { topic, partitions: 2, record_size: 1024, batch_records: 3, acks: -1 }
    }

    #[test]
    fn requests_take_turns_and_decode_as_the_broker_does() {
        let mut requests = Requests::new(&workload(), &[0, 7]).unwrap();
        for (index, partition) in [(0, 0), (1, 7), (2, 0)] {
            let frame = BytesMut::from(&requests.get(index)[4..]);
            let (header, request) = kafka_wire::decode(frame).unwrap();
            assert_eq!(u64::try_from(header.correlation_id).unwrap(), index);
            let kafka_wire::Request::Produce(produce) = request else { panic!("not Produce") };
            assert_eq!((produce.acks, &*produce.topics[0].name), (-1, "t"));
            assert_eq!(produce.topics[0].partitions[0].index, partition);
            assert!(produce.topics[0].partitions[0].records.as_ref().unwrap().len() > 3 * 1024);
        }
    }

    #[test]
    fn the_canned_reply_reads_as_success_and_order_is_checked() {
        let mut replies = Replies::default();
        let reply = canned_reply("t");
        replies.push(&reply[..5]);
        assert!(replies.next_reply().unwrap().is_none());
        replies.push(&reply[5..]);
        assert_eq!(replies.next_reply().unwrap(), Some(true));
        replies.push(&reply);
        assert!(matches!(
            replies.next_reply(),
            Err(KafkaError::Order { expected: 1, found: Some(0) })
        ));
    }

    /// What `prepare` makes of a broker that answers CreateTopics with these codes, one after the
    /// other, and leads both partitions. All of them are to be asked for.
    fn prepared(codes: &[ErrorCode]) -> Result<Vec<i32>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let broker = scope.spawn(|| answer(&listener, codes));
            let leaders = prepare(&address.to_string(), &workload());
            assert_eq!(broker.join().unwrap(), codes.len());
            leaders.map(|led| led[&address].clone()).map_err(|error| error.to_string())
        })
    }

    /// Until the client closes. Returns how many of the codes it has sent.
    fn answer(listener: &TcpListener, codes: &[ErrorCode]) -> usize {
        let address = listener.local_addr().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (mut replies, mut sent) = (Replies::default(), 0);
        let mut bytes = [0; 4096];
        loop {
            while let Some(frame) = replies.reader.next_frame().unwrap() {
                let (header, request) = kafka_wire::decode(frame).unwrap();
                let response = if let kafka_wire::Request::CreateTopics(_) = request {
                    sent += 1;
                    created(codes[sent - 1])
                } else {
                    both_led_at(address)
                };
                let pieces = kafka_wire::encode(&header, response).unwrap();
                stream.write_all(&pieces.concat()).unwrap();
            }
            match stream.read(&mut bytes).unwrap() {
                0 => return sent,
                len => replies.push(&bytes[..len]),
            }
        }
    }

    fn created(code: ErrorCode) -> Response {
        let topic = m::create_topics_response::CreatableTopicResult::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str("so it is")));
        Response::CreateTopics(m::CreateTopicsResponse::default().with_topics(vec![topic]))
    }

    fn both_led_at(address: SocketAddr) -> Response {
        let broker = m::metadata_response::MetadataResponseBroker::default()
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(i32::from(address.port()));
        let partition = |index| {
            m::metadata_response::MetadataResponsePartition::default().with_partition_index(index)
        };
        let topic = m::metadata_response::MetadataResponseTopic::default()
            .with_name(Some(topic_name("t")))
            .with_partitions(vec![partition(0), partition(1)]);
        let reply = m::MetadataResponse::default();
        Response::Metadata(reply.with_brokers(vec![broker]).with_topics(vec![topic]))
    }

    #[test]
    fn a_topic_is_created_once_there_is_a_controller() {
        use ErrorCode::{InvalidPartitions, None, NotController, TopicAlreadyExists};
        assert_eq!(prepared(&[NotController, NotController, None]), Ok(vec![0, 1]));
        assert_eq!(prepared(&[TopicAlreadyExists]), Ok(vec![0, 1]));
        let refused = prepared(&[NotController, InvalidPartitions]);
        assert_eq!(
            refused.unwrap_err(),
            "topic t cannot be created: INVALID_PARTITIONS(37) so it is"
        );
    }

    #[test]
    fn correlation_ids_wrap_around_as_replies_do() {
        assert_eq!(correlation_id(u64::from(u32::MAX) + 1), 0);
        assert_eq!(correlation_id(1 << 31), i32::MIN);
    }
}
