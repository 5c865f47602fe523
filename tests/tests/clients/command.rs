//! curl and nghttp.

use anyhow::{Result, ensure};
use ballast_bench::peers::Entry;

use crate::stage::{Stage, client, output};

/// Bytes of a body that does not come at once.
const LARGE: usize = 300_000;

/// Returns what curl prints: the body, then the version of HTTP that it spoke.
fn curl(args: &[&str]) -> Result<Option<String>> {
    let Some(mut curl) = client(&["curl"]) else {
        return Ok(None);
    };
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
    curl.args(["--write-out", "over %{http_version}\n"]);
    output(curl.args(args)).map(Some)
}

#[test]
fn curl_is_served_over_each_version_in_plain_text() -> Result<()> {
    let stage = Stage::start()?;
    let url = stage.url(Entry::Plain, "/a?b=c");
    for (flag, said) in [
        ("--http1.0", "1"),
        ("--http1.1", "1.1"),
        ("--http2-prior-knowledge", "2"),
    ] {
        let Some(text) = curl(&[flag, &url])? else {
            return Ok(());
        };
        let wanted = format!("GET /a?b=c with 0 bytes\nover {said}\n");
        // Some versions of curl say 1.0 where others say 1.
        let text = text.replace("over 1.0\n", "over 1\n");
        let downgraded = flag == "--http1.0" && text.ends_with("over 1.1\n");
        ensure!(text == wanted || downgraded, "{flag}: {text}");
    }
    Ok(())
}

#[test]
fn curl_is_served_over_tls_and_checks_the_certificate() -> Result<()> {
    let stage = Stage::start()?;
    let port = stage.port(Entry::Tls);
    let url = format!("https://bench.test:{port}/tls");
    let resolve = format!("bench.test:{port}:127.0.0.1");
    let trusted = stage.certificate.certificate().display().to_string();
    for (flag, said) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let args = [flag, "--resolve", &resolve, "--cacert", &trusted, &url];
        let Some(text) = curl(&args)? else {
            return Ok(());
        };
        ensure!(
            text == format!("GET /tls with 0 bytes\nover {said}\n"),
            "{text}"
        );
    }
    ensure!(
        curl(&["--resolve", &resolve, &url]).is_err(),
        "a certificate that nobody knows is believed"
    );
    Ok(())
}

#[test]
fn curl_sends_bodies_by_length_in_chunks_and_after_100() -> Result<()> {
    let stage = Stage::start()?;
    let url = stage.url(Entry::Plain, "/upload");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'b'; LARGE])?;
    let data = format!("@{}", file.display());
    let data = ["--data-binary", data.as_str(), url.as_str()];
    let more: [&[&str]; 4] = [
        &["--header", "Expect:"],
        &["--header", "Expect: 100-continue"],
        &["--header", "Transfer-Encoding: chunked"],
        &["--http2-prior-knowledge"],
    ];
    for more in more {
        let args: Vec<&str> = more.iter().copied().chain(data).collect();
        let Some(text) = curl(&args)? else {
            return Ok(());
        };
        let wanted = format!("POST /upload with {LARGE} bytes\n");
        ensure!(text.starts_with(&wanted), "{more:?}: {text}");
    }
    Ok(())
}

#[test]
fn curl_keeps_one_connection_over_several_requests() -> Result<()> {
    let stage = Stage::start()?;
    let url = stage.url(Entry::Plain, "/[1-20]");
    let Some(text) = curl(&["--write-out", "opened %{num_connects}\n", &url])? else {
        return Ok(());
    };
    ensure!(text.matches("GET /").count() == 20, "{text}");
    ensure!(text.matches("opened 1\n").count() == 1, "{text}");
    ensure!(text.matches("opened 0\n").count() == 19, "{text}");
    Ok(())
}

#[test]
fn nghttp_is_served_in_plain_text_and_over_tls() -> Result<()> {
    let stage = Stage::start()?;
    for entry in [Entry::H2c, Entry::Tls] {
        let Some(mut nghttp) = client(&["nghttp"]) else {
            return Ok(());
        };
        let urls = ["/one", "/two"].map(|path| stage.url(entry, path));
        let text = output(nghttp.arg("--no-verify-peer").args(urls))?;
        ensure!(
            text.contains("GET /one with 0 bytes") && text.contains("GET /two with 0 bytes"),
            "{entry:?}: {text}"
        );
    }
    Ok(())
}
