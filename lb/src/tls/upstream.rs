//! TLS towards endpoints: whom to believe and what to show, by the names that services use.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ballast_model::UpstreamTlsSpec;
use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identity::{Identity, IdentityFiles, TlsError, certificates, private_key};

/// Why an endpoint cannot be spoken to as its service wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTlsName {
    /// The configuration has no such authority.
    #[error("`tls.authorities` has no `{0}`")]
    Authority(String),
    /// The configuration has no such identity.
    #[error("`tls.identities` has no `{0}`")]
    Identity(String),
    /// The system trusts nobody, or that cannot be read.
    #[error("the system has no authorities")]
    NoSystem,
}

/// What a connection to an endpoint is made with.
#[derive(Clone)]
pub struct Material {
    /// Those who may have signed the endpoint's certificate.
    pub authority: Arc<CaType>,
    /// What is shown to the endpoint.
    pub identity: Option<Arc<CertKey>>,
    /// Which load it belongs to: connections made with another are not used.
    pub version: u64,
}

/// The authorities and identities of the configuration.
#[derive(Default)]
pub struct Upstreams {
    named: ArcSwap<Named>,
    system: OnceLock<Option<Arc<CaType>>>,
    nobody: OnceLock<Option<Arc<CaType>>>,
}

/// Authorities and identities that were read.
#[derive(Default)]
pub struct Named {
    authorities: HashMap<String, Arc<CaType>>,
    identities: HashMap<String, Arc<CertKey>>,
    version: u64,
}

impl Named {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`]: the first that cannot be used.
    pub fn load(
        authorities: &BTreeMap<String, PathBuf>,
        identities: &BTreeMap<String, IdentityFiles>,
    ) -> Result<Self, TlsError> {
        let mut named = Self::default();
        for (name, path) in authorities {
            let authority = wrapped(certificates(path)?.iter().map(|der| der.to_vec()));
            let Some(authority) = authority else {
                return Err(TlsError::Content {
                    path: path.clone(),
                    reason: "holds what is no certificate".to_owned(),
                });
            };
            named.authorities.insert(name.clone(), authority);
        }
        for (name, files) in identities {
            // Proved as one of the listener's would be; pingora then takes the parts.
            Identity::load(files)?;
            let chain = certificates(&files.certificate)?;
            let chain = chain.iter().map(|der| der.to_vec()).collect();
            let key = private_key(&files.key)?.secret_der().to_vec();
            let pair = Arc::new(CertKey::new(chain, key));
            named.identities.insert(name.clone(), pair);
        }
        Ok(named)
    }
}

impl Upstreams {
    /// Puts loaded ones into force, for connections made from now on.
    pub fn set(&self, mut named: Named) {
        named.version = self.named.load().version + 1;
        self.named.store(Arc::new(named));
    }

    /// Returns what connections of this kind are made with.
    ///
    /// # Errors
    /// [`UnknownTlsName`] for a name that the configuration does not have.
    pub fn material(&self, spec: &UpstreamTlsSpec) -> Result<Material, UnknownTlsName> {
        let named = self.named.load();
        let authority = match &spec.authority {
            _ if spec.insecure => self.nobody().ok_or(UnknownTlsName::NoSystem)?,
            Some(name) => {
                let found = named.authorities.get(name).cloned();
                found.ok_or_else(|| UnknownTlsName::Authority(name.clone()))?
            }
            None => self.system().ok_or(UnknownTlsName::NoSystem)?,
        };
        let identity = match &spec.identity {
            None => None,
            Some(name) => {
                let found = named.identities.get(name).cloned();
                Some(found.ok_or_else(|| UnknownTlsName::Identity(name.clone()))?)
            }
        };
        Ok(Material {
            authority,
            identity,
            version: named.version,
        })
    }

    /// An authority that has signed nothing: pingora's verifier is not made without one, even where
    /// it is then told to take everything.
    fn nobody(&self) -> Option<Arc<CaType>> {
        let make = || {
            let key = rcgen::KeyPair::generate().ok()?;
            let made = rcgen::CertificateParams::default().self_signed(&key).ok()?;
            wrapped(std::iter::once(made.der().to_vec()))
        };
        self.nobody.get_or_init(make).clone()
    }

    /// Those that the system trusts: read when they are asked for first, as most never do.
    fn system(&self) -> Option<Arc<CaType>> {
        let read = || {
            let found = rustls_native_certs::load_native_certs();
            wrapped(found.certs.iter().map(|der| der.to_vec())).filter(|all| !all.is_empty())
        };
        self.system.get_or_init(read).clone()
    }
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Named")
            .field("authorities", &self.authorities.keys())
            .field("identities", &self.identities.keys())
            .finish_non_exhaustive()
    }
}

/// Wraps certificates as pingora takes them, which panics on what does not parse.
fn wrapped(certificates: impl Iterator<Item = Vec<u8>>) -> Option<Arc<CaType>> {
    let all: Option<Vec<WrappedX509>> = certificates
        .map(|der| {
            X509Certificate::from_der(&der).ok()?;
            Some(WrappedX509::new(der, parse_x509))
        })
        .collect();
    Some(Arc::from(all?))
}
