//! The table of `ballast ingress dump`.

use comfy_table::Cell;
use serde::Deserialize;

use super::Style;
use super::style::Tone;
use super::tables::{finish, table};

/// One pool of the table, as far as people are shown it.
#[derive(Debug, Deserialize)]
pub struct DumpedPool {
    /// Its service's name.
    pub service: String,
    /// Its port's name.
    pub port: String,
    /// The port that it is published on.
    pub published: Option<u16>,
    /// The routes that lead to it.
    pub routes: Option<Vec<DumpedRoute>>,
    /// Its endpoints.
    pub endpoints: Vec<DumpedEndpoint>,
}

/// One route.
#[derive(Debug, Deserialize)]
pub struct DumpedRoute {
    /// None for any.
    #[serde(default)]
    pub host: Option<String>,
    /// Matches whole segments.
    #[serde(default)]
    pub path_prefix: String,
}

/// One endpoint.
#[derive(Debug, Deserialize)]
pub struct DumpedEndpoint {
    /// Where it answers.
    pub address: String,
    /// Such as `ready`.
    pub state: String,
    /// Whether others are preferred for the moment.
    pub avoided: bool,
    /// Whether it was taken out for its bad answers.
    #[serde(default)]
    pub ejected: bool,
    /// Why it is in that state.
    pub why: Option<String>,
    /// Requests at it.
    pub in_flight: u64,
    /// The moving average; 0 if none has come yet.
    pub latency_us: u64,
}

/// Returns the table: a row for each endpoint, and one for each pool without any.
pub fn dump(pools: &[DumpedPool], style: Style) -> String {
    let header = [
        "SERVICE",
        "REACHED AT",
        "ENDPOINT",
        "STATE",
        "IN FLIGHT",
        "LATENCY",
        "WHY",
    ];
    let mut table = table(&header, style);
    for pool in pools {
        let name = format!("{}/{}", pool.service, pool.port);
        if pool.endpoints.is_empty() {
            let none = style.cell("none".to_owned(), Tone::Bad);
            table.add_row(vec![Cell::new(&name), Cell::new(places(pool)), none]);
        }
        for (row, endpoint) in pool.endpoints.iter().enumerate() {
            let first = |text: String| Cell::new(if row == 0 { text } else { String::new() });
            table.add_row(vec![
                first(name.clone()),
                first(places(pool)),
                Cell::new(&endpoint.address),
                state(endpoint, style),
                Cell::new(endpoint.in_flight),
                Cell::new(latency(endpoint.latency_us)),
                Cell::new(endpoint.why.as_deref().unwrap_or("-")),
            ]);
        }
    }
    finish(&table)
}

fn places(pool: &DumpedPool) -> String {
    let published = pool.published.map(|port| format!(":{port}"));
    let routes = pool.routes.iter().flatten().map(|route| {
        let host = route.host.as_deref().unwrap_or("*");
        format!("{host}{}", route.path_prefix)
    });
    let places: Vec<String> = published.into_iter().chain(routes).collect();
    if places.is_empty() {
        "-".to_owned()
    } else {
        places.join(" ")
    }
}

fn state(endpoint: &DumpedEndpoint, style: Style) -> Cell {
    let (text, tone) = match endpoint.state.as_str() {
        "ready" if endpoint.ejected => ("ready, ejected".to_owned(), Tone::Bad),
        "ready" if endpoint.avoided => ("ready, avoided".to_owned(), Tone::Warn),
        "ready" => ("ready".to_owned(), Tone::Good),
        "out" => ("out".to_owned(), Tone::Bad),
        other => (other.to_owned(), Tone::Warn),
    };
    style.cell(text, tone)
}

fn latency(micros: u64) -> String {
    match micros {
        0 => "-".to_owned(),
        micros if micros < 10_000 => format!("{micros} us"),
        micros => format!("{} ms", micros / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_says_why_and_an_empty_pool_shows() {
        let pools = serde_json::json!([
            {"service": "web", "port": "http", "published": 8080, "routes": [{"path_prefix": "/a"}],
             "endpoints": [{"address": "127.0.0.1:1", "state": "out", "avoided": false,
                            "why": "its checks fail", "in_flight": 0, "latency_us": 1500}]},
            {"service": "api", "port": "http", "published": null, "routes": null, "endpoints": []}
        ]);
        let pools: Vec<DumpedPool> = serde_json::from_value(pools).expect("fits");
        let text = dump(&pools, Style::PLAIN);
        for part in [
            "web/http",
            ":8080 */a",
            "127.0.0.1:1",
            "out",
            "1500 us",
            "its checks fail",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.contains("api/http") && text.contains("none"), "{text}");
    }
}
