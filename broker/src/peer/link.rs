//! A broker's connection to another one, as the side that began it: dialed, greeted, used, and
//! dialed again when it is lost. It carries messages one way; the other broker has a link of its
//! own for what it sends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use uring::ConnId;

use super::hello::{GreetingError, WELCOME_SIZE, Welcome};

/// Bytes queued for a broker that does not take them; past that messages are dropped, which raft
/// takes for a loss.
const UNSENT_MAX: usize = 64 << 20;
/// How long after a failed attempt the next begins: doubled by each, from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// For a greeting, and for an answer to one.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    /// Before the next attempt after one that fails.
    retry: Duration,
    /// Bytes queued since the connection last had none.
    unsent: usize,
    /// What the operator was told of it last.
    told: Option<String>,
}

#[derive(Debug)]
enum State {
    Down {
        retry_at: Instant,
    },
    /// A thread connects; its answer comes as [`Link::connected`] or [`Link::failed`].
    Dialing,
    Greeting {
        conn: ConnId,
        answer: Vec<u8>,
        by: Instant,
    },
    Up {
        conn: ConnId,
    },
}

/// What a link makes of bytes that came back over it.
#[derive(Debug)]
pub(super) enum Heard {
    More,
    /// Messages can be sent from now on.
    Up,
    /// The connection has to be closed; the reason is for the operator.
    Broken(String),
}

impl Link {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Down { retry_at: now }, retry: RETRY.0, unsent: 0, told: None }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Down { retry_at } => Some(retry_at),
            State::Greeting { by, .. } => Some(by),
            State::Dialing | State::Up { .. } => None,
        }
    }

    /// True if it is time to connect: the caller has it done.
    pub(super) fn dial_if_due(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Down { retry_at } if retry_at <= now);
        if due {
            self.state = State::Dialing;
        }
        due
    }

    /// The connection whose greeting was not answered in time.
    pub(super) fn give_up_if_due(&mut self, now: Instant) -> Option<ConnId> {
        let State::Greeting { conn, by, .. } = self.state else { return None };
        if by > now {
            return None;
        }
        self.failed(now);
        Some(conn)
    }

    /// It is connected; the caller sends the greeting.
    pub(super) fn connected(&mut self, conn: ConnId, now: Instant) {
        self.unsent = 0;
        self.state = State::Greeting { conn, answer: Vec::new(), by: now + GREETING_TIMEOUT };
    }

    /// The attempt failed or the connection is lost.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.is_up() {
            self.retry = RETRY.0;
        }
        self.state = State::Down { retry_at: now + self.retry };
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// As [`Self::failed`], where an operator has to change something: there is no hurry.
    pub(super) fn refused(&mut self, now: Instant) {
        self.failed(now);
        self.retry = RETRY.1;
        self.state = State::Down { retry_at: now + self.retry };
    }

    /// What came of an answer to a greeting, if one is waited for.
    pub(super) fn take_answer(&mut self) -> Option<Vec<u8>> {
        let State::Greeting { answer, .. } = &mut self.state else { return None };
        Some(std::mem::take(answer))
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Greeting { conn, .. } | State::Up { conn } => Some(conn),
            State::Down { .. } | State::Dialing => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Bytes from the other broker: the answer to the greeting, and nothing else.
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant) -> Heard {
        let State::Greeting { conn, answer, .. } = &mut self.state else {
            self.failed(now);
            return Heard::Broken("it sends what was not asked for".to_owned());
        };
        answer.extend_from_slice(bytes);
        if answer.len() < WELCOME_SIZE {
            return Heard::More;
        }
        let (conn, verdict) = (*conn, Welcome::decode(answer));
        let reason = match verdict {
            Ok(Welcome::Accepted { .. }) => {
                self.state = State::Up { conn };
                self.retry = RETRY.0;
                return Heard::Up;
            }
            Ok(Welcome::Refused(refusal)) => format!("this broker is not let in: {refusal}"),
            Err(GreetingError::Decode(error)) => format!("its greeting is not understood: {error}"),
            Err(error) => error.to_string(),
        };
        self.refused(now);
        Heard::Broken(reason)
    }

    /// Room for pieces on the connection, if it is up; `None` drops them.
    pub(super) fn admit(&mut self, pieces: &[Bytes]) -> Option<ConnId> {
        let State::Up { conn } = self.state else { return None };
        let size: usize = pieces.iter().map(Bytes::len).sum();
        if self.unsent > 0 && self.unsent + size > UNSENT_MAX {
            return None;
        }
        self.unsent += size;
        Some(conn)
    }

    /// All that was queued is sent.
    pub(super) fn sent(&mut self) {
        self.unsent = 0;
    }

    /// Whether the operator has to hear that: once for each new state of things.
    pub(super) fn is_news(&mut self, line: &str) -> bool {
        let news = self.told.as_deref() != Some(line);
        if news {
            self.told = Some(line.to_owned());
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello::Refusal;
    use super::*;

    const CONN: ConnId = ConnId::simulated(1);

    #[expect(clippy::disallowed_methods, reason = "a test's clock may be any")]
    fn link() -> (Link, Instant) {
        let now = Instant::now();
        (Link::new(now), now)
    }

    fn up(link: &mut Link, now: Instant) {
        assert!(link.dial_if_due(now) && !link.dial_if_due(now));
        link.connected(CONN, now);
        let welcome = Welcome::Accepted { version: 1 }.encode();
        let (first, rest) = welcome.split_at(5);
        assert!(matches!(link.received(first, now), Heard::More));
        assert!(matches!(link.received(rest, now), Heard::Up));
    }

    #[test]
    fn attempts_become_rarer_until_one_succeeds() {
        let (mut link, mut now) = link();
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(link.dial_if_due(now));
            link.failed(now);
            let next = link.deadline().expect("a next attempt");
            waits.push(next - now);
            assert!(!link.dial_if_due(now));
            now = next;
        }
        assert_eq!(waits[..3], [20, 40, 80].map(Duration::from_millis));
        assert_eq!(waits[7], RETRY.1);
        up(&mut link, now);
        link.failed(now);
        assert_eq!(link.deadline(), Some(now + RETRY.0), "a connection that worked is missed");
    }

    #[test]
    fn a_greeting_is_answered_in_time_or_not_at_all() {
        let (mut link, now) = link();
        assert!(link.dial_if_due(now));
        link.connected(CONN, now);
        assert_eq!(link.give_up_if_due(now), None);
        assert_eq!(link.admit(&[Bytes::from_static(b"early")]), None);
        assert_eq!(link.give_up_if_due(now + GREETING_TIMEOUT), Some(CONN));
        assert_eq!(link.conn(), None);
    }

    #[test]
    fn a_refusal_is_told_once_and_is_asked_about_now_and_then() {
        let (mut link, now) = link();
        assert!(link.dial_if_due(now));
        link.connected(CONN, now);
        let refusal = Welcome::Refused(Refusal::Cluster).encode();
        let Heard::Broken(reason) = link.received(&refusal, now) else { panic!("refused") };
        assert_eq!(
            reason,
            "this broker is not let in: the two are of different clusters: correct `cluster-id`, \
             or the addresses in `nodes`"
        );
        assert!(link.is_news(&reason) && !link.is_news(&reason));
        assert_eq!(link.deadline(), Some(now + RETRY.1));
    }

    #[test]
    fn what_a_broker_does_not_take_is_bounded() {
        let (mut link, now) = link();
        up(&mut link, now);
        let piece = [Bytes::from(vec![0; UNSENT_MAX])];
        assert_eq!(link.admit(&piece), Some(CONN));
        assert_eq!(link.admit(&[Bytes::from_static(b"x")]), None);
        link.sent();
        assert_eq!(link.admit(&piece), Some(CONN));
        assert!(matches!(link.received(b"?", now), Heard::Broken(_)));
        assert!(!link.is_up());
    }
}
