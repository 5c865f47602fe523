//! TLS towards clients, on real sockets.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::witness::Witness;
use common::{Backend, Ingress, Mode, free_address, service, until};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// An authority, and a folder for what it signs.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `FILE.pem` and `FILE.key`; returns the certificate.
    fn sign(&self, file: &str, names: &[&str], serial: u8) -> CertificateDer<'static> {
        let (certificate, key) = self.signed(names, serial);
        replace(
            &self.path(&format!("{file}.pem")),
            certificate.pem().as_bytes(),
        );
        replace(
            &self.path(&format!("{file}.key")),
            key.serialize_pem().as_bytes(),
        );
        certificate.der().clone()
    }

    fn signed(&self, names: &[&str], serial: u8) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x12, 0x34, 0x56, serial]));
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn files(&self, file: &str) -> String {
        let (certificate, key) = (
            self.path(&format!("{file}.pem")),
            self.path(&format!("{file}.key")),
        );
        format!(
            "certificate: \"{}\", key: \"{}\"",
            certificate.display(),
            key.display()
        )
    }

    fn client(
        &self,
    ) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}

fn replace(path: &Path, content: &[u8]) {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, content).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// Starts an ingress whose `tls` section is this.
async fn start(tls: &str, backend: &Backend) -> (Ingress, SocketAddr) {
    let https = free_address();
    let rest = format!("tls: {{ {tls} }}\n{}", service(&[backend]));
    let ingress = Ingress::start_with(&format!(", https: \"{https}\""), &rest).await;
    (ingress, https)
}

async fn connect(
    config: rustls::ClientConfig,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = name.to_owned().try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

/// One request; an error if the connection was refused, which TLS 1.3 says only then.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: example.test\r\n\r\n")
        .await?;
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..count]);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_gets_its_certificate_and_unknown_ones_the_first_or_none() {
    let authority = Authority::new();
    let a = authority.sign("a", &["a.test"], 1);
    let b = authority.sign("b", &["b.test", "*.b.test"], 2);
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let several = format!(
        "{}, certificates: [{{ {} }}]",
        authority.files("a"),
        authority.files("b")
    );
    let (_ingress, https) = start(&several, &backend).await;
    for (name, certificate) in [("a.test", &a), ("b.test", &b), ("x.b.test", &b)] {
        let client = authority.client().with_no_client_auth();
        let mut stream = connect(client, https, name).await.unwrap();
        assert_eq!(&shown(&stream), certificate, "{name}");
        assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    }
    let client = authority.client().with_no_client_auth();
    let error = connect(client, https, "c.test").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let (_ingress, https) = start(&format!("{several}, strict: true"), &backend).await;
    let client = authority.client().with_no_client_auth();
    let error = connect(client, https, "c.test").await.unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_certificate_is_shown_to_new_connections_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let old = authority.sign("a", &["a.test"], 1);
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let (ingress, https) = start(&authority.files("a"), &backend).await;
    let client = || authority.client().with_no_client_auth();
    let mut kept = connect(client(), https, "a.test").await.unwrap();
    assert_eq!(shown(&kept), old);
    // The key of another certificate: refused, and the old pair stays.
    let key = authority.path("a.key");
    let before = std::fs::read(&key).unwrap();
    let (_, wrong) = authority.signed(&["a.test"], 9);
    replace(&key, wrong.serialize_pem().as_bytes());
    until("the broken pair was looked at", || async {
        ingress
            .admin("/metrics")
            .await
            .contains("certificate_refusals_total 1")
    })
    .await;
    let mut stream = connect(client(), https, "a.test").await.unwrap();
    assert_eq!(shown(&stream), old);
    assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    replace(&key, &before);
    let new = authority.sign("a", &["a.test"], 2);
    until("the new certificate is shown", || async {
        shown(&connect(client(), https, "a.test").await.unwrap()) == new
    })
    .await;
    // A connection that was open goes on with what it was begun with.
    assert_eq!(ask(&mut kept).await.unwrap(), "HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_must_show_a_certificate_of_the_right_authority_that_was_not_taken_back() {
    let authority = Authority::new();
    authority.sign("a", &["a.test"], 1);
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let revoked = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2120, 1, 1),
        crl_number: rcgen::SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from_slice(&[0x12, 0x34, 0x56, 7]),
            revocation_time: rcgen::date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = revoked.signed_by(&authority.issuer).unwrap();
    std::fs::write(authority.path("crl.pem"), list.pem().unwrap()).unwrap();
    let client = format!(
        "client: {{ ca: \"{}\", crl: \"{}\"",
        authority.path("ca.pem").display(),
        authority.path("crl.pem").display()
    );
    let files = authority.files("a");
    let (_ingress, required) = start(&format!("{files}, {client} }}"), &backend).await;
    let (_other, optional) =
        start(&format!("{files}, {client}, optional: true }}"), &backend).await;
    let stranger = Authority::new();
    let identity = |by: &Authority, serial: u8| {
        let (certificate, key) = by.signed(&["someone"], serial);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        authority
            .client()
            .with_client_auth_cert(chain, key)
            .unwrap()
    };
    let outcome = async |config: rustls::ClientConfig, address: SocketAddr| {
        let mut stream = connect(config, address, "a.test").await?;
        ask(&mut stream).await
    };
    let nobody = || authority.client().with_no_client_auth();
    let ok = "HTTP/1.1 200 OK";
    for address in [required, optional] {
        assert_eq!(outcome(identity(&authority, 3), address).await.unwrap(), ok);
        assert!(outcome(identity(&stranger, 3), address).await.is_err());
        assert!(
            outcome(identity(&authority, 7), address).await.is_err(),
            "revoked"
        );
    }
    assert!(outcome(nobody(), required).await.is_err());
    assert_eq!(outcome(nobody(), optional).await.unwrap(), ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oldest_version_ciphers_and_staple_are_as_configured() {
    let authority = Authority::new();
    authority.sign("a", &["a.test"], 0x78);
    // What is told to the client is its own to judge: a response with the right frame and serial.
    let response = [
        0x30, 0x09, 0x0a, 0x01, 0x00, 0x02, 0x04, 0x12, 0x34, 0x56, 0x78,
    ];
    std::fs::write(authority.path("a.ocsp"), response).unwrap();
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let (_ingress, https) = start(
        &format!(
            "{}, ocsp: \"{}\", minimum: \"1.3\", ciphers: [TLS_CHACHA20_POLY1305_SHA256]",
            authority.files("a"),
            authority.path("a.ocsp").display()
        ),
        &backend,
    )
    .await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut config = authority.client().with_no_client_auth();
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Witness(Arc::clone(&seen))));
    let stream = connect(config, https, "a.test").await.unwrap();
    assert_eq!(*seen.lock().unwrap(), response);
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    assert_eq!(
        format!("{:?}", suite.suite()),
        "TLS13_CHACHA20_POLY1305_SHA256"
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let error = connect(old, https, "a.test").await.unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
}
