//! How endpoints are spoken to: TLS, certificates both ways, HTTP/2, the PROXY protocol.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Client, Ingress, get};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// What an endpoint saw.
#[derive(Debug, Default)]
struct Seen {
    versions: Vec<http::Version>,
    connections: HashSet<SocketAddr>,
    prefaces: Vec<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Options {
    tls: Option<Arc<rustls::ServerConfig>>,
    http2: bool,
    /// Bytes of the PROXY header that it reads first.
    preface: usize,
}

async fn endpoint(options: Options) -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (socket, peer) = listener.accept().await.unwrap();
            let (options, seen) = (options.clone(), Arc::clone(&kept));
            tokio::spawn(async move { connection(socket, peer, options, seen).await });
        }
    });
    (address, seen)
}

async fn connection(
    mut socket: TcpStream,
    peer: SocketAddr,
    options: Options,
    seen: Arc<Mutex<Seen>>,
) -> Option<()> {
    let mut preface = vec![0; options.preface];
    socket.read_exact(&mut preface).await.ok()?;
    // The ingress's own check connects and says nothing.
    if !preface.is_empty() {
        seen.lock().unwrap().prefaces.push(preface);
    }
    match options.tls {
        None => serve(socket, peer, options.http2, seen).await,
        Some(config) => {
            let accepted = tokio_rustls::TlsAcceptor::from(config).accept(socket).await;
            let stream = accepted.ok()?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            serve(stream, peer, http2, seen).await;
        }
    }
    Some(())
}

async fn serve<S>(stream: S, peer: SocketAddr, http2: bool, seen: Arc<Mutex<Seen>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            {
                let mut seen = seen.lock().unwrap();
                seen.versions.push(request.version());
                seen.connections.insert(peer);
            }
            let grpc = request.headers().contains_key("te");
            let body = request.into_body().collect().await?.to_bytes();
            let length = body.len();
            let mut frames = vec![Ok::<_, hyper::Error>(Frame::data(body))];
            if grpc {
                let trailers = [("grpc-status", "0")].map(|(name, value)| {
                    let name = http::HeaderName::from_static(name);
                    (name, http::HeaderValue::from_static(value))
                });
                frames.push(Ok(Frame::trailers(trailers.into_iter().collect())));
            }
            let mut response = http::Response::new(());
            if !grpc {
                let headers = response.headers_mut();
                headers.insert("content-length", http::HeaderValue::from(length));
            }
            let body = StreamBody::new(futures_util::stream::iter(frames));
            Ok::<_, hyper::Error>(response.map(|()| body))
        }
    });
    let io = TokioIo::new(stream);
    if http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(io, service).await;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(io, service).await;
    }
}

struct Authority {
    pem: String,
    root: rustls::pki_types::CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            root: certificate.der().clone(),
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// An endpoint's TLS, which asks for a client's certificate of the same authority if told to.
    fn server(&self, name: &str, mutual: bool) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.sign(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// One service at this endpoint, spoken to so.
async fn ingress(address: SocketAddr, upstream: &str, tls: &str) -> Ingress {
    Ingress::start(&format!(
        "{tls}\nservices:\n  web:\n    endpoints: [\"{address}\"]\n    upstream: {{ {upstream} }}\n    \
         check: {{ interval: 1h }}\nroutes:\n  - {{ service: web }}\n"
    ))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_is_believed_only_with_a_certificate_of_its_name_and_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let tls = format!("tls: {{ authorities: {{ own: \"{}\" }} }}", ca.display());
    let endpoint = async |by: &Authority, name: &str| {
        let options = Options {
            tls: Some(by.server(name, false)),
            ..Options::default()
        };
        endpoint(options).await.0
    };
    let named = "tls: { authority: own, server_name: api.internal }";
    for (by, name, upstream, status) in [
        (&authority, "api.internal", named, 200),
        (&authority, "other.internal", named, 502),
        (&stranger, "api.internal", named, 502),
        (&stranger, "other.internal", "tls: { insecure: true }", 200),
        // Without a name the endpoint's address has to be in the certificate.
        (&authority, "127.0.0.1", "tls: { authority: own }", 200),
        (&authority, "127.0.0.2", "tls: { authority: own }", 502),
        // Nobody that the system trusts has signed this one.
        (
            &authority,
            "api.internal",
            "tls: { server_name: api.internal }",
            502,
        ),
    ] {
        let address = endpoint(by, name).await;
        let ingress = ingress(address, upstream, &tls).await;
        let answer = get(ingress.http).await;
        let reason = common::header(&answer.head, "x-ballast-reason");
        assert_eq!(answer.status, status, "{name} {upstream} {reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingress_shows_its_certificate_and_connections_are_kept() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign("ingress");
    for (name, content) in [
        ("ca.pem", &authority.pem),
        ("i.pem", &certificate.pem()),
        ("i.key", &key.serialize_pem()),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let at = dir.path().display();
    let tls = format!(
        "tls: {{ authorities: {{ own: \"{at}/ca.pem\" }}, identities: {{ me: {{ certificate: \
         \"{at}/i.pem\", key: \"{at}/i.key\" }} }} }}"
    );
    for (identity, status) in [(", identity: me", 200), ("", 502)] {
        let (address, seen) = endpoint(Options {
            tls: Some(authority.server("api.internal", true)),
            ..Options::default()
        })
        .await;
        let upstream = format!("tls: {{ authority: own, server_name: api.internal{identity} }}");
        let ingress = ingress(address, &upstream, &tls).await;
        for _ in 0..5 {
            assert_eq!(get(ingress.http).await.status, status);
        }
        if status == 200 {
            assert!(seen.lock().unwrap().connections.len() < 5);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_is_spoken_to_by_http2_in_plain_text_and_over_tls() {
    let authority = Authority::new();
    for tls in [None, Some(authority.server("a.internal", false))] {
        let upstream = match &tls {
            None => "http2: true",
            Some(_) => "http2: true, tls: { insecure: true }",
        };
        let (address, seen) = endpoint(Options {
            tls,
            http2: true,
            preface: 0,
        })
        .await;
        let ingress = ingress(address, upstream, "").await;
        for _ in 0..5 {
            assert_eq!(get(ingress.http).await.status, 200, "{upstream}");
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.versions, [http::Version::HTTP_2; 5], "{upstream}");
        assert!(seen.connections.len() < 5, "streams share connections");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_call_goes_through_with_its_trailers() {
    let (address, seen) = endpoint(Options {
        http2: true,
        ..Options::default()
    })
    .await;
    let ingress = ingress(address, "http2: true", "").await;
    let socket = TcpStream::connect(ingress.http).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    // A gRPC message: not compressed, five bytes long.
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    let request = http::Request::post("http://example.test/pkg.Service/Call")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message.clone()))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(body.to_bytes(), message);
    assert_eq!(seen.lock().unwrap().versions, [http::Version::HTTP_2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_is_told_the_client_by_the_proxy_protocol() {
    // One connection is one client's: the second request of the first client shares its own.
    let (address, seen) = endpoint(Options {
        preface: 28,
        ..Options::default()
    })
    .await;
    let ingress = ingress(address, "proxy_protocol: v2", "").await;
    let mut locals = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(ingress.http).await;
        locals.push(client.socket.local_addr().unwrap());
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(client.receive().await.unwrap().status, 200);
        }
    }
    let seen = seen.lock().unwrap();
    let told: Vec<SocketAddr> = seen
        .prefaces
        .iter()
        .map(|preface| {
            let header = ballast_http1::proxy::parse(preface).unwrap().unwrap();
            let addresses = header.addresses.unwrap();
            assert_eq!(addresses.destination, ingress.http);
            addresses.source
        })
        .collect();
    assert_eq!(told, locals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_under_tls_is_served_here_and_through_the_other_path_with_bodies_of_any_size() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign("example.test");
    std::fs::write(dir.path().join("a.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.path().join("a.key"), key.serialize_pem()).unwrap();
    let at = dir.path().display();
    for http2 in [false, true] {
        let (address, seen) = endpoint(Options {
            http2,
            ..Options::default()
        })
        .await;
        let https = common::free_address();
        let _ingress = Ingress::start_with(
            &format!(", https: \"{https}\""),
            &format!(
                "tls: {{ certificate: \"{at}/a.pem\", key: \"{at}/a.key\" }}\nservices:\n  web: {{ \
                 endpoints: [\"{address}\"], upstream: {{ http2: {http2} }}, check: {{ interval: \
                 1h }} }}\nroutes:\n  - {{ service: web }}\n"
            ),
        )
        .await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(https).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect("example.test".try_into().unwrap(), socket)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        for size in [0, 1, 20_000, 100_000, 3_000_000] {
            let body: Bytes = (0..=250).cycle().take(size).collect();
            let request = http::Request::post("/")
                .header("host", "example.test")
                .body(Full::new(body.clone()))
                .unwrap();
            sender.ready().await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200, "{size}");
            let echoed = response.into_body().collect().await.unwrap().to_bytes();
            assert!(echoed == body, "{size} came back as {}", echoed.len());
        }
        let version = if http2 {
            http::Version::HTTP_2
        } else {
            http::Version::HTTP_11
        };
        // While a body is on its way the endpoint may be asked whether it lives, too.
        let seen = &seen.lock().unwrap().versions;
        assert!(seen.len() >= 5 && seen.iter().all(|seen| *seen == version));
    }
}
