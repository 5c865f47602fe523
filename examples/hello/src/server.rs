//! Accepts, answers, and ends in order.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::ledger::Ledger;
use crate::nasty;
use crate::request::{Reader, Request};

/// How long requests in flight may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

struct Hello {
    ledger: RefCell<Ledger>,
    greeting: String,
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// A bad environment, or a port that cannot be bound.
pub async fn run() -> anyhow::Result<()> {
    let port: u16 = std::env::var("PORT")
        .or_else(|_| std::env::var("BALLAST_PORT_HTTP"))
        .context("PORT is not set")?
        .parse()
        .context("PORT is not a port")?;
    let slot = std::env::var("BALLAST_SLOT").unwrap_or_else(|_| "0".to_owned());
    let task = std::env::var("BALLAST_TASK_ID").unwrap_or_else(|_| "-".to_owned());
    let file = std::env::var_os("HELLO_LEDGER")
        .filter(|file| !file.is_empty())
        .map(PathBuf::from);
    let hello = Rc::new(Hello {
        ledger: RefCell::new(Ledger::open(file.as_deref(), &slot)?),
        greeting: format!("hello from slot {slot}, task {task}\n"),
    });
    let mut term = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    nasty::start()?;
    if let Some(delay) = crate::duration_from_env("HELLO_START_DELAY")? {
        tokio::time::sleep(delay).await;
    }
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let stop = async move {
        loop {
            tokio::select! {
                _ = term.recv() => if !nasty::ignores_term() { break },
                _ = interrupt.recv() => break,
            }
        }
    };
    LocalSet::new()
        .run_until(serve(listener, hello, stop))
        .await;
    Ok(())
}

async fn serve(listener: TcpListener, hello: Rc<Hello>, stop: impl Future<Output = ()>) {
    let (closing, closed) = watch::channel(false);
    // Each connection holds a sender; the receiver ends when the last is gone.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (hello, closed, alive) = (hello.clone(), closed.clone(), alive.clone());
                    tokio::task::spawn_local(async move {
                        let _alive = alive;
                        connection(stream, &hello, closed).await;
                    });
                }
                // Out of descriptors: a pause lets connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
    drop((listener, alive));
    closing.send_replace(true);
    // Past the limit the process just ends; its supervisor would kill it anyway.
    let _ = tokio::time::timeout(DRAIN, all_gone.recv()).await;
}

async fn connection(stream: TcpStream, hello: &Hello, mut closed: watch::Receiver<bool>) {
    // Without it Nagle's algorithm holds small answers back; failing to set it only costs time.
    let _ = stream.set_nodelay(true);
    let (incoming, mut outgoing) = stream.into_split();
    let mut reader = Reader::new(incoming);
    loop {
        let request = tokio::select! {
            biased;
            request = reader.head() => request,
            _ = closed.wait_for(|closed| *closed) => None,
        };
        let Some(request) = request else { break };
        if !reader.skip_body(&request).await {
            break;
        }
        let (status, body) = answer(hello, &request).await;
        let keep = request.keep_alive && !*closed.borrow();
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{}\r\n{}",
            body.len(),
            if keep { "" } else { "Connection: close\r\n" },
            if request.method == "HEAD" { "" } else { &body },
        );
        if outgoing.write_all(response.as_bytes()).await.is_err() || !keep {
            break;
        }
    }
}

async fn answer(hello: &Hello, request: &Request) -> (&'static str, String) {
    match request.path() {
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        "/ledger" => ("200 OK", hello.ledger.borrow().to_json()),
        _ => {
            if let Some(id) = &request.id {
                hello.ledger.borrow_mut().executed(&request.method, id);
            }
            match request.query("delay").map(crate::duration) {
                None => {}
                Some(Some(delay)) => tokio::time::sleep(delay).await,
                Some(None) => return ("400 Bad Request", "delay is not a duration\n".to_owned()),
            }
            ("200 OK", hello.greeting.clone())
        }
    }
}
