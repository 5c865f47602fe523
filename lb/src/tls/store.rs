//! Which certificate is shown to whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::Identity;

/// The protocol in which an ACME server asks for a challenge's certificate (RFC 8737).
pub const ACME_ALPN: &[u8] = b"acme-tls/1";

/// The certificates of an ingress: an immutable index that handshakes read, swapped whole.
///
/// A client that asks for a name gets the certificate of that name, then one for its wildcard, then
/// the first of all, unless unknown names are refused. Of several for one name, the first whose
/// kind of key the client can verify is shown.
#[derive(Debug, Default)]
pub struct Store {
    index: ArcSwap<Index>,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    /// From files.
    files: Vec<Identity>,
    /// From an ACME server.
    issued: Vec<Identity>,
    /// What proves to an ACME server that a name is ours.
    challenges: HashMap<String, Arc<CertifiedKey>>,
    refuse_unknown: bool,
}

#[derive(Debug, Default)]
struct Index {
    /// By host name, or by what follows the star of a wildcard: `.example.test`.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For every other name.
    others: Vec<Arc<CertifiedKey>>,
    challenges: HashMap<String, Arc<CertifiedKey>>,
}

impl Store {
    /// Replaces the certificates that come from files.
    pub fn set_files(&self, files: Vec<Identity>, refuse_unknown: bool) {
        self.change(|parts| {
            parts.files = files;
            parts.refuse_unknown = refuse_unknown;
        });
    }

    /// Replaces the certificates that an ACME server issued. A file's certificate for the same name
    /// is shown before them.
    pub fn set_issued(&self, issued: Vec<Identity>) {
        self.change(|parts| parts.issued = issued);
    }

    /// Shows this certificate to an ACME server that asks for the name.
    pub fn set_challenge(&self, name: &str, certified: Arc<CertifiedKey>) {
        self.change(|parts| {
            parts.challenges.insert(name.to_owned(), certified);
        });
    }

    /// Forgets a challenge.
    pub fn remove_challenge(&self, name: &str) {
        self.change(|parts| {
            parts.challenges.remove(name);
        });
    }

    /// Returns the certificates that are shown.
    pub fn identities(&self) -> Vec<Identity> {
        let parts = self.parts();
        parts.files.iter().chain(&parts.issued).cloned().collect()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Each change leaves them whole.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts();
        change(&mut parts);
        self.index.store(Arc::new(Index::new(&parts)));
    }

    fn choose(&self, name: Option<&str>, usable: impl Fn(&CertifiedKey) -> bool) -> Chosen {
        let index = self.index.load();
        let named = name.and_then(|name| index.named(name));
        let first = |among: &[Arc<CertifiedKey>]| among.iter().find(|key| usable(key)).cloned();
        named.and_then(first).or_else(|| first(&index.others))
    }
}

type Chosen = Option<Arc<CertifiedKey>>;

impl Index {
    fn new(parts: &Parts) -> Self {
        let mut index = Self {
            challenges: parts.challenges.clone(),
            ..Self::default()
        };
        for identity in parts.files.iter().chain(&parts.issued) {
            for name in &identity.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                let same = index.by_name.entry(name.to_owned()).or_default();
                same.push(Arc::clone(&identity.certified));
            }
            if !parts.refuse_unknown {
                index.others.push(Arc::clone(&identity.certified));
            }
        }
        index
    }

    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        // A wildcard stands for one whole label (RFC 6125, section 6.4.3).
        let wildcard = || self.by_name.get(&name[name.find('.')?..]);
        let found = self.by_name.get(name).or_else(wildcard);
        found.map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if hello
            .alpn()
            .is_some_and(|mut asked| asked.any(|p| p == ACME_ALPN))
        {
            return self.index.load().challenges.get(name?).cloned();
        }
        let schemes = hello.signature_schemes();
        self.choose(name, |key| key.key.choose_scheme(schemes).is_some())
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn identity(names: &[&str]) -> Identity {
        let key = rcgen::KeyPair::generate().expect("makes a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names are valid");
        let certificate = params.self_signed(&key).expect("signs");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("is a key");
        let chain = vec![certificate.der().clone()];
        Identity::from_parts("test".as_ref(), chain, key).expect("fits")
    }

    fn shown<'a>(store: &Store, name: Option<&str>, all: &'a [Identity]) -> Option<&'a Identity> {
        let key = store.choose(name, |_| true)?;
        all.iter().find(|one| Arc::ptr_eq(&one.certified, &key))
    }

    #[test]
    fn exact_name_wins_over_wildcard_and_wildcard_over_first() {
        let all = [
            identity(&["first.test"]),
            identity(&["*.example.test"]),
            identity(&["www.example.test", "Other.test"]),
        ];
        let store = Store::default();
        store.set_files(all.to_vec(), false);
        for (asked, expected) in [
            (Some("www.example.test"), "www.example.test"),
            (Some("api.example.test"), "*.example.test"),
            (Some("other.test"), "www.example.test"),
            // Neither two labels nor none are what the star stands for.
            (Some("a.b.example.test"), "first.test"),
            (Some("example.test"), "first.test"),
            (Some("unknown"), "first.test"),
            (None, "first.test"),
        ] {
            let shown = shown(&store, asked, &all).map(|one| one.names[0].as_str());
            assert_eq!(shown, Some(expected), "{asked:?}");
        }
        store.set_files(all.to_vec(), true);
        assert!(shown(&store, Some("unknown"), &all).is_none());
        assert!(shown(&store, None, &all).is_none());
        assert!(shown(&store, Some("first.test"), &all).is_some());
    }

    #[test]
    fn of_several_for_a_name_the_first_that_the_client_can_verify_is_shown() {
        let all = [identity(&["a.test"]), identity(&["a.test"])];
        let store = Store::default();
        store.set_files(all.to_vec(), false);
        let not_first = |key: &CertifiedKey| !std::ptr::eq(key, &raw const *all[0].certified);
        let key = store.choose(Some("a.test"), not_first).expect("the other");
        assert!(Arc::ptr_eq(&key, &all[1].certified));
    }

    #[test]
    fn certificate_of_a_file_is_shown_before_an_issued_one() {
        let (file, issued) = (identity(&["a.test"]), identity(&["a.test", "b.test"]));
        let store = Store::default();
        store.set_issued(vec![issued.clone()]);
        store.set_files(vec![file.clone()], false);
        let all = [file, issued];
        let a = shown(&store, Some("a.test"), &all).expect("shown");
        assert!(Arc::ptr_eq(&a.certified, &all[0].certified));
        let b = shown(&store, Some("b.test"), &all).expect("shown");
        assert!(Arc::ptr_eq(&b.certified, &all[1].certified));
    }
}
