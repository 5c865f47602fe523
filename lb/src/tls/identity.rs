//! A certificate with its key, read from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate, or what belongs to it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that holds no certificate or key.
    #[error("cannot read {path}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate and a key that do not fit each other, or that the library refuses.
    #[error("{path}: the certificate and the key cannot be used")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Settings that the library refuses.
    #[error("the TLS settings cannot be used")]
    Settings(#[from] rustls::Error),
    /// Authorities for clients' certificates that cannot be used.
    #[error("{path}: not usable to verify clients")]
    Verifier {
        /// The authorities' file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM: the certificate, then its issuers.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
    /// DER: the OCSP response to staple.
    pub ocsp: Option<PathBuf>,
    /// The names it is shown for; those in the certificate if empty.
    pub hosts: Vec<String>,
}

impl IdentityFiles {
    /// Returns the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let ocsp = self.ocsp.as_deref();
        [self.certificate.as_path(), &self.key]
            .into_iter()
            .chain(ocsp)
    }
}

/// A certificate with its key, ready to be shown.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What is shown.
    pub certified: Arc<CertifiedKey>,
    /// The host names it is shown for, in lower case; `*.example.test` for one more label.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    /// Since when it is valid, in seconds since 1970.
    pub not_before: i64,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] with the file's name.
    pub fn load(files: &IdentityFiles) -> Result<Self, TlsError> {
        let mut identity = Self::from_parts(
            &files.certificate,
            certificates(&files.certificate)?,
            private_key(&files.key)?,
        )?;
        if !files.hosts.is_empty() {
            identity.names = files.hosts.iter().map(|h| h.to_ascii_lowercase()).collect();
        }
        if let Some(path) = &files.ocsp {
            let response = read(path)?;
            check_ocsp(&response, &identity.certified.cert[0]).map_err(|reason| {
                TlsError::Content {
                    path: path.clone(),
                    reason: reason.to_owned(),
                }
            })?;
            let certified = Arc::make_mut(&mut identity.certified);
            certified.ocsp = Some(response);
        }
        Ok(identity)
    }

    /// Makes one of a chain and a key; `path` is for messages.
    ///
    /// # Errors
    /// [`TlsError`] if they do not fit each other.
    pub fn from_parts(
        path: &Path,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let content = |reason: String| TlsError::Content {
            path: path.to_owned(),
            reason,
        };
        let leaf = chain
            .first()
            .ok_or_else(|| content("holds no certificate".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| content(format!("not a certificate: {error}")))?;
        let names = names_of(&parsed);
        let not_after = parsed.validity().not_after.timestamp();
        let not_before = parsed.validity().not_before.timestamp();
        let certified =
            CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| {
                TlsError::Unusable {
                    path: path.to_owned(),
                    source,
                }
            })?;
        Ok(Self {
            certified: Arc::new(certified),
            names,
            not_after,
            not_before,
        })
    }
}

/// Returns the certificates of a PEM file.
///
/// # Errors
/// [`TlsError`] if there are none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(pem)?;
    if chain.is_empty() {
        return Err(TlsError::Content {
            path: path.to_owned(),
            reason: "holds no certificate".to_owned(),
        });
    }
    Ok(chain)
}

/// Returns the private key of a PEM file.
///
/// # Errors
/// [`TlsError`] if there is none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Whether a file holds a successful OCSP response about this certificate. Its signature and times
/// are the client's to judge; what is caught here is the wrong file.
fn check_ocsp(response: &[u8], certificate: &CertificateDer<'_>) -> Result<(), &'static str> {
    /// `OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED { successful (0) }, … }` (RFC 6960).
    const SUCCESSFUL: [u8; 3] = [0x0a, 0x01, 0x00];
    let body = sequence(response).ok_or("not an OCSP response in DER")?;
    if !body.starts_with(&SUCCESSFUL) {
        return Err("the OCSP response is not a successful one");
    }
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| "the certificate does not parse")?;
    let serial = parsed.raw_serial();
    let found = body.windows(serial.len()).any(|window| window == serial);
    if found {
        Ok(())
    } else {
        Err("the OCSP response is about another certificate")
    }
}

/// Returns the content of a DER sequence that is the whole of `der`.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    if tag != 0x30 {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 3 || rest.len() < count {
            return None;
        }
        let (length, rest) = rest.split_at(count);
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (length, rest)
    };
    (rest.len() == length).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ocsp_response_of_another_certificate_or_a_failed_one_is_refused() {
        let key = rcgen::KeyPair::generate().expect("makes a key");
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("valid");
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x12, 0x34, 0x56, 0x78]));
        let certificate = params.self_signed(&key).expect("signs");
        let der = certificate.der();
        // Not a real response: what is looked at is its frame, its status and the serial number.
        let good = [
            0x30, 0x09, 0x0a, 0x01, 0x00, 0x02, 0x04, 0x12, 0x34, 0x56, 0x78,
        ];
        assert_eq!(check_ocsp(&good, der), Ok(()));
        let mut failed = good;
        failed[4] = 6;
        assert!(check_ocsp(&failed, der).is_err_and(|e| e.contains("successful")));
        let mut other = good;
        other[10] = 0x79;
        assert!(check_ocsp(&other, der).is_err_and(|e| e.contains("another")));
        assert!(check_ocsp(&good[..8], der).is_err());
        assert!(check_ocsp(b"-----BEGIN", der).is_err());
    }
}
