//! What stands behind the ingress here: it answers with what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, bail};

/// Says over which protocol the browser came, as the browser sees it.
const PAGE: &str = "<!DOCTYPE html><title>ballast</title><body><p>loading</p><script>\
    const [entry] = performance.getEntriesByType('navigation');\
    document.body.textContent = 'came over ' + entry.nextHopProtocol;</script></body>";

/// Starts a backend that lives as long as the test; returns where it listens.
pub fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a backend")?;
    let address = listener.local_addr().context("a backend")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off is the ingress or the end of the test.
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = head(&mut reader)? {
        let (request, fields) = head.split_once("\r\n").context("a request line")?;
        if value(fields, "expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = body(&mut reader, fields)?;
        let mut words = request.split(' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (kind, text) = if target == "/page" {
            ("text/html", PAGE.to_owned())
        } else {
            let text = format!("{method} {target} with {} bytes\n", body.len());
            ("text/plain", text)
        };
        let text = if method == "HEAD" { "" } else { &text };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(head.as_bytes())?;
    }
    Ok(())
}

fn head(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if &head[before..] == "\r\n" {
            return Ok(Some(head));
        }
    }
}

fn value<'a>(fields: &'a str, wanted: &str) -> Option<&'a str> {
    let mut lines = fields.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value.trim())
}

fn body(reader: &mut impl BufRead, fields: &str) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = value(fields, "content-length") {
        reader.take(length.parse()?).read_to_end(&mut body)?;
        return Ok(body);
    }
    if value(fields, "transfer-encoding").is_none() {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Ok(length) = u64::from_str_radix(line.trim(), 16) else {
            bail!("`{line}` is no length of a chunk");
        };
        reader.take(length).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(body);
        }
    }
}
