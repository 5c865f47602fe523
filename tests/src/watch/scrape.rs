//! Reads `/metrics` over a connection that stays open.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::http::Connection;

/// An ingress that does not answer its admin port for this long is taken for dead.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Reads one role's metrics again and again.
#[derive(Debug)]
pub struct Scraper {
    address: SocketAddr,
    connection: Option<Connection<TcpStream>>,
}

impl Scraper {
    /// Returns one that connects when first used; use it on a thread of the right host.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Returns the exposition as it is now.
    ///
    /// # Errors
    /// If the role does not answer; the next call connects anew.
    pub fn scrape(&mut self) -> Result<Exposition> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::tcp_within(self.address, TIMEOUT)?,
        };
        let response = connection.request("GET", "/metrics", &[], None)?;
        if response.status != 200 {
            bail!("/metrics: {}", response.status);
        }
        if connection.is_open() {
            self.connection = Some(connection);
        }
        let text = String::from_utf8(response.body).context("metrics are text")?;
        Ok(Exposition(text))
    }
}

/// All metrics of one moment.
#[derive(Debug)]
pub struct Exposition(String);

/// One line of an exposition.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    labels: &'a str,
    /// Its value.
    pub value: f64,
}

impl Sample<'_> {
    /// Returns whether label `name` has that value.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.labels.split(',').any(|pair| {
            pair.split_once('=')
                .is_some_and(|(key, quoted)| key == name && quoted.trim_matches('"') == value)
        })
    }
}

impl Exposition {
    /// Returns every sample of the metric `name`.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Sample<'a>> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(labelled) => labelled.rsplit_once('}')?,
                None if rest.starts_with(' ') => ("", rest),
                None => return None,
            };
            let value = value.split_whitespace().next()?.parse().ok()?;
            Some(Sample { labels, value })
        })
    }

    /// Returns the sum of every sample of the metric `name`; none if there is no sample.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.samples(name)
            .map(|sample| sample.value)
            .reduce(|sum, value| sum + value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let exposition = Exposition(
            "# TYPE a gauge\na{service=\"x\",state=\"ready\"} 5\na{service=\"y\",state=\"ready\"} 2\n\
             ab{service=\"x\"} 9\nb_sum 0.25\n"
                .to_owned(),
        );
        let ready: Vec<f64> = exposition
            .samples("a")
            .filter(|sample| sample.has("service", "x") && sample.has("state", "ready"))
            .map(|sample| sample.value)
            .collect();
        assert_eq!(ready, [5.0]);
        assert_eq!(exposition.sum("a"), Some(7.0));
        assert_eq!(exposition.sum("b_sum"), Some(0.25));
        assert_eq!(exposition.sum("c"), None);
    }
}
