//! A WebSocket client, through the ingress to a WebSocket server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_bench::peers::{Certificate, Entry, Proxy, Setup};
use tungstenite::Message;

/// For one message.
const DEADLINE: Duration = Duration::from_mins(1);

/// Starts a server that says what it hears; returns where it listens.
fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> Option<()> {
                // A connection that is only a look whether somebody is there says nothing.
                let mut socket = tungstenite::accept(stream).ok()?;
                loop {
                    let message = socket.read().ok()?;
                    if message.is_text() || message.is_binary() {
                        socket.send(message).ok()?;
                    }
                }
            });
        }
    });
    Ok(address)
}

#[test]
fn websocket_carries_messages_of_all_sizes_both_ways() -> Result<()> {
    ballast_tests::cluster::program("ballast")?;
    let certificate = Certificate::make()?;
    let setup = Setup {
        sink: echo()?,
        core: None,
        certificate: &certificate,
    };
    let (proxies, missing) = Proxy::those(&setup, |name| name == "ballast");
    let proxy = proxies.first().with_context(|| format!("{missing:?}"))?;
    let stream = TcpStream::connect(proxy.address(Entry::Plain))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let url = format!("ws://{}/chat", proxy.address(Entry::Plain));
    let (mut socket, answer) = tungstenite::client(&url, stream).context("the handshake")?;
    ensure!(answer.status().as_u16() == 101, "{answer:?}");
    for length in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let sent = Message::binary(vec![b'w'; length]);
        socket.send(sent.clone())?;
        ensure!(socket.read()? == sent, "{length} bytes came back otherwise");
    }
    socket.send(Message::text("a word"))?;
    ensure!(socket.read()? == Message::text("a word"));
    socket.close(None)?;
    Ok(())
}
