use std::fs;

use super::*;

const CLUSTER: Uuid = Uuid::from_u128(1);
const TWO: NodeId = NodeId::new(2);

/// Files of `testdata/tls`.
pub(in crate::peer) fn files(certificate: &str, key: &str, ca: &str) -> PeerTlsFiles {
    let path = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tls").join(name);
    PeerTlsFiles { certificate: path(certificate), key: path(key), ca: path(ca) }
}

fn load(certificate: &str, key: &str, ca: &str) -> Result<Credentials, CredentialsError> {
    Credentials::load(&files(certificate, key, ca), CLUSTER, TWO)
}

/// The one line that says why something is refused.
fn refused(result: Result<Credentials, CredentialsError>) -> String {
    let line = result.expect_err("refused").to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn a_certificate_of_this_node_does() {
    load("node-2.pem", "node-2.key", "ca.pem").expect("all is right");
    // Two authorities, as when one replaces the other.
    let both =
        std::env::temp_dir().join(format!("tailrace-two-authorities-{}", std::process::id()));
    let read = |name| fs::read_to_string(files(name, "", "").certificate).expect("a file");
    fs::write(&both, read("other-ca.pem") + &read("ca.pem")).expect("written");
    for certificate in ["node-2.pem", "stranger-2.pem"] {
        let files = PeerTlsFiles { ca: both.clone(), ..files(certificate, "node-2.key", "") };
        Credentials::load(&files, CLUSTER, TWO).expect(certificate);
    }
    fs::remove_file(&both).expect("removed");
}

#[test]
fn what_other_brokers_would_not_take_is_refused_at_start() {
    for (certificate, ca, said) in [
        ("node-2.pem", "other-ca.pem", "no authority in `peer-tls-ca`"),
        ("stranger-2.pem", "ca.pem", "no authority in `peer-tls-ca`"),
        ("expired-2.pem", "ca.pem", "expired"),
        ("server-only-2.pem", "ca.pem", "client authentication"),
    ] {
        let line = refused(load(certificate, "node-2.key", ca));
        for part in [said, certificate, "`peer-tls-certificate`", "node-2.00000000-0000-"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    let line = refused(load("node-1.pem", "node-1.key", "ca.pem"));
    assert!(line.contains("the certificate is of DnsName(\"node-1.00000000-"), "{line}");
    let own = files("node-2.pem", "node-2.key", "ca.pem");
    let line = refused(Credentials::load(&own, Uuid::from_u128(2), TWO));
    assert!(line.contains("and not of node-2.00000000-"), "of another cluster: {line}");
}

#[test]
fn files_that_do_not_hold_what_they_should_are_named() {
    for (certificate, key, ca, said) in [
        ("none.pem", "node-2.key", "ca.pem", "`peer-tls-certificate`: cannot read"),
        ("node-2.pem", "none.key", "ca.pem", "`peer-tls-key`: cannot read"),
        ("node-2.pem", "node-2.key", ".", "`peer-tls-ca`: cannot read"),
        ("node-2.key", "node-2.key", "ca.pem", "`peer-tls-certificate`: "),
        ("node-2.pem", "node-2.pem", "ca.pem", "has no private key"),
        ("node-2.pem", "node-2.key", "make.sh", "has no certificate"),
        ("node-2.pem", "node-1.key", "ca.pem", "not the key of the certificate"),
    ] {
        let line = refused(load(certificate, key, ca));
        assert!(line.contains(said), "{said} in {line}");
    }
}

#[test]
fn damaged_files_are_named() {
    let path = std::env::temp_dir().join(format!("tailrace-damaged-pem-{}", std::process::id()));
    let own = files("node-2.pem", "node-2.key", "ca.pem");
    let certificate = fs::read_to_string(&own.certificate).expect("a file");
    let key = fs::read_to_string(&own.key).expect("a file");
    let change = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from));
        text.replacen(from, to, 1)
    };
    for (setting, text, said) in [
        (peer_tls::CERTIFICATE, certificate[..300].to_owned(), "has no end"),
        (peer_tls::CERTIFICATE, change(&certificate, "MII", "M?I"), "base64"),
        (peer_tls::CERTIFICATE, change(&certificate, "MII", "MIM"), "not understood"),
        (peer_tls::CA, change(&certificate, "MII", "MIM"), "not understood"),
        (peer_tls::KEY, change(&key, "MIG", "MIM"), "not understood"),
        (peer_tls::KEY, key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "without a password"),
        (peer_tls::KEY, String::new(), "has no private key"),
    ] {
        fs::write(&path, text).expect("written");
        let mut files = own.clone();
        match setting {
            peer_tls::CERTIFICATE => files.certificate.clone_from(&path),
            peer_tls::KEY => files.key.clone_from(&path),
            _ => files.ca.clone_from(&path),
        }
        let line = refused(Credentials::load(&files, CLUSTER, TWO));
        assert!(line.contains(said) && line.contains(setting), "{setting}, {said} in {line}");
        assert!(line.contains("tailrace-damaged-pem"), "{line}");
    }
    fs::remove_file(&path).expect("removed");
}
