//! What a broker proves itself with to the others, and knows them by: a certificate, its key and
//! the authorities that sign for the cluster, read from PEM files once, at start.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::NodeId;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig};
use uuid::Uuid;

use super::reason::reason;
use crate::config::{PeerTlsFiles, peer_tls};

/// No PEM file of ours is nearly as large; a device, say, has no end.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Checked credentials of one broker, shared by its shards.
#[derive(Debug)]
pub(crate) struct Credentials {
    cluster_id: Uuid,
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

/// Why the files do not do, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("`{setting}`: cannot read {path}: {source}")]
    Read { setting: &'static str, path: PathBuf, source: io::Error },
    #[error("`{setting}`: {path} is not PEM: {reason}")]
    Pem { setting: &'static str, path: PathBuf, reason: String },
    #[error("`{setting}`: {path} has no {what}, in PEM and without a password")]
    Absent { setting: &'static str, path: PathBuf, what: &'static str },
    #[error("`{setting}`: what is in {path} is not understood: {reason}")]
    Damaged { setting: &'static str, path: PathBuf, reason: String },
    #[error(
        "`peer-tls-key`: {key} is not the key of the certificate in {certificate}: the two are \
         made together"
    )]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error(
        "`peer-tls-certificate`: {path} does not do for this broker: {reason}. It has to name \
         {name}, to be valid now, for servers and clients, and signed by an authority in \
         `peer-tls-ca`"
    )]
    Unfit { path: PathBuf, name: String, reason: String },
}

impl Credentials {
    /// Reads the files of a node of a cluster.
    ///
    /// # Errors
    ///
    /// A file cannot be read or has not in it what it should, or other brokers would not take the
    /// certificate for this node's.
    pub(crate) fn load(
        files: &PeerTlsFiles,
        cluster_id: Uuid,
        node: NodeId,
    ) -> Result<Self, CredentialsError> {
        let chain = certificates(peer_tls::CERTIFICATE, &files.certificate)?;
        let (verifiers, credentials) = Self::read(files, cluster_id, &chain)?;
        let unfit = |reason: String| CredentialsError::Unfit {
            path: files.certificate.clone(),
            name: name_text(cluster_id, node),
            reason,
        };
        let name = name_of(cluster_id, node).map_err(|error| unfit(error.to_string()))?;
        verifiers.check(&chain, &name).map_err(|error| unfit(reason(&error)))?;
        Ok(credentials)
    }

    /// With a certificate that is this node's or not.
    fn read(
        files: &PeerTlsFiles,
        cluster_id: Uuid,
        chain: &[CertificateDer<'static>],
    ) -> Result<(Verifiers, Self), CredentialsError> {
        let key = private_key(&files.key)?;
        let roots = Arc::new(roots(&files.ca)?);
        let configured = configure(roots, chain, key);
        let (verifiers, client, server) = configured.map_err(|error| match error {
            Error::InconsistentKeys(_) => CredentialsError::Mismatch {
                key: files.key.clone(),
                certificate: files.certificate.clone(),
            },
            error => damaged(peer_tls::CERTIFICATE, &files.certificate, &error),
        })?;
        let (client, server) = (client.into(), server.into());
        Ok((verifiers, Self { cluster_id, client, server }))
    }

    /// What the certificate of a node of this cluster names.
    pub(super) fn name_of(&self, node: NodeId) -> Result<ServerName<'static>, InvalidDnsNameError> {
        name_of(self.cluster_id, node)
    }
}

/// How certificates of other brokers are judged.
struct Verifiers {
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

impl Verifiers {
    /// Would other brokers take this certificate, on either side?
    fn check(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Error> {
        let Some((own, between)) = chain.split_first() else {
            return Err(Error::NoCertificatesPresented);
        };
        let now = UnixTime::now();
        self.server.verify_server_cert(own, between, name, &[], now)?;
        self.client.verify_client_cert(own, between, now)?;
        Ok(())
    }
}

/// TLS 1.3 on both sides, with a certificate on each. No session is resumed: every connection
/// proves anew who is at its ends.
fn configure(
    roots: Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<(Verifiers, ClientConfig, ServerConfig), Error> {
    let provider: Arc<CryptoProvider> = ring::default_provider().into();
    let refused = |error: rustls::client::VerifierBuilderError| Error::General(error.to_string());
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let server = server.build().map_err(refused)?;
    let client = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let client = client.build().map_err(refused)?;
    let mut as_client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(server.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
    as_client.resumption = Resumption::disabled();
    as_client.enable_sni = false;
    let mut as_server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(client.clone())
        .with_single_cert(chain.to_vec(), key)?;
    as_server.session_storage = Arc::new(NoServerSessionStorage {});
    as_server.send_tls13_tickets = 0;
    Ok((Verifiers { server, client }, as_client, as_server))
}

fn name_text(cluster_id: Uuid, node: NodeId) -> String {
    format!("node-{node}.{cluster_id}.tailrace")
}

/// The cluster is part of the name, so that one authority may sign for several.
fn name_of(cluster_id: Uuid, node: NodeId) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(name_text(cluster_id, node))
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let pem = read(setting, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| not_pem(setting, path, &error))?;
    if found.is_empty() {
        let path = path.to_owned();
        return Err(CredentialsError::Absent { setting, path, what: "certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let setting = peer_tls::KEY;
    let key =
        PrivateKeyDer::from_pem_slice(&read(setting, path)?).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                CredentialsError::Absent { setting, path: path.to_owned(), what: "private key" }
            }
            error => not_pem(setting, path, &error),
        })?;
    // Found out here, an error is of this file and no other.
    let understood = ring::default_provider().key_provider.load_private_key(key.clone_key());
    understood.map_err(|error| damaged(setting, path, &error))?;
    Ok(key)
}

fn roots(path: &Path) -> Result<RootCertStore, CredentialsError> {
    let setting = peer_tls::CA;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        roots.add(certificate).map_err(|error| damaged(setting, path, &error))?;
    }
    Ok(roots)
}

fn not_pem(setting: &'static str, path: &Path, error: &pem::Error) -> CredentialsError {
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section's first line is cut off".to_owned(),
        error => error.to_string(),
    };
    CredentialsError::Pem { setting, path: path.to_owned(), reason }
}

fn damaged(setting: &'static str, path: &Path, error: &Error) -> CredentialsError {
    CredentialsError::Damaged { setting, path: path.to_owned(), reason: error.to_string() }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|it| it.take(FILE_SIZE_MAX).read_to_end(&mut bytes));
    read.map_err(|source| CredentialsError::Read { setting, path: path.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
impl Credentials {
    /// Of a broker that shows whatever it has.
    pub(in crate::peer) fn unchecked(files: &PeerTlsFiles, cluster_id: Uuid) -> Self {
        let chain = certificates(peer_tls::CERTIFICATE, &files.certificate).expect("a certificate");
        Self::read(files, cluster_id, &chain).expect("credentials").1
    }
}

#[cfg(test)]
pub(in crate::peer) mod tests;
