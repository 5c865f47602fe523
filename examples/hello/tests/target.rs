//! The program as a task sees it: it listens on its port, answers, and keeps books.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Hello(Child);

impl Drop for Hello {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(port: u16, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn answers_with_its_slot_and_counts_a_repeated_request() {
    let port = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let child = Command::new(env!("CARGO_BIN_EXE_ballast-hello"))
        .env("PORT", port.to_string())
        .env("BALLAST_SLOT", "4")
        .spawn()
        .expect("starts");
    let _hello = Hello(child);

    let get = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let start = Instant::now();
    let answer = loop {
        match ask(port, get) {
            Ok(answer) if !answer.is_empty() => break answer,
            _ => assert!(start.elapsed() < Duration::from_secs(10), "does not answer"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("slot 4"), "{answer}");

    let post = "POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for _ in 0..2 {
        assert!(
            ask(port, post)
                .expect("answers")
                .starts_with("HTTP/1.1 200")
        );
    }
    let ledger = ask(port, &get.replace("GET / ", "GET /ledger ")).expect("answers");
    assert!(
        ledger.contains("\"executions\":2,\"duplicates\":1"),
        "{ledger}"
    );
}
