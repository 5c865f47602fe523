//! TLS: what is trusted, and what hangs.

use std::sync::Arc;
use std::time::Duration;

use ballast_loadgen::ErrorClass;
use ballast_loadgen::plan::{Plan, Protocol, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::rig::{drivers, errors, none, only, plan, run, server, with_body};

/// A server's certificate, and the file with which clients trust it.
pub struct Identity {
    pub acceptor: TlsAcceptor,
    pub file: NamedTempFile,
}

impl Identity {
    pub fn new(name: &str, alpn: &[&str]) -> Self {
        Self::of(
            CertificateParams::new([name.to_owned()]).expect("is a name"),
            alpn,
        )
    }

    fn of(params: CertificateParams, alpn: &[&str]) -> Self {
        let key = KeyPair::generate().expect("generates");
        let certificate = params.self_signed(&key).expect("signs");
        let file = NamedTempFile::new().expect("is created");
        std::fs::write(&file, certificate.pem()).expect("is written");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("are known")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("fit");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            file,
        }
    }

    /// Has `plan` ask for `name` and trust this certificate.
    pub fn trusted(&self, mut plan: Plan, name: &str) -> Plan {
        plan.targets[0].tls = Some(Tls {
            server_name: name.to_owned(),
            ca_file: Some(self.file.path().to_owned()),
            insecure: false,
        });
        plan
    }

    /// Starts an echo server behind it.
    fn echo(&self) -> std::net::SocketAddr {
        let acceptor = self.acceptor.clone();
        server(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let (mut read, mut write) = tokio::io::split(stream);
                    tokio::io::copy(&mut read, &mut write).await.ok();
                }
            }
        })
    }
}

#[test]
fn trusted_server_echoes_over_tls_and_its_handshakes_are_timed() {
    let identity = Identity::new("echo.test", &[]);
    let address = identity.echo();
    for driver in drivers() {
        for body in ["hello", &"x".repeat(100_000)] {
            let plan = identity.trusted(plan(&format!("tcp://{address}"), 200.0, 40), "echo.test");
            let recorder = run(driver, &with_body(plan, body));
            assert_eq!(errors(&recorder), none(), "{driver:?}");
            let (_, tls) = recorder.histograms()[4];
            assert_eq!((recorder.counts().opened, tls.len()), (4, 4));
        }
    }
}

#[test]
fn other_name_expired_and_unknown_certificates_are_tls_errors() {
    let mut old = CertificateParams::new(["echo.test".to_owned()]).expect("is a name");
    old.not_before = date_time_ymd(2001, 1, 1);
    old.not_after = date_time_ymd(2002, 1, 1);
    let expired = Identity::of(old, &[]);
    let other = Identity::new("other.test", &[]);
    let fine = Identity::new("echo.test", &[]);
    for driver in drivers() {
        for (identity, trusts) in [(&expired, &expired), (&other, &other), (&fine, &other)] {
            let address = identity.echo();
            let url = format!("tcp://{address}");
            let mut plan = trusts.trusted(plan(&url, 200.0, 20), "echo.test");
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), only(ErrorClass::Tls, 20), "{driver:?}");
            assert_eq!(recorder.counts().opened, 0);
            let why = recorder.reasons().get(&ErrorClass::Tls);
            assert!(
                why.is_some_and(|why| why.contains("certificate")),
                "{why:?}"
            );
            if let Some(tls) = &mut plan.targets[0].tls {
                tls.insecure = true;
            }
            assert_eq!(errors(&run(driver, &plan)), none(), "insecure takes any");
        }
    }
}

#[test]
fn certificate_that_is_its_own_authority_is_trusted_when_it_is_given_for_its_name_only() {
    let authority = |from, to| {
        let mut params = CertificateParams::new(["echo.test".to_owned()]).expect("is a name");
        // As `openssl req -x509` makes them.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        Identity::of(params, &[])
    };
    let (own, other) = (authority(2020, 2096), authority(2020, 2096));
    let expired = authority(2001, 2002);
    for driver in drivers() {
        for (identity, given, name, outcome) in [
            (&own, &own, "echo.test", none()),
            (&own, &own, "other.test", only(ErrorClass::Tls, 20)),
            (&own, &other, "echo.test", only(ErrorClass::Tls, 20)),
            (&expired, &expired, "echo.test", only(ErrorClass::Tls, 20)),
        ] {
            let url = format!("tcp://{}", identity.echo());
            let plan = given.trusted(plan(&url, 200.0, 20), name);
            assert_eq!(errors(&run(driver, &plan)), outcome, "{driver:?} {name}");
        }
    }
}

#[test]
fn handshake_that_hangs_times_out_and_one_that_breaks_is_a_tls_error() {
    async fn hang(mut stream: TcpStream) {
        while stream
            .read(&mut [0; 1024])
            .await
            .is_ok_and(|count| count > 0)
        {}
    }
    async fn garbage(mut stream: TcpStream) {
        stream.read_u8().await.ok();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .ok();
        hang(stream).await;
    }
    async fn close(mut stream: TcpStream) {
        // All of the hello, or the close would be a reset.
        stream.read_buf(&mut Vec::with_capacity(4096)).await.ok();
    }
    let identity = Identity::new("echo.test", &[]);
    for driver in drivers() {
        for (address, class) in [
            (server(hang), ErrorClass::Timeout),
            (server(garbage), ErrorClass::Tls),
            (server(close), ErrorClass::Tls),
        ] {
            for protocol in [
                Protocol::TcpEcho,
                Protocol::TcpConnect,
                Protocol::WebSocket,
                Protocol::Http2 { streams: 2 },
            ] {
                let url = format!("tcp://{address}");
                let mut plan = identity.trusted(plan(&url, 200.0, 20), "echo.test");
                plan.protocol = protocol;
                if class == ErrorClass::Timeout {
                    plan.timeouts.connect = Duration::from_millis(50);
                }
                let recorder = run(driver, &plan);
                assert_eq!(
                    errors(&recorder),
                    only(class, 20),
                    "{driver:?} {protocol:?}"
                );
            }
        }
    }
}
