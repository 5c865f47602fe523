//! Certificates from an ACME server that runs here: pebble, of the people of Let's Encrypt.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::witness::Witness;
use common::{Backend, Ingress, Mode, free_address, until};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[&str]) -> Option<Process> {
    let started = Command::new(program)
        .args(arguments)
        // Validation does not dawdle. No nonce is refused for fun: the library gives up after
        // three in a row, and that is half a minute.
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_WFE_NONCEREJECT", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(child) => Some(Process(child)),
        Err(error) => {
            println!("SKIP: {program} cannot be run ({error}); it is in Debian's package pebble");
            None
        }
    }
}

/// An ACME server that finds every host at 127.0.0.1.
struct Acme {
    directory: String,
    _processes: [Process; 2],
}

impl Acme {
    /// `http` and `https` are where it looks for proofs.
    async fn start(dir: &Path, http: SocketAddr, https: SocketAddr) -> Option<Self> {
        let (listen, management, dns) = (free_address(), free_address(), free_address());
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("acme.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("acme.key"), key.serialize_pem()).unwrap();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.join("acme.pem"),
            "privateKey": dir.join("acme.key"),
            "httpPort": http.port(),
            "tlsPort": https.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let file = dir.join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let names = free_address();
        let resolver = start(
            "pebble-challtestsrv",
            &[
                "-defaultIPv6",
                "",
                "-defaultIPv4",
                "127.0.0.1",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-dns01",
                &dns.to_string(),
                "-management",
                &names.to_string(),
            ],
        )?;
        let file = file.to_str().unwrap();
        let server = start("pebble", &["-config", file, "-dnsserver", &dns.to_string()])?;
        until("the ACME server listens", || async {
            TcpStream::connect(listen).await.is_ok() && TcpStream::connect(names).await.is_ok()
        })
        .await;
        Some(Self {
            directory: format!("https://{listen}/dir"),
            _processes: [resolver, server],
        })
    }
}

/// The certificate that is shown for a name, whoever signed it; none if none is.
async fn shown(address: SocketAddr, name: &str) -> Option<CertificateDer<'static>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Witness::default()));
    let socket = TcpStream::connect(address).await.ok()?;
    let name = name.to_owned().try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    Some(chain.first()?.clone().into_owned())
}

async fn issues(challenge: &str) {
    let dir = tempfile::tempdir().unwrap();
    let https = free_address();
    let backend = Backend::start("one", &[Mode::Answer]).await;
    let http = free_address();
    let Some(acme) = Acme::start(dir.path(), http, https).await else {
        return;
    };
    let rest = |hosts: &str| {
        format!(
            "tls:\n  strict: true\n  acme:\n    directory: \"{}\"\n    hosts: [{hosts}]\n    \
             challenge: {challenge}\n    ca: \"{at}/acme.pem\"\n    dir: \"{at}/kept\"\n    \
             terms_agreed: true\nservices:\n  web: {{ endpoints: [\"{}\"] }}\nroutes:\n  - {{ \
             service: web }}\n",
            acme.directory,
            backend.address,
            at = dir.path().display(),
        )
    };
    let listen = format!(", https: \"{https}\"");
    let ingress = Ingress::start_at(http, &listen, &rest("a.example.test, b.example.test")).await;
    until("both hosts have certificates", || async {
        let a = shown(https, "a.example.test").await;
        a.is_some() && shown(https, "b.example.test").await.is_some()
    })
    .await;
    let issued = shown(https, "a.example.test").await.unwrap();
    assert!(shown(https, "c.example.test").await.is_none());
    ingress.end().await;
    // A restart shows what is kept, and orders nothing.
    let again = Ingress::start_at(http, &listen, &rest("a.example.test")).await;
    until("the kept certificate is shown", || async {
        shown(https, "a.example.test").await.as_ref() == Some(&issued)
    })
    .await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_issued_by_a_proof_over_http_and_kept() {
    issues("http-01").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_issued_by_a_proof_in_the_handshake_and_kept() {
    issues("tls-alpn-01").await;
}
