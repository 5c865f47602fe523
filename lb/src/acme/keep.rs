//! What is kept, when it is due, and how long a failure waits.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::order::{Places, order};
use super::{AcmeError, AcmeSettings, Challenges};
use crate::chain;
use crate::hub::wall_clock;
use crate::tls::{Identity, Server, certificates, private_key};

/// How long the first failure of a host waits; each further one twice as long.
const FAILED_FIRST: Duration = Duration::from_secs(30);
/// The longest that a failure waits: the usual servers allow five an hour for a host.
const FAILED_MAX: Duration = Duration::from_hours(6);
/// The longest between two looks.
const LOOK: Duration = Duration::from_hours(1);
/// A moment in which a failure that is due is not yet seen to be.
const SOON: Duration = Duration::from_secs(1);

/// A host's failures in a row, and when it may be tried again.
#[derive(Debug, Clone, Copy)]
struct Failed {
    times: u32,
    /// In seconds since 1970.
    until: i64,
}

/// Keeps certificates for the hosts of the settings until `stop`: shows those that are kept, and
/// orders those that are missing or two thirds through their time.
pub async fn keep(
    settings: AcmeSettings,
    server: Arc<Server>,
    challenges: Arc<Challenges>,
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        settings,
        server,
        challenges,
        account: None,
        issued: HashMap::new(),
        failed: HashMap::new(),
    };
    keeper.load();
    loop {
        let wait = tokio::select! {
            wait = keeper.look() => wait,
            () = stop.cancelled() => return,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Keeper {
    settings: AcmeSettings,
    server: Arc<Server>,
    challenges: Arc<Challenges>,
    account: Option<Account>,
    issued: HashMap<String, Identity>,
    failed: HashMap<String, Failed>,
}

impl Keeper {
    fn path(&self, host: &str) -> PathBuf {
        self.settings.dir.join(format!("{host}.pem"))
    }

    /// Shows what is kept.
    fn load(&mut self) {
        for host in self.settings.hosts.clone() {
            let path = self.path(&host);
            if !path.exists() {
                continue;
            }
            match read(&path) {
                Ok(identity) => {
                    self.issued.insert(host, identity);
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        host,
                        error,
                        "kept certificate not usable, another is ordered"
                    );
                }
            }
        }
        self.show();
    }

    fn show(&self) {
        self.server
            .set_issued(self.issued.values().cloned().collect());
    }

    /// Orders what is due, and returns how long nothing is.
    async fn look(&mut self) -> Duration {
        for host in self.settings.hosts.clone() {
            if self.due(&host) > now() {
                continue;
            }
            match self.renew(&host).await {
                Ok(()) => {
                    self.failed.remove(&host);
                    tracing::info!(host, "certificate issued");
                }
                Err(error) => self.note_failure(&host, &error),
            }
        }
        let next = self.settings.hosts.iter().map(|host| self.due(host)).min();
        let wait = next.unwrap_or(i64::MAX).saturating_sub(now());
        Duration::from_secs(u64::try_from(wait).unwrap_or(0)).clamp(SOON, LOOK)
    }

    /// When a host's certificate is to be ordered, in seconds since 1970.
    fn due(&self, host: &str) -> i64 {
        let due = self.issued.get(host).map_or(0, |identity| {
            let whole = identity.not_after.saturating_sub(identity.not_before);
            identity.not_before.saturating_add(whole / 3 * 2)
        });
        let failed = self.failed.get(host).map_or(0, |failed| failed.until);
        due.max(failed)
    }

    fn note_failure(&mut self, host: &str, error: &AcmeError) {
        let failed = self.failed.entry(host.to_owned());
        let failed = failed.or_insert(Failed { times: 0, until: 0 });
        let wait = FAILED_FIRST.saturating_mul(1 << failed.times.min(16));
        let wait = i64::try_from(wait.min(FAILED_MAX).as_secs()).unwrap_or(i64::MAX);
        failed.times += 1;
        failed.until = now().saturating_add(wait);
        let error = chain(error);
        tracing::error!(host, error, wait_s = wait, "no certificate issued");
    }

    async fn renew(&mut self, host: &str) -> Result<(), AcmeError> {
        let account = self.account().await?;
        let places = Places {
            challenges: &self.challenges,
            store: self.server.store(),
        };
        let (key, issued) = order(&account, host, self.settings.proof, places).await?;
        let path = self.path(host);
        write(&path, format!("{key}{issued}").as_bytes())?;
        let identity = read(&path)?;
        self.issued.insert(host.to_owned(), identity);
        self.show();
        Ok(())
    }

    /// Returns the account, which is made with the first order there is.
    async fn account(&mut self) -> Result<Account, AcmeError> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let settings = &self.settings;
        let builder = || -> Result<_, AcmeError> {
            let client = Client::new(settings.authority.as_deref())?;
            Ok(Account::builder_with_http(Box::new(client)))
        };
        let path = settings.dir.join(account_file(&settings.directory));
        let account = match std::fs::read(&path) {
            Ok(kept) => {
                let credentials: AccountCredentials =
                    serde_json::from_slice(&kept).map_err(|source| AcmeError::Account {
                        path: path.clone(),
                        source,
                    })?;
                builder()?.from_credentials(credentials).await?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let external = settings.external.as_ref();
                let external =
                    external.map(|one| ExternalAccountKey::new(one.id.clone(), &one.key));
                let directory = settings.directory.clone();
                let made = builder()?.create(&new, directory, external.as_ref());
                let (account, credentials) = made.await?;
                let text =
                    serde_json::to_vec(&credentials).map_err(|source| AcmeError::Account {
                        path: path.clone(),
                        source,
                    })?;
                write(&path, &text)?;
                account
            }
            // Not made anew: one account more with the server, and the kept one lost.
            Err(source) => return Err(AcmeError::Kept { path, source }),
        };
        self.account = Some(account.clone());
        Ok(account)
    }
}

/// Accounts belong to one server each.
fn account_file(directory: &str) -> String {
    let plain = |byte: char| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            '-'
        }
    };
    let name: String = directory.chars().map(plain).collect();
    format!("account-{name}.json")
}

fn now() -> i64 {
    i64::try_from(wall_clock().0 / 1_000_000).unwrap_or(i64::MAX)
}

fn read(path: &Path) -> Result<Identity, AcmeError> {
    let (chain, key) = (certificates(path)?, private_key(path)?);
    Ok(Identity::from_parts(path, chain, key)?)
}

/// Writes a secret: whole or not at all, and for this user alone.
fn write(path: &Path, content: &[u8]) -> Result<(), AcmeError> {
    let kept = |source| AcmeError::Kept {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir).map_err(kept)?;
    }
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).map_err(kept)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(kept)
}
