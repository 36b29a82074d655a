//! What rustls says of a connection, in an operator's words.

use rustls::{AlertDescription, CertificateError, Error};

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// Why TLS failed, in one line. A certificate is that of the other side, or the one in question.
pub(super) fn reason(error: &Error) -> String {
    let line = match error {
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority in `peer-tls-ca` signed the certificate".to_owned()
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / SECONDS_A_DAY;
            format!("the certificate expired {days} days ago")
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => {
            let names = if presented.is_empty() { "nobody".into() } else { presented.join(", ") };
            format!("the certificate is of {names} and not of {}", expected.to_str())
        }
        error => error.to_string(),
    };
    // Names in a certificate are up to who made it.
    line.replace(char::is_control, " ")
}

/// The other side has found fault with this one.
fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => {
            "it knows no authority that signed this broker's \
                                        certificate"
        }
        AlertDescription::BadCertificate => "for it, this broker's certificate is another's",
        AlertDescription::CertificateExpired => "this broker's certificate has expired",
        AlertDescription::UnsupportedCertificate => {
            "this broker's certificate is not for this \
                                                     side of a connection"
        }
        other => return format!("it refuses this broker with the alert {other:?}"),
    }
    .to_owned()
}
