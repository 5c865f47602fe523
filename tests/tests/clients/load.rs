//! Load generators of others.

use anyhow::{Result, ensure};
use ballast_bench::peers::Entry;

use crate::stage::{Stage, client, output};

#[test]
fn h2load_gets_an_answer_to_every_request() -> Result<()> {
    let stage = Stage::start()?;
    let cases: [(&[&str], Entry); 3] = [
        (&["--h1"], Entry::Plain),
        (&["-m", "10"], Entry::H2c),
        (&["-m", "10"], Entry::Tls),
    ];
    for (flags, entry) in cases {
        let Some(mut h2load) = client(&["h2load"]) else {
            return Ok(());
        };
        h2load.args(["-n", "400", "-c", "8"]).args(flags);
        let text = output(h2load.arg(stage.url(entry, "/load")))?;
        ensure!(
            text.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{entry:?}: {text}"
        );
        ensure!(text.contains("status codes: 400 2xx"), "{entry:?}: {text}");
    }
    Ok(())
}

#[test]
fn wrk_sees_no_error() -> Result<()> {
    let stage = Stage::start()?;
    for entry in [Entry::Plain, Entry::Tls] {
        let Some(mut wrk) = client(&["wrk"]) else {
            return Ok(());
        };
        wrk.args(["-t", "1", "-c", "16", "-d", "1s", "--timeout", "60s"]);
        let text = output(wrk.arg(stage.url(entry, "/load")))?;
        ensure!(text.contains("requests in"), "{text}");
        ensure!(!text.contains(" 0 requests in"), "{text}");
        for bad in ["Non-2xx", "Socket errors"] {
            ensure!(!text.contains(bad), "{entry:?}: {text}");
        }
    }
    Ok(())
}
