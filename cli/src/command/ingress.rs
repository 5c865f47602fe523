//! `ballast ingress dump`, `detach`, `log`: questions to the admin address of one ingress.

use std::path::PathBuf;
use std::time::Duration;

use ballast_lb::l4::XdpOptions;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Failure;
use crate::args::{Global, IngressCommand, Output};
use crate::render::{self, DumpedL4, DumpedPool, Style};

/// Where an ingress is asked unless `--admin` says otherwise.
const DEFAULT_ADMIN: &str = "127.0.0.1:7431";
/// Between two looks of a live view.
const WATCH: Duration = Duration::from_secs(1);
/// Bytes of an answer: a table of 100,000 endpoints has 40 MB.
const ANSWER_MAX: usize = 256 << 20;

/// Runs one of them.
///
/// # Errors
/// If the ingress cannot be reached, or refuses.
pub(crate) fn ingress(
    global: &Global,
    admin: Option<&str>,
    command: IngressCommand,
) -> Result<(), Failure> {
    let admin = admin.unwrap_or(DEFAULT_ADMIN);
    let asked = async {
        match command {
            IngressCommand::Dump {
                l4: true, watch, ..
            } => dump_l4(global, admin, watch).await,
            IngressCommand::Dump { service, .. } => dump(global, admin, service).await,
            IngressCommand::Detach { pin } => detach(pin),
            IngressCommand::Log { filter } => {
                let method = if filter.is_some() {
                    Method::PUT
                } else {
                    Method::GET
                };
                let answer = ask(admin, method, "/log", filter.unwrap_or_default()).await?;
                render::line(String::from_utf8_lossy(&answer).trim_end())
            }
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(asked)
}

async fn dump(global: &Global, admin: &str, service: Option<String>) -> Result<(), Failure> {
    let service = service.unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !service.chars().all(fine) {
        return Err(Failure::Usage(format!("`{service}` is no service's name")));
    }
    let path = format!("/debug/table?all&service={service}");
    let answer = ask(admin, Method::GET, &path, String::new()).await?;
    let odd = |error| Failure::while_doing("the ingress answered something else", &error);
    let mut table: Value = serde_json::from_slice(&answer).map_err(odd)?;
    if global.output == Output::Json {
        return render::json(&table);
    }
    let pools: Vec<DumpedPool> = serde_json::from_value(table["pools"].take()).map_err(odd)?;
    if pools.is_empty() && !service.is_empty() {
        let message = format!("no service of the ingress at {admin} has `{service}` in its name");
        return Err(Failure::Failed(message));
    }
    render::line(&render::dump(&pools, Style::detect()))
}

/// Shows what stands in the kernel's maps; again every second if `watch`.
async fn dump_l4(global: &Global, admin: &str, watch: bool) -> Result<(), Failure> {
    let odd = |error| Failure::while_doing("the ingress answered something else", &error);
    let mut before: Option<Vec<DumpedL4>> = None;
    loop {
        let answer = ask(admin, Method::GET, "/debug/l4", String::new()).await?;
        if global.output == Output::Json {
            let value: Value = serde_json::from_slice(&answer).map_err(odd)?;
            render::json(&value)?;
        } else {
            let services: Vec<DumpedL4> = serde_json::from_slice(&answer).map_err(odd)?;
            let text = render::l4(&services, before.as_deref(), Style::detect());
            // Home, and whatever stood there before is gone.
            let clear = if watch { "\u{1b}[H\u{1b}[J" } else { "" };
            render::line(&format!("{clear}{text}"))?;
            before = Some(services);
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn detach(pin: Option<PathBuf>) -> Result<(), Failure> {
    let options = XdpOptions {
        pin,
        ..XdpOptions::default()
    };
    ballast_lb::l4::xdp::detach(&options)
        .map_err(|error| Failure::while_doing("cannot detach", chain(&error)))
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn ask(admin: &str, method: Method, path: &str, body: String) -> Result<Bytes, Failure> {
    let what = format!("no answer from the ingress at {admin} (--admin gives another address)");
    let failed = |error: &dyn std::fmt::Display| Failure::while_doing(&what, error);
    let socket = TcpStream::connect(admin).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|e| failed(&e))?;
    // Ends by itself when the answer has been read.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, admin)
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| failed(&e))?;
    let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await;
    let body = body.map_err(|e| failed(&e))?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    let said = String::from_utf8_lossy(&body);
    Err(Failure::Failed(format!(
        "the ingress at {admin} refuses: {}",
        said.trim()
    )))
}
