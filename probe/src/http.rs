//! The least of HTTP/1.1 that a probe needs: one GET, and the status of its answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ProbeError;

/// Bytes of an answer that are read: its head, and small bodies whole.
const ANSWER_BYTES: usize = 16 * 1024;

/// How long the rest of an answer is awaited once its status is known. Hanging up in the middle of
/// a body makes many servers log an error for each probe; the verdict does not depend on it.
const REST: Duration = Duration::from_millis(10);

/// Returns the status that `GET path` is answered with.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<u16, ProbeError> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(ProbeError::from_io)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ballast-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(ProbeError::from_io)?;
    let mut answer = Vec::with_capacity(1024);
    let status = loop {
        if let Some(status) = status(&answer)? {
            break status;
        }
        read_more(&mut stream, &mut answer).await?;
    };
    if !is_whole(&answer) {
        let rest = async {
            while !is_whole(&answer) && read_more(&mut stream, &mut answer).await.is_ok() {}
        };
        // The verdict stands whether or not the rest came.
        let _ = tokio::time::timeout(REST, rest).await;
    }
    Ok(status)
}

async fn read_more(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<(), ProbeError> {
    if answer.len() >= ANSWER_BYTES {
        return Err(ProbeError::NotHttp);
    }
    match stream.read_buf(answer).await {
        Ok(0) => Err(ProbeError::Closed),
        Ok(_) => Ok(()),
        Err(error) => Err(ProbeError::from_io(error)),
    }
}

/// Returns the status once the status line is whole.
fn status(answer: &[u8]) -> Result<Option<u16>, ProbeError> {
    const PREFIX: &[u8] = b"HTTP/1.";
    let seen = answer.len().min(PREFIX.len());
    if answer[..seen] != PREFIX[..seen] {
        return Err(ProbeError::NotHttp);
    }
    // `HTTP/1.x NNN`: the reason after it may be missing.
    let Some(digits) = answer.get(9..12) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(digits).map_err(|_| ProbeError::NotHttp)?;
    match text.parse() {
        Ok(status) if answer[8] == b' ' && (100..=599).contains(&status) => Ok(Some(status)),
        _ => Err(ProbeError::NotHttp),
    }
}

/// Returns whether the answer holds all of the body that it announced.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok())
        .is_some_and(|length| answer.len() - (end + 4) >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_needs_its_three_digits_and_nothing_more() {
        assert_eq!(
            status(b"HTTP/1.1 204 No Content").expect("is HTTP"),
            Some(204)
        );
        assert_eq!(status(b"HTTP/1.0 500").expect("is HTTP"), Some(500));
        assert_eq!(status(b"HTTP/1.1 20").expect("so far"), None);
        assert_eq!(status(b"").expect("so far"), None);
        for garbage in [
            &b"SSH-2.0-x"[..],
            b"HTTP/2.0 200",
            b"HTTP/1.1 abc",
            b"HTTP/1.1 999",
        ] {
            assert!(matches!(status(garbage), Err(ProbeError::NotHttp)));
        }
    }

    #[test]
    fn answer_is_whole_when_its_announced_body_has_come() {
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nok"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\nno length"));
    }
}
