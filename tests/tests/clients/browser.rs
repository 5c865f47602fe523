//! Chromium without a screen.

use anyhow::{Result, ensure};
use ballast_bench::peers::Entry;

use crate::stage::{Stage, client, output};

#[test]
fn browser_shows_a_page_that_came_over_tls_and_http2() -> Result<()> {
    let stage = Stage::start()?;
    let Some(mut browser) = client(&["chromium", "chromium-browser", "google-chrome"]) else {
        return Ok(());
    };
    let home = tempfile::tempdir()?;
    let profile = format!("--user-data-dir={}", home.path().display());
    // Its sandbox wants more of a machine than tests may ask for.
    browser.args(["--headless", "--no-sandbox", "--disable-gpu"]);
    browser.args(["--disable-dev-shm-usage", "--ignore-certificate-errors"]);
    browser.args([&profile, "--dump-dom"]);
    browser.env("HOME", home.path());
    let text = output(browser.arg(stage.url(Entry::Tls, "/page")))?;
    ensure!(text.contains("came over h2"), "{text}");
    Ok(())
}
