//! An address as people write it: `127.0.0.1:9092`, `broker.example:9092`, `[::1]:9092`.

use std::fmt;
use std::str::FromStr;

use model::NodeId;

/// A host name or literal address, and a port. Nothing is resolved here.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// Without brackets, also for IPv6.
    pub host: String,
    /// 0 asks the system for a free port.
    pub port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HostPortError {
    #[error("`{text}` has no port: expected HOST:PORT, such as 127.0.0.1:9092")]
    NoPort { text: String },
    #[error("`{text}` has no host: expected HOST:PORT, such as 127.0.0.1:9092")]
    NoHost { text: String },
    #[error("`{text}`: the port must be a number from 0 to 65535")]
    Port { text: String },
    #[error("`{text}`: write an IPv6 address in brackets, such as [::1]:9092")]
    Brackets { text: String },
    #[error("`{text}`: a host name has only letters, digits, `.`, `-` and `_`")]
    Host { text: String },
}

/// A broker and where its first shard listens to the others, as people write it:
/// `3@broker.example:10092`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeAddress {
    /// From 0 to 65535.
    pub node: NodeId,
    pub address: HostPort,
}

/// Why a text is not a broker's address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NodeAddressError {
    #[error("`{text}` is not ID@HOST:PORT, with an ID from 0 to 65535")]
    Form { text: String },
    #[error(transparent)]
    Address(#[from] HostPortError),
}

impl HostPort {
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The same host with the port `step` further on: shard listeners use consecutive ports. None
    /// past port 65535.
    pub fn port_plus(&self, step: u16) -> Option<Self> {
        Some(Self { host: self.host.clone(), port: self.port.checked_add(step)? })
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let owned = || text.to_owned();
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| HostPortError::NoPort { text: owned() })?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if host.is_empty() {
            return Err(HostPortError::NoHost { text: owned() });
        }
        if bracketed.is_none() && host.contains(':') {
            return Err(HostPortError::Brackets { text: owned() });
        }
        if bracketed.is_none() && !host.bytes().all(is_host_byte) {
            return Err(HostPortError::Host { text: owned() });
        }
        if bracketed.is_some() && host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(HostPortError::Host { text: owned() });
        }
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HostPortError::Port { text: owned() });
        }
        let port = port.parse().map_err(|_| HostPortError::Port { text: owned() })?;
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<Self, NodeAddressError> {
        let parts = text.split_once('@').and_then(|(id, address)| {
            // `parse` alone would take a sign.
            let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
            Some((id.parse::<u16>().ok().filter(|_| is_number)?, address))
        });
        let (id, address) =
            parts.ok_or_else(|| NodeAddressError::Form { text: text.to_owned() })?;
        Ok(Self { node: NodeId::new(i32::from(id)), address: address.parse()? })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.address)
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_addresses_and_prints_them_back() {
        for (text, host, port) in [
            ("127.0.0.1:9092", "127.0.0.1", 9092),
            ("broker-1.example_x:0", "broker-1.example_x", 0),
            ("[::1]:65535", "::1", 65535),
        ] {
            let parsed: HostPort = text.parse().expect(text);
            assert_eq!(parsed, HostPort::new(host, port));
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("localhost", HostPortError::NoPort { text: "localhost".into() }),
            (":9092", HostPortError::NoHost { text: ":9092".into() }),
            ("[]:9092", HostPortError::NoHost { text: "[]:9092".into() }),
            ("::1:9092", HostPortError::Brackets { text: "::1:9092".into() }),
            ("[x]:9092", HostPortError::Host { text: "[x]:9092".into() }),
            ("a b:9092", HostPortError::Host { text: "a b:9092".into() }),
            ("a:65536", HostPortError::Port { text: "a:65536".into() }),
            ("a:", HostPortError::Port { text: "a:".into() }),
            ("a:+1", HostPortError::Port { text: "a:+1".into() }),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(expected));
        }
    }

    #[test]
    fn a_brokers_address_has_its_number() {
        for text in ["0@127.0.0.1:10092", "65535@[::1]:1"] {
            let parsed: NodeAddress = text.parse().expect(text);
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["127.0.0.1:10092", "@h:1", "+1@h:1", "65536@h:1", "-1@h:1", "x@h:1"] {
            let error = text.parse::<NodeAddress>().expect_err(text);
            assert_eq!(error, NodeAddressError::Form { text: text.into() });
        }
        let error = "1@h".parse::<NodeAddress>().expect_err("no port");
        assert_eq!(error, HostPortError::NoPort { text: "h".into() }.into());
    }

    #[test]
    fn shard_ports_stop_at_the_last_port() {
        let base = HostPort::new("h", 65534);
        assert_eq!(base.port_plus(1), Some(HostPort::new("h", 65535)));
        assert_eq!(base.port_plus(2), None);
    }
}
