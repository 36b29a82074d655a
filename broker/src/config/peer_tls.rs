//! The files with which brokers prove to each other who they are.

use std::path::PathBuf;

/// Names of the three settings.
pub(crate) const CERTIFICATE: &str = "peer-tls-certificate";
pub(crate) const KEY: &str = "peer-tls-key";
pub(crate) const CA: &str = "peer-tls-ca";

/// PEM files for TLS between brokers, read once at start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerTlsFiles {
    /// This broker's certificate, and what leads from it to the CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that sign the certificates of this cluster.
    pub ca: PathBuf,
}

impl PeerTlsFiles {
    /// All three of them, or none.
    pub(super) fn of(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Result<Option<Self>, String> {
        match (certificate, key, ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(ca)) => Ok(Some(Self { certificate, key, ca })),
            (certificate, key, ca) => {
                let given = [(CERTIFICATE, certificate), (KEY, key), (CA, ca)];
                let missing = given.iter().find(|(_, path)| path.is_none());
                let missing = missing.map_or(CA, |(name, _)| *name);
                Err(format!(
                    "`{missing}` is missing: TLS between brokers needs \
                     `{CERTIFICATE}`, `{KEY}` and `{CA}`, or none of them"
                ))
            }
        }
    }

    /// As printed at start.
    pub(super) fn lines(&self) -> [String; 3] {
        [(CERTIFICATE, &self.certificate), (KEY, &self.key), (CA, &self.ca)]
            .map(|(name, path)| format!("{name}={}", path.display()))
    }
}
