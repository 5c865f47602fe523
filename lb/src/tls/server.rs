//! The settings of the TLS listener and the files they come from, followed as they change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use tokio_util::sync::CancellationToken;

use super::identity::{Identity, IdentityFiles, TlsError, certificates};
use super::store::{ACME_ALPN, Store};
use super::upstream::{Named, Upstreams};
use crate::chain;
use crate::metrics::TlsStats;

/// How often the files' times and sizes are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A certificate that expires sooner is warned of when it is taken.
const EXPIRES_SOON: Duration = Duration::from_hours(7 * 24);

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Minimum {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What a client is answered that asks for a name without a certificate, or for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownName {
    /// The first certificate.
    #[default]
    First,
    /// A refused handshake.
    Refuse,
}

/// How clients show who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM: those who may have signed a client's certificate.
    pub authorities: PathBuf,
    /// PEM: certificates that were taken back.
    pub revoked: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// The settings of the TLS listener.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The certificates, the default one first.
    pub certificates: Vec<IdentityFiles>,
    /// The oldest version that is spoken.
    pub minimum: Minimum,
    /// What may be spoken, the preferred first; the library's choice if empty.
    pub ciphers: Vec<SupportedCipherSuite>,
    /// How clients show who they are, if they must.
    pub client: Option<ClientAuth>,
    /// What clients are answered that ask for another name.
    pub unknown_name: UnknownName,
    /// Whether an ACME server may look for a challenge's certificate.
    pub acme: bool,
    /// Who may have signed endpoints' certificates, by name: PEM files.
    pub authorities: BTreeMap<String, PathBuf>,
    /// What is shown to endpoints, by name.
    pub identities: BTreeMap<String, IdentityFiles>,
}

impl Settings {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let client = self.client.iter();
        let client = client.flat_map(|client| {
            [
                Some(client.authorities.as_path()),
                client.revoked.as_deref(),
            ]
            .into_iter()
            .flatten()
        });
        let identities = self.certificates.iter().chain(self.identities.values());
        identities
            .flat_map(IdentityFiles::paths)
            .chain(self.authorities.values().map(PathBuf::as_path))
            .chain(client)
    }
}

/// Returns the cipher suite of a name as IANA has it, such as `TLS_AES_128_GCM_SHA256`.
pub fn cipher(name: &str) -> Option<SupportedCipherSuite> {
    let all = ring::ALL_CIPHER_SUITES.iter().copied();
    all.into_iter().find(|suite| iana(*suite) == name)
}

/// Returns the names of all cipher suites.
pub fn cipher_names() -> Vec<String> {
    let all = ring::ALL_CIPHER_SUITES.iter().copied();
    all.map(iana).collect()
}

fn iana(suite: SupportedCipherSuite) -> String {
    // The library tells those of TLS 1.3 from the older by their names.
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

/// Settings whose files were read.
#[derive(Debug)]
pub struct Loaded {
    settings: Settings,
    identities: Vec<Identity>,
    named: Named,
    config: Arc<ServerConfig>,
    stamps: Vec<Stamp>,
}

type Stamp = Option<(SystemTime, u64)>;

/// The TLS side of an ingress: what clients are shown, and what endpoints are.
pub struct Server {
    store: Arc<Store>,
    current: Arc<ArcSwapOption<ServerConfig>>,
    /// What is in force, and its files as they were read.
    taken: Mutex<Option<(Settings, Vec<Stamp>)>>,
    /// Kept over reloads, so that clients can resume.
    tickets: Option<Arc<dyn ProducesTickets>>,
    upstreams: Arc<Upstreams>,
    stats: TlsStats,
}

impl Server {
    /// Makes one without certificates: `current` stays empty until the first [`Server::take`].
    pub fn new(
        current: Arc<ArcSwapOption<ServerConfig>>,
        upstreams: Arc<Upstreams>,
        stats: TlsStats,
    ) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::default(),
            current,
            taken: Mutex::default(),
            // It fails only if the system has no random numbers; then nobody resumes.
            tickets: ring::Ticketer::new().ok(),
            upstreams,
            stats,
        })
    }

    /// Returns the certificates.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Reads the files of settings, and changes nothing.
    ///
    /// # Errors
    /// [`TlsError`]: the first that cannot be used.
    pub fn load(&self, settings: &Settings) -> Result<Loaded, TlsError> {
        // Before they are read: a change meanwhile is seen at the next look.
        let stamps = settings.paths().map(stamp).collect();
        let identities = settings.certificates.iter().map(Identity::load);
        Ok(Loaded {
            settings: settings.clone(),
            identities: identities.collect::<Result<_, _>>()?,
            named: Named::load(&settings.authorities, &settings.identities)?,
            config: self.config(settings)?,
            stamps,
        })
    }

    /// Puts loaded settings into force. Connections that are open stay as they are.
    pub fn take(&self, loaded: Loaded) {
        warn_of_expiry(&loaded.identities);
        let refuse = loaded.settings.unknown_name == UnknownName::Refuse;
        self.store.set_files(loaded.identities, refuse);
        self.upstreams.set(loaded.named);
        self.current.store(Some(loaded.config));
        self.stats.loads.inc();
        self.publish_expiries();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = Some((loaded.settings, loaded.stamps));
    }

    /// Reads the files again whenever they change, until `stop`. What cannot be used, such as a new
    /// certificate whose key is still the old one, is told once, and nothing changes.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut refused: Option<Vec<Stamp>> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            let this = Arc::clone(&self);
            let before = refused.clone();
            let look = move || this.look(before.as_deref());
            match tokio::task::spawn_blocking(look).await {
                Ok(now) => refused = now,
                Err(error) => tracing::error!(%error, "certificates not looked at"),
            }
        }
    }

    /// Takes the files if they have changed; returns how they are if they cannot be used.
    fn look(&self, refused: Option<&[Stamp]>) -> Option<Vec<Stamp>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (settings, stamps) = taken.clone()?;
        drop(taken);
        let now: Vec<Stamp> = settings.paths().map(stamp).collect();
        if now == stamps {
            return None;
        }
        if refused == Some(&now) {
            return Some(now);
        }
        match self.load(&settings) {
            Ok(loaded) => {
                self.take(loaded);
                tracing::info!("certificates taken");
                None
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "certificates not taken, the old ones stay");
                self.stats.refusals.inc();
                Some(now)
            }
        }
    }

    /// Shows certificates that an ACME server issued.
    pub fn set_issued(&self, issued: Vec<Identity>) {
        warn_of_expiry(&issued);
        self.store.set_issued(issued);
        self.stats.loads.inc();
        self.publish_expiries();
    }

    fn publish_expiries(&self) {
        let identities = self.store.identities();
        self.stats.expiries(identities.into_iter().map(|identity| {
            let name = identity.names.into_iter().next().unwrap_or_default();
            (name, identity.not_after)
        }));
    }

    fn config(&self, settings: &Settings) -> Result<Arc<ServerConfig>, TlsError> {
        /// Both versions, the newer first.
        const VERSIONS: [&SupportedProtocolVersion; 2] =
            [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut provider = ring::default_provider();
        if !settings.ciphers.is_empty() {
            provider.cipher_suites.clone_from(&settings.ciphers);
        }
        let provider = Arc::new(provider);
        let versions = match settings.minimum {
            Minimum::Tls12 => &VERSIONS[..],
            Minimum::Tls13 => &VERSIONS[..1],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?;
        let builder = match &settings.client {
            None => builder.with_no_client_auth(),
            Some(client) => builder.with_client_cert_verifier(verifier(client, provider)?),
        };
        let store: Arc<Store> = Arc::clone(&self.store);
        let mut config = builder.with_cert_resolver(store);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if settings.acme {
            config.alpn_protocols.push(ACME_ALPN.to_vec());
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A ticket says that its client was verified: by these settings, not by those before.
        let tickets = match &settings.client {
            None => self.tickets.clone(),
            Some(_) => ring::Ticketer::new().ok(),
        };
        if let Some(tickets) = tickets {
            config.ticketer = tickets;
        }
        Ok(Arc::new(config))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

fn verifier(
    client: &ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&client.authorities)? {
        roots.add(certificate)?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &client.revoked {
        let pem = |source| TlsError::Pem {
            path: path.clone(),
            source,
        };
        let lists = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(pem)?;
        builder = builder
            .with_crls(lists)
            // A list of one authority says nothing of another's certificates.
            .allow_unknown_revocation_status();
    }
    if !client.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|source| TlsError::Verifier {
        path: client.authorities.clone(),
        source,
    })
}

fn warn_of_expiry(identities: &[Identity]) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let soon = i64::try_from(EXPIRES_SOON.as_secs()).unwrap_or(i64::MAX);
    for identity in identities {
        let names = identity.names.join(", ");
        let left = identity.not_after.saturating_sub(now);
        if left <= 0 {
            tracing::error!(names, "certificate has expired");
        } else if left < soon {
            tracing::warn!(names, hours_left = left / 3600, "certificate expires soon");
        }
    }
}

/// Time and size of a file: a change of either is a change.
fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}
