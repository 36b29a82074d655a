//! How two brokers meet: the one that connects says who it is and whom it wants, the other says
//! whether it is that. Normative: `docs/formats/peer.md`.

use model::{NodeId, ShardId};
use uuid::Uuid;

use crate::codec::{DecodeError, Reader, Writer};

const HELLO_MAGIC: [u8; 4] = *b"TRH1";
const WELCOME_MAGIC: [u8; 4] = *b"TRW1";
/// Of the protocol between brokers: those that this build speaks.
pub(crate) const VERSIONS: (u16, u16) = (1, 1);

pub(crate) const HELLO_SIZE: usize = 62;
pub(crate) const WELCOME_SIZE: usize = 13;
/// Among the flags of a [`Hello`].
const IS_NEW: u16 = 1;

/// The first bytes of a connection, from the side that began it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    pub(crate) cluster_id: Uuid,
    pub(crate) from: NodeId,
    /// Of its disk: 0 for its first.
    pub(crate) incarnation: u32,
    /// Nothing on that disk says that it ever took part in anything.
    pub(crate) is_new: bool,
    /// By chance: tells a process from others that say they are the same node.
    pub(crate) process: u64,
    /// What its clock says, ms since 1970.
    pub(crate) unix_ms: i64,
    pub(crate) to: NodeId,
    /// The shard that both ends are: groups are on the same one at each of their nodes.
    pub(crate) shard: ShardId,
    pub(crate) shard_count: u16,
    /// The oldest and the newest version that it speaks.
    pub(crate) versions: (u16, u16),
}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Welcome {
    Accepted { version: u16 },
    Refused(Refusal),
}

/// Why two brokers do not talk; each is for an operator to mend.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the two are of different clusters: correct `cluster-id`, or the addresses in `nodes`")]
    Cluster,
    #[error("the address is another node's: correct `nodes`")]
    Node,
    #[error(
        "the two have different numbers of cores: all brokers of a cluster need the same `cores`"
    )]
    ShardCount,
    #[error(
        "it is not one of the cluster's brokers: `tailrace cluster add` makes it one, under an id \
         that no broker ever had"
    )]
    Stranger,
    #[error(
        "the two speak no version of the protocol between brokers in common: upgrade the older \
         one, release by release"
    )]
    Version,
    #[error("both have the same node id: give each broker a `node-id` of its own")]
    SameNode,
    #[error(
        "the node's disk was replaced, this one never counts again: start the node with an empty \
         data directory and --replacement, or with the disk that replaced it"
    )]
    Replaced,
    #[error("its certificate does not name that node: correct its `peer-tls-certificate`")]
    Certificate,
    #[error(
        "another broker that runs has its node id: give each broker a `node-id` of its own, or \
         stop one"
    )]
    Running,
    #[error(
        "the cluster knows this node, and the disk is empty: bring the node's disk back, or start \
         with an empty data directory and --replacement"
    )]
    Forgotten,
    #[error(
        "a broker that has just started lets an empty disk in only when it knows whose it is; it \
         is tried again"
    )]
    Early,
}

/// Numbers on the wire; 0 is an acceptance.
const REFUSALS: [(u8, Refusal); 11] = [
    (1, Refusal::Cluster),
    (2, Refusal::Node),
    (3, Refusal::ShardCount),
    (4, Refusal::Stranger),
    (5, Refusal::Version),
    (6, Refusal::SameNode),
    (7, Refusal::Replaced),
    (8, Refusal::Certificate),
    (9, Refusal::Running),
    (10, Refusal::Forgotten),
    (11, Refusal::Early),
];

/// Why bytes are not a greeting.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error("this is no Tailrace broker")]
    Magic,
    #[error("a greeting's checksum is {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("a greeting: {0}")]
    Decode(#[from] DecodeError),
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        sealed(HELLO_MAGIC, |writer| {
            writer.uuid(self.cluster_id);
            writer.i32(self.from.get());
            writer.i32(self.to.get());
            writer.u16(self.shard.get());
            writer.u16(self.shard_count);
            writer.u16(self.versions.0);
            writer.u16(self.versions.1);
            writer.u32(self.incarnation);
            writer.u16(if self.is_new { IS_NEW } else { 0 });
            writer.u64(self.process);
            writer.i64(self.unix_ms);
        })
    }

    /// # Errors
    ///
    /// The bytes are not a whole greeting, or damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, GreetingError> {
        let mut reader = opened(HELLO_MAGIC, bytes)?;
        let hello = Self {
            cluster_id: reader.uuid("cluster id")?,
            from: NodeId::new(reader.i32("node")?),
            to: NodeId::new(reader.i32("wanted node")?),
            shard: ShardId::new(reader.u16("shard")?),
            shard_count: reader.u16("shard count")?,
            versions: (reader.u16("oldest version")?, reader.u16("newest version")?),
            incarnation: reader.u32("incarnation")?,
            // The other bits are for what a later build has to say.
            is_new: reader.u16("flags")? & IS_NEW != 0,
            process: reader.u64("process")?,
            unix_ms: reader.i64("clock")?,
        };
        reader.finish()?;
        Ok(hello)
    }
}

impl Welcome {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (verdict, version) = match self {
            Self::Accepted { version } => (0, version),
            Self::Refused(refusal) => {
                let found = REFUSALS.iter().find(|(_, known)| *known == refusal);
                (found.expect("every refusal has a number").0, 0)
            }
        };
        sealed(WELCOME_MAGIC, |writer| {
            writer.u8(verdict);
            writer.u16(version);
            writer.u16(0);
        })
    }

    /// # Errors
    ///
    /// The bytes are not a whole answer, or damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, GreetingError> {
        let mut reader = opened(WELCOME_MAGIC, bytes)?;
        let (verdict, version) = (reader.u8("verdict")?, reader.u16("version")?);
        reader.u16("reserved")?;
        reader.finish()?;
        if verdict == 0 {
            return Ok(Self::Accepted { version });
        }
        let refusal = REFUSALS.iter().find(|(number, _)| *number == verdict);
        let refusal = refusal.ok_or(DecodeError::Kind { found: verdict })?.1;
        Ok(Self::Refused(refusal))
    }
}

/// What a broker knows of one that greets it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// It is one of the cluster's.
    pub(crate) is_peer: bool,
    /// Its disk was replaced by another.
    pub(crate) is_retired: bool,
    /// Another process is heard that says it is that node.
    pub(crate) is_running: bool,
    /// With the disk that it says it has it has taken part already.
    pub(crate) has_taken_part: bool,
    /// Which disks have taken part is not known yet.
    pub(crate) is_early: bool,
}

/// What a broker has to say to a greeting, by who it is itself and whom it knows.
pub(crate) fn judge(own: &Hello, known: Known, hello: &Hello) -> Welcome {
    let version = own.versions.1.min(hello.versions.1);
    let refusal = if hello.cluster_id != own.cluster_id {
        Refusal::Cluster
    } else if version < own.versions.0.max(hello.versions.0) {
        Refusal::Version
    } else if hello.from == own.from {
        Refusal::SameNode
    } else if hello.to != own.from {
        Refusal::Node
    } else if hello.shard_count != own.shard_count || hello.shard != own.shard {
        Refusal::ShardCount
    } else if !known.is_peer {
        Refusal::Stranger
    } else if known.is_retired {
        Refusal::Replaced
    } else if known.is_running {
        Refusal::Running
    } else if known.has_taken_part && hello.is_new {
        Refusal::Forgotten
    } else if known.is_early && hello.is_new {
        Refusal::Early
    } else {
        return Welcome::Accepted { version };
    };
    Welcome::Refused(refusal)
}

/// Checksum, magic and what `fill` writes.
fn sealed(magic: [u8; 4], fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u32(0);
    magic.into_iter().for_each(|byte| writer.u8(byte));
    fill(&mut writer);
    let mut bytes = writer.finish();
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What stands after checksum and magic, both of which are right.
fn opened(magic: [u8; 4], bytes: &[u8]) -> Result<Reader<'_>, GreetingError> {
    let mut reader = Reader::new(bytes);
    let stored = reader.u32("checksum")?;
    for expected in magic {
        if reader.u8("magic")? != expected {
            return Err(GreetingError::Magic);
        }
    }
    let computed = crc32c::crc32c(&bytes[4..]);
    if stored != computed {
        return Err(GreetingError::Checksum { stored, computed });
    }
    Ok(reader)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HELLO: &[u8] = include_bytes!("../../testdata/peer-hello.v1.bin");
    const WELCOME: &[u8] = include_bytes!("../../testdata/peer-welcome.v1.bin");

    const PEER: Known = Known {
        is_peer: true,
        is_retired: false,
        is_running: false,
        has_taken_part: false,
        is_early: false,
    };

    pub(crate) fn hello(from: i32, to: i32) -> Hello {
        Hello {
            cluster_id: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            from: NodeId::new(from),
            to: NodeId::new(to),
            shard: ShardId::new(1),
            shard_count: 2,
            versions: VERSIONS,
            incarnation: 0x0a0b_0c0d,
            is_new: true,
            process: 0x1122_3344_5566_7788,
            unix_ms: 0x0102_0304_0506_0708,
        }
    }

    #[test]
    fn reads_and_writes_the_bytes_of_version_1() {
        assert_eq!(hello(3, 4).encode(), HELLO);
        assert_eq!(Hello::decode(HELLO), Ok(hello(3, 4)));
        assert_eq!(HELLO.len(), HELLO_SIZE);
        let welcome = Welcome::Refused(Refusal::SameNode);
        assert_eq!(welcome.encode(), WELCOME);
        assert_eq!(Welcome::decode(WELCOME), Ok(welcome));
        assert_eq!(WELCOME.len(), WELCOME_SIZE);
    }

    #[test]
    fn every_verdict_returns_as_it_went() {
        let refusals = REFUSALS.map(|(_, refusal)| Welcome::Refused(refusal));
        for welcome in refusals.into_iter().chain([Welcome::Accepted { version: 7 }]) {
            assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        }
    }

    #[test]
    fn every_cut_and_every_bit_flip_is_refused() {
        for length in 0..HELLO_SIZE {
            assert!(Hello::decode(&HELLO[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..HELLO_SIZE * 8 {
            let mut bytes = HELLO.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn who_is_let_in() {
        let own = hello(4, 4);
        let other = |change: &dyn Fn(&mut Hello)| {
            let mut hello = hello(3, 4);
            change(&mut hello);
            judge(&own, PEER, &hello)
        };
        let known = |known: Known| judge(&own, known, &hello(3, 4));
        let refused = Welcome::Refused;
        assert_eq!(other(&|_| {}), Welcome::Accepted { version: 1 });
        assert_eq!(known(Known::default()), refused(Refusal::Stranger));
        assert_eq!(known(Known { is_retired: true, ..PEER }), refused(Refusal::Replaced));
        assert_eq!(known(Known { is_running: true, ..PEER }), refused(Refusal::Running));
        let known_already = Known { has_taken_part: true, ..PEER };
        assert_eq!(known(known_already), refused(Refusal::Forgotten));
        let old = Hello { is_new: false, ..hello(3, 4) };
        assert_eq!(judge(&own, known_already, &old), Welcome::Accepted { version: 1 });
        let early = Known { is_early: true, ..PEER };
        assert_eq!(known(early), refused(Refusal::Early));
        assert_eq!(judge(&own, early, &old), Welcome::Accepted { version: 1 });
        assert_eq!(other(&|it| it.cluster_id = Uuid::nil()), refused(Refusal::Cluster));
        assert_eq!(other(&|it| it.versions = (2, 9)), refused(Refusal::Version));
        assert_eq!(other(&|it| it.versions = (1, 9)), Welcome::Accepted { version: 1 });
        assert_eq!(other(&|it| it.from = NodeId::new(4)), refused(Refusal::SameNode));
        assert_eq!(other(&|it| it.to = NodeId::new(5)), refused(Refusal::Node));
        assert_eq!(other(&|it| it.shard_count = 3), refused(Refusal::ShardCount));
        assert_eq!(other(&|it| it.shard = ShardId::new(0)), refused(Refusal::ShardCount));
    }
}
