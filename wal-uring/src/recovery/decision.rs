//! What recovery makes of the bytes at the position where the next frame should be: a pure function
//! over all that can be seen there. Normative: `docs/formats/wal-recovery.md`; the test below goes
//! through every combination.
//!
//! The one rule behind the table: the log may only end at a position that no surviving evidence
//! shows to have been durable. "Durable LSN past it", read anywhere in a checked header of this
//! ring (later frames in the look-ahead window, segment headers, the superblock's hint), is such
//! evidence; with it, a bad frame is corruption, without it, a torn tail.
//!
//! Why writer epochs must not decrease along the log, as a crash:
//!
//! 1. Epoch 1 has frames A, B, C in flight. The power fails: A and C are on the device, B is torn.
//! 2. Recovery reads A, ends the log at B, and the shard lives on without B and C: it may vote,
//!    and tell its peers where its log ends. C was never durable, nothing acknowledged is lost.
//! 3. Epoch 2 writes B', which happens to be as long as B, and the power fails again.
//! 4. Recovery reads A, B', and then stands where C still is: right checksum, right LSN, right
//!    ring. Accepting it would bring back a record that the shard has denied. C's epoch is 1, less
//!    than B' has: the log ends here.

/// What the 64 bytes at the position are, and what they claim, each claim against what is expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeaderState {
    /// The first block is all zeros: never written since format.
    Blank,
    /// No frame header: checksum, magic, kind or shape is wrong.
    Unreadable,
    /// A sound header of a format version that this build does not read.
    OtherVersion,
    /// A sound header.
    Sound { ring: RingState, position: PositionState, epoch: EpochState, payload: PayloadState },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RingState {
    Ours,
    /// Left over from before the device was formatted.
    Other,
}

/// The LSN in the header against the LSN at which it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PositionState {
    Here,
    /// Written at this place in an earlier lap of the ring.
    EarlierLap,
    /// Of a later position: misdirected by the device, or the trim point went backwards.
    Later,
}

/// The writer epoch in the header against the last accepted frame and the superblock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EpochState {
    /// Less than the frame before it has: the worked crash above.
    Older,
    /// Between the frame before it and the superblock.
    InOrder,
    /// Above the superblock's, which is made durable before an epoch's first frame is written: the
    /// superblock in hand is not the one that this frame was written under.
    Unknown,
}

/// The payload as the header describes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PayloadState {
    Good,
    BadChecksum,
    /// Larger than any frame may be, or sticks out of its segment: no writer of ours made this.
    DoesNotFit,
}

/// Whether anything found proves that the log was durable past this position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    None,
    Durable,
}

/// What recovery does at a position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The frame is part of the log.
    Accept,
    /// The log ends here.
    End(Tail),
    /// The log went on from here once, durably: refuse to open.
    Corrupt(Damage),
}

/// How a log ends.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Tail {
    /// Nothing was ever written here.
    Blank,
    /// What is here belongs to an earlier lap of the ring.
    EarlierLap,
    /// What is here was written before the last format.
    OtherRing,
    /// What is here was cut off by an earlier recovery.
    OlderEpoch,
    /// A write that was under way: its header is not whole.
    TornHeader,
    /// A write that was under way: its payload is not whole.
    TornPayload,
    /// A frame of a later position, itself not yet durable, misdirected to here.
    Misplaced,
}

impl Tail {
    /// Whether a write was cut off, as opposed to none having begun.
    pub const fn is_torn(self) -> bool {
        matches!(self, Self::TornHeader | Self::TornPayload | Self::Misplaced)
    }
}

/// What is wrong at a position that was durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    #[error("a durable frame is gone: the blocks are empty")]
    Blank,
    #[error("the header of a durable frame is damaged")]
    Header,
    #[error("the payload of a durable frame is damaged")]
    Payload,
    #[error("a durable frame is missing: its place holds a frame of an earlier lap (a lost write)")]
    EarlierLap,
    #[error("a durable frame is missing: its place holds a frame of another ring (a lost write)")]
    OtherRing,
    #[error("a durable frame is missing: its place holds a discarded frame (a lost write)")]
    OlderEpoch,
    #[error("a durable frame was overwritten by one of a later position (a misdirected write)")]
    Misplaced,
    #[error("a frame of a newer writer than the superblock knows: the superblock is out of date")]
    UnknownEpoch,
    #[error("a frame of a format version that this build does not read")]
    OtherVersion,
    #[error("the records of a frame with a good checksum make no sense")]
    Records,
}

/// The table. Every input has exactly one row.
pub const fn decide(header: HeaderState, proof: Proof) -> Verdict {
    use {
        EpochState as E, HeaderState as H, PayloadState as P, PositionState as L, RingState as R,
    };
    let (tail, damage) = match header {
        H::Blank => (Tail::Blank, Damage::Blank),
        H::Unreadable => (Tail::TornHeader, Damage::Header),
        // A newer build wrote here: whatever it is, it is not ours to cut off.
        H::OtherVersion => return Verdict::Corrupt(Damage::OtherVersion),
        H::Sound { ring: R::Other, .. } => (Tail::OtherRing, Damage::OtherRing),
        H::Sound { ring: R::Ours, epoch: E::Unknown, .. } => {
            return Verdict::Corrupt(Damage::UnknownEpoch);
        }
        H::Sound { ring: R::Ours, position: L::EarlierLap, .. } => {
            (Tail::EarlierLap, Damage::EarlierLap)
        }
        H::Sound { ring: R::Ours, position: L::Later, .. } => (Tail::Misplaced, Damage::Misplaced),
        H::Sound { ring: R::Ours, position: L::Here, epoch: E::Older, .. } => {
            (Tail::OlderEpoch, Damage::OlderEpoch)
        }
        H::Sound { ring: R::Ours, position: L::Here, epoch: E::InOrder, payload } => {
            match payload {
                P::Good => return Verdict::Accept,
                P::BadChecksum => (Tail::TornPayload, Damage::Payload),
                // No crash makes a sound header with an impossible size: never cut off as torn.
                P::DoesNotFit => return Verdict::Corrupt(Damage::Header),
            }
        }
    };
    match proof {
        Proof::None => Verdict::End(tail),
        Proof::Durable => Verdict::Corrupt(damage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_header() -> Vec<HeaderState> {
        let mut all = vec![HeaderState::Blank, HeaderState::Unreadable, HeaderState::OtherVersion];
        for ring in [RingState::Ours, RingState::Other] {
            for position in [PositionState::Here, PositionState::EarlierLap, PositionState::Later] {
                for epoch in [EpochState::Older, EpochState::InOrder, EpochState::Unknown] {
                    let payloads =
                        [PayloadState::Good, PayloadState::BadChecksum, PayloadState::DoesNotFit];
                    for payload in payloads {
                        all.push(HeaderState::Sound { ring, position, epoch, payload });
                    }
                }
            }
        }
        all
    }

    /// The table of `docs/formats/wal-recovery.md`, first match wins; kept as text so that the
    /// document and the function are two statements of the same thing, compared for all inputs.
    fn documented(header: HeaderState, proof: Proof) -> String {
        let document = include_str!("../../../docs/formats/wal-recovery.md");
        let words = match header {
            HeaderState::Blank => {
                ["blank".to_owned(), "-".into(), "-".into(), "-".into(), "-".into()]
            }
            HeaderState::Unreadable => ["unreadable", "-", "-", "-", "-"].map(str::to_owned),
            HeaderState::OtherVersion => ["other version", "-", "-", "-", "-"].map(str::to_owned),
            HeaderState::Sound { ring, position, epoch, payload } => [
                "sound".to_owned(),
                format!("{ring:?}"),
                format!("{position:?}"),
                format!("{epoch:?}"),
                format!("{payload:?}"),
            ],
        };
        let row = document
            .lines()
            .skip_while(|line| !line.starts_with("| header | ring |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
            .find(|cells| {
                cells.iter().zip(&words).all(|(cell, word)| *cell == "any" || cell == word)
            })
            .expect("every input has a row");
        row[if proof == Proof::None { 5 } else { 6 }].to_owned()
    }

    #[test]
    fn every_combination_is_decided_as_documented() {
        let headers = every_header();
        assert_eq!(headers.len(), 3 + 2 * 3 * 3 * 3);
        for header in headers {
            for proof in [Proof::None, Proof::Durable] {
                let decided = format!("{:?}", decide(header, proof));
                assert_eq!(decided, documented(header, proof), "{header:?} {proof:?}");
            }
        }
    }

    #[test]
    fn nothing_proven_durable_is_ever_cut_off() {
        for header in every_header() {
            let verdict = decide(header, Proof::Durable);
            assert!(!matches!(verdict, Verdict::End(_)), "{header:?}");
        }
    }

    #[test]
    fn only_a_frame_that_is_right_in_every_respect_is_accepted() {
        let accepted: Vec<_> = every_header()
            .into_iter()
            .filter(|&header| decide(header, Proof::None) == Verdict::Accept)
            .collect();
        let right = HeaderState::Sound {
            ring: RingState::Ours,
            position: PositionState::Here,
            epoch: EpochState::InOrder,
            payload: PayloadState::Good,
        };
        assert_eq!(accepted, [right]);
    }
}
