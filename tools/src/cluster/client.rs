//! One connection to a broker: a request is sent, its reply awaited.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use kafka_wire::api_versions::ApiVersionsRequest;
use kafka_wire::client::{self, ClientRequest};
use kafka_wire::messages as m;
use kafka_wire::{ApiKey, ErrorCode, FrameLimits, FrameReader, StrBytes};

use super::{ClusterError, Refusal};
use crate::host_port::HostPort;

const CLIENT_ID: &str = "tailrace-cluster";
/// The metadata of a million partitions.
const REPLY_SIZE_MAX: usize = 256 << 20;
/// The first Metadata version that tells of replicas that are away.
const METADATA_VERSION_MIN: i16 = 5;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// More than what a broker gets for a change.
const REPLY_PATIENCE: Duration = Duration::from_secs(40);

/// While the metadata has no leader, brokers ask to be asked again.
const RETRIES: u32 = 50;
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct Client {
    address: HostPort,
    stream: TcpStream,
    replies: FrameReader,
    /// What the broker serves: API key, lowest and highest version.
    served: Vec<(i16, i16, i16)>,
    last_id: i32,
}

/// A reply that says with one code whether something was done.
pub(super) trait Verdict {
    fn verdict(&self) -> (i16, Option<&StrBytes>);
}

macro_rules! verdicts {
    ($($reply:ty)*) => {$(
        impl Verdict for $reply {
            fn verdict(&self) -> (i16, Option<&StrBytes>) {
                (self.error_code, self.error_message.as_ref())
            }
        }
    )*};
}

verdicts! { m::AddRaftVoterResponse m::RemoveRaftVoterResponse m::UnregisterBrokerResponse }

impl Client {
    /// Connects, and asks what the broker serves.
    pub(super) fn connect(address: &HostPort) -> Result<Self, ClusterError> {
        let failed = |source| ClusterError::Unreachable { address: address.clone(), source };
        let limits = FrameLimits { produce_max: REPLY_SIZE_MAX, other_max: REPLY_SIZE_MAX };
        let mut client = Self {
            address: address.clone(),
            stream: open(address).map_err(failed)?,
            replies: FrameReader::new(limits),
            served: Vec::new(),
            last_id: 0,
        };
        // In the version that every broker knows.
        let reply = client.exchange(0, &ApiVersionsRequest::default())?;
        let served = reply.api_keys.iter().map(|it| (it.api_key, it.min_version, it.max_version));
        client.served = served.collect();
        Ok(client)
    }

    /// The cluster with all of its topics.
    pub(super) fn metadata(&mut self) -> Result<m::MetadataResponse, ClusterError> {
        if self.version(ApiKey::Metadata)? < METADATA_VERSION_MIN {
            return Err(self.unserved(ApiKey::Metadata));
        }
        self.call(&m::MetadataRequest::default().with_topics(None))
    }

    /// Asks for a change. One that no leader was there to take is asked for again.
    pub(super) fn change<R>(&mut self, request: &R) -> Result<Result<(), Refusal>, ClusterError>
    where
        R: ClientRequest,
        R::Response: Verdict,
    {
        let mut refused = Ok(());
        for _ in 0..RETRIES {
            let reply = self.call(request)?;
            let (code, message) = reply.verdict();
            if code == ErrorCode::None.code() {
                return Ok(Ok(()));
            }
            let message = message.map(|text| text.to_string()).unwrap_or_default();
            let refusal = Refusal { code, message };
            let may_try_again = refusal.is(ErrorCode::NotController);
            refused = Err(refusal);
            if !may_try_again {
                break;
            }
            sleep(RETRY_INTERVAL);
        }
        Ok(refused)
    }

    /// Sends a request in the newest version that both sides know, and reads its reply.
    pub(super) fn call<R: ClientRequest>(
        &mut self,
        request: &R,
    ) -> Result<R::Response, ClusterError> {
        let version = self.version(R::API_KEY)?;
        self.exchange(version, request)
    }

    fn version(&self, api_key: ApiKey) -> Result<i16, ClusterError> {
        let ours = api_key.api();
        let theirs = self.served.iter().find(|(key, ..)| *key == api_key.code());
        let common = theirs.map(|(_, min, max)| (ours.min.max(*min), ours.max.min(*max)));
        let common = common.filter(|(min, max)| min <= max);
        common.map(|(_, newest)| newest).ok_or_else(|| self.unserved(api_key))
    }

    fn exchange<R: ClientRequest>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClusterError> {
        let address = || self.address.clone();
        let undecodable = |source| ClusterError::Undecodable { address: address(), source };
        let silent = |source| ClusterError::Silent { address: address(), source };
        self.last_id = self.last_id.wrapping_add(1);
        let frame = client::encode_request(version, self.last_id, CLIENT_ID, request)
            .map_err(undecodable)?;
        self.stream.write_all(&frame).map_err(silent)?;
        let mut bytes = [0; 16 << 10];
        loop {
            let framed = self.replies.next_frame();
            let framed =
                framed.map_err(|source| ClusterError::Unframed { address: address(), source })?;
            if let Some(frame) = framed {
                let (id, reply) =
                    client::decode_response::<R>(version, frame.freeze()).map_err(undecodable)?;
                let is_ours = id == self.last_id;
                return if is_ours { Ok(reply) } else { Err(self.out_of_order()) };
            }
            match self.stream.read(&mut bytes).map_err(silent)? {
                0 => return Err(ClusterError::Closed { address: address() }),
                length => self.replies.push(&bytes[..length]),
            }
        }
    }

    fn out_of_order(&self) -> ClusterError {
        ClusterError::OutOfOrder { address: self.address.clone() }
    }

    fn unserved(&self, api_key: ApiKey) -> ClusterError {
        ClusterError::Unserved { address: self.address.clone(), api_key }
    }
}

/// Kafka's name of a code and its number.
pub(super) fn code_name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |code| code.to_string())
}

/// Blocks this thread.
#[expect(clippy::disallowed_methods, reason = "nothing else happens on this thread meanwhile")]
pub(super) fn sleep(duration: Duration) {
    thread::sleep(duration);
}

fn open(address: &HostPort) -> io::Result<TcpStream> {
    let mut last = io::Error::other("it has no address");
    for at in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&at, CONNECT_PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(REPLY_PATIENCE))?;
                stream.set_write_timeout(Some(REPLY_PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
