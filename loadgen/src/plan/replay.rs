//! An access log, asked again with its own timing.
//!
//! Two forms, told apart line by line:
//! - common and combined of nginx and Apache:
//!   `1.2.3.4 - - [10/Oct/2024:13:55:36 +0000] "GET /a?b=c HTTP/1.1" 200 2326 "-" "curl"`;
//!   its clock has whole seconds, so that the requests of one second are spread evenly over it;
//! - `TIME METHOD PATH`, with spaces or commas between; the time in seconds (as precise as you
//!   like) or as RFC 3339.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::time::Duration;

use super::validate::REQUESTS;
use super::{Profile, Request, Template};

/// Lines that are replayed; 12 bytes of memory each.
pub const LINES: usize = 1 << 24;
/// Bytes of one line.
const LINE_BYTES: u64 = 64 * 1024;
/// The longest span of a log.
const SPAN_NS: i128 = 366 * 24 * 3600 * NANOS;
/// Nanoseconds of a second.
const NANOS: i128 = 1_000_000_000;

/// A log, ready to be asked again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// When each request is due, at the speed asked for.
    pub times: Vec<u64>,
    /// Which of the requests each is.
    pub picks: Vec<u32>,
    /// The different requests: method and path.
    pub requests: Vec<(http::Method, String)>,
    /// Lines that were left out because they do not parse; only if lenient.
    pub skipped: u64,
    /// Lines that were earlier than one before them, and were put in order; only if lenient.
    pub reordered: u64,
    /// The first line that was left out, and why.
    pub first_skipped: Option<String>,
}

/// How a log is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplayOptions {
    /// How many times as fast as it was; above 0.
    pub speed: f64,
    /// Leave out what does not parse, and sort what is out of order, instead of giving up.
    pub lenient: bool,
}

/// A log that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[from] std::io::Error),
    /// A line that does not parse.
    #[error("line {line}: {problem} (--replay-lenient leaves such lines out)")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// A line earlier than the one before it.
    #[error("line {line}: its time is before that of the line before it (--replay-lenient sorts)")]
    Order {
        /// From 1.
        line: u64,
    },
    /// Nothing left.
    #[error("it has no requests{}", .0.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    Empty(Option<String>),
    /// Too many lines.
    #[error("it has more than {LINES} lines")]
    TooLong,
    /// Too many different requests.
    #[error("it has more than {REQUESTS} different requests")]
    TooMany,
    /// Its times are more than a year apart.
    #[error("its times are more than a year apart: is the first or last line's clock right?")]
    Span,
    /// Not a speed.
    #[error("the speed {0} must be above 0 and at most a million")]
    Speed(f64),
}

/// Why a line is none of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Longer than a request may be.
    #[error("it is longer than {LINE_BYTES} bytes")]
    Long,
    /// Not text.
    #[error("it is not UTF-8")]
    NotText,
    /// A column is not there.
    #[error("{0} is missing in `{1}`")]
    Missing(&'static str, String),
    /// No time.
    #[error("`{0}` is no time")]
    Time(String),
    /// No method.
    #[error("`{0}` is no method")]
    Method(String),
    /// Not a path.
    #[error("`{0}` is no path: it must begin with / and have no blanks")]
    Path(String),
}

/// One line: nanoseconds since the epoch, or since whenever the log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<'a> {
    at_ns: i128,
    /// Its clock has only whole seconds.
    coarse: bool,
    method: &'a str,
    path: &'a str,
}

/// What is gathered while a log is read.
#[derive(Default)]
struct Reading {
    /// Time, whether it is coarse, request.
    lines: Vec<(i128, bool, u32)>,
    requests: Vec<(http::Method, String)>,
    known: HashMap<String, u32>,
    skipped: u64,
    reordered: u64,
    first_skipped: Option<String>,
    latest: Option<i128>,
}

impl Replay {
    /// Returns the requests that `log` tells of.
    ///
    /// # Errors
    /// [`ReplayError`] with the first line that does not parse, unless lenient.
    pub fn read(mut log: impl BufRead, options: ReplayOptions) -> Result<Self, ReplayError> {
        if !(options.speed > 0.0 && options.speed <= 1e6) {
            return Err(ReplayError::Speed(options.speed));
        }
        let mut reading = Reading::default();
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            if log
                .by_ref()
                .take(LINE_BYTES)
                .read_until(b'\n', &mut bytes)?
                == 0
            {
                break;
            }
            let parsed = if bytes.len() as u64 == LINE_BYTES && !bytes.ends_with(b"\n") {
                skip_line(&mut log)?;
                Err(LineProblem::Long)
            } else {
                std::str::from_utf8(&bytes)
                    .map_err(|_| LineProblem::NotText)
                    .and_then(entry)
            };
            match parsed {
                Ok(Some(entry)) => reading.take(line, &entry, options.lenient)?,
                Ok(None) => {}
                Err(problem) if options.lenient => {
                    reading.skipped += 1;
                    reading
                        .first_skipped
                        .get_or_insert_with(|| format!("line {line}: {problem}"));
                }
                Err(problem) => return Err(ReplayError::Line { line, problem }),
            }
        }
        reading.finish(options.speed)
    }

    /// Returns how long the log is at its speed: just past its last request.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.times.last().copied().unwrap_or_default() + 1)
    }

    /// Returns when requests are due.
    pub fn profile(&self) -> Profile {
        Profile::Times(self.times.clone())
    }

    /// Returns the different requests, each as `like` with the log's method and path.
    pub fn requests(&self, like: &Request) -> Vec<Request> {
        let with = |(method, path): &(http::Method, String)| Request {
            method: method.clone(),
            path: Template::literal(path.as_bytes()),
            ..like.clone()
        };
        self.requests.iter().map(with).collect()
    }
}

impl Reading {
    fn take(&mut self, line: u64, entry: &Entry<'_>, lenient: bool) -> Result<(), ReplayError> {
        if self.latest.is_some_and(|latest| entry.at_ns < latest) {
            if !lenient {
                return Err(ReplayError::Order { line });
            }
            self.reordered += 1;
        }
        self.latest = self.latest.max(Some(entry.at_ns));
        if self.lines.len() == LINES {
            return Err(ReplayError::TooLong);
        }
        let key = format!("{} {}", entry.method, entry.path);
        let request = match self.known.get(&key) {
            Some(request) => *request,
            None => self.add(key, entry)?,
        };
        self.lines.push((entry.at_ns, entry.coarse, request));
        Ok(())
    }

    fn add(&mut self, key: String, entry: &Entry<'_>) -> Result<u32, ReplayError> {
        if self.requests.len() == REQUESTS {
            return Err(ReplayError::TooMany);
        }
        let request = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        let method = entry.method.parse().unwrap_or(http::Method::GET);
        self.requests.push((method, entry.path.to_owned()));
        self.known.insert(key, request);
        Ok(request)
    }

    fn finish(mut self, speed: f64) -> Result<Replay, ReplayError> {
        if self.reordered > 0 {
            self.lines.sort_by_key(|(at_ns, ..)| *at_ns);
        }
        self.spread();
        let (Some(first), Some(last)) = (self.lines.first(), self.lines.last()) else {
            return Err(ReplayError::Empty(self.first_skipped));
        };
        let zero = first.0;
        if last.0 - zero > SPAN_NS {
            return Err(ReplayError::Span);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a year in nanoseconds, sorted, at a speed of at least a millionth: the cast \
                      saturates beyond"
        )]
        let scaled = |at_ns: i128| ((at_ns - zero) as f64 / speed) as u64;
        Ok(Replay {
            times: self
                .lines
                .iter()
                .map(|(at_ns, ..)| scaled(*at_ns))
                .collect(),
            picks: self.lines.iter().map(|(.., request)| *request).collect(),
            requests: self.requests,
            skipped: self.skipped,
            reordered: self.reordered,
            first_skipped: self.first_skipped,
        })
    }

    /// Spreads the requests of each coarse second evenly over it: they did not come at once.
    fn spread(&mut self) {
        let second = |line: &(i128, bool, u32)| (line.0, line.1);
        for group in self
            .lines
            .chunk_by_mut(|a, b| a.1 && second(a) == second(b))
        {
            let count = group.len() as i128;
            for (line, place) in group.iter_mut().zip(0..) {
                line.0 += place * NANOS / count;
            }
        }
    }
}

fn skip_line(log: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = log.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        log.consume(taken);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Returns what a line tells; nothing of a blank one, a comment or a header.
fn entry(line: &str) -> Result<Option<Entry<'_>>, LineProblem> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') || line.to_ascii_lowercase().starts_with("time") {
        return Ok(None);
    }
    // Only the combined form has brackets before the first quote.
    let before_quote = line.split('"').next().unwrap_or_default();
    let entry = match before_quote.find('[') {
        Some(open) => combined(line, open),
        None => columns(line),
    }?;
    entry
        .method
        .parse::<http::Method>()
        .map_err(|_| LineProblem::Method(entry.method.to_owned()))?;
    let whole = entry.path.starts_with('/') && entry.path.chars().all(|c| c.is_ascii_graphic());
    if whole {
        Ok(Some(entry))
    } else {
        Err(LineProblem::Path(entry.path.to_owned()))
    }
}

fn combined(line: &str, open: usize) -> Result<Entry<'_>, LineProblem> {
    let missing = |what| LineProblem::Missing(what, shortened(line));
    let rest = &line[open + 1..];
    let (time, rest) = rest
        .split_once(']')
        .ok_or_else(|| missing("the `]` after the time"))?;
    let at = jiff::Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", time)
        .map_err(|_| LineProblem::Time(time.to_owned()))?;
    let request = rest
        .split('"')
        .nth(1)
        .ok_or_else(|| missing("the request in quotes"))?;
    let mut words = request.split(' ');
    let method = words
        .next()
        .filter(|it| !it.is_empty())
        .ok_or_else(|| missing("the method"))?;
    let path = words.next().ok_or_else(|| missing("the path"))?;
    Ok(Entry {
        at_ns: at.as_nanosecond(),
        coarse: true,
        method,
        path,
    })
}

fn columns(line: &str) -> Result<Entry<'_>, LineProblem> {
    let missing = |what| LineProblem::Missing(what, shortened(line));
    let mut words = line.split([' ', ',', '\t']).filter(|word| !word.is_empty());
    let time = words.next().ok_or_else(|| missing("the time"))?;
    let at_ns = match (time.parse::<f64>(), time.parse::<jiff::Timestamp>()) {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "saturates; the span is checked later"
        )]
        (Ok(seconds), _) if seconds.is_finite() => seconds_to_ns(time, seconds),
        (_, Ok(at)) => at.as_nanosecond(),
        _ => return Err(LineProblem::Time(time.to_owned())),
    };
    Ok(Entry {
        at_ns,
        coarse: false,
        method: words.next().ok_or_else(|| missing("the method"))?,
        path: words.next().ok_or_else(|| missing("the path"))?,
    })
}

/// Seconds since the epoch have ten digits before the point: a float has only six left after it.
#[allow(
    clippy::cast_possible_truncation,
    reason = "saturates; the span is checked later"
)]
fn seconds_to_ns(text: &str, seconds: f64) -> i128 {
    let exact = text.split_once('.').and_then(|(whole, part)| {
        let digits = part.get(..part.len().min(9))?;
        let part: i128 = format!("{digits:0<9}").parse().ok()?;
        let whole: i128 = whole.parse().ok()?;
        (whole >= 0).then_some(whole.checked_mul(NANOS)? + part)
    });
    exact.unwrap_or((seconds * 1e9) as i128)
}

/// The beginning of a line, for a message.
fn shortened(line: &str) -> String {
    const SHOWN: usize = 80;
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: ReplayOptions = ReplayOptions {
        speed: 1.0,
        lenient: false,
    };
    const LENIENT: ReplayOptions = ReplayOptions {
        speed: 1.0,
        lenient: true,
    };

    fn error(log: &str) -> String {
        Replay::read(log.as_bytes(), STRICT)
            .expect_err(log)
            .to_string()
    }

    fn line(second: u32, request: &str) -> String {
        format!(
            "1.2.3.4 - bob [10/Oct/2024:13:55:{second:02} +0200] \"{request}\" 200 2 \"-\" \"a [b]\"\n"
        )
    }

    #[test]
    fn combined_log_is_spread_over_its_seconds() {
        let log = [
            line(36, "GET /a HTTP/1.1"),
            line(36, "GET /a HTTP/1.1"),
            line(38, "POST /b?c=d HTTP/1.0"),
        ];
        let replay = Replay::read(log.concat().as_bytes(), STRICT).expect("reads");
        assert_eq!(replay.times, [0, 500_000_000, 2_000_000_000]);
        assert_eq!(replay.picks, [0, 0, 1]);
        assert_eq!(
            replay.requests,
            [
                (http::Method::GET, "/a".to_owned()),
                (http::Method::POST, "/b?c=d".to_owned())
            ]
        );
        assert_eq!(replay.duration(), Duration::from_nanos(2_000_000_001));
    }

    #[test]
    fn columns_are_as_precise_as_they_are_written_and_speed_divides() {
        let log = "time method path\n# x\n1700000000.000000001 GET /a\n1700000000.25,GET,/b\n\
                   2023-11-14T22:13:21Z GET /a\n";
        let options = ReplayOptions {
            speed: 2.0,
            ..STRICT
        };
        let replay = Replay::read(log.as_bytes(), STRICT).expect("reads");
        assert_eq!(replay.times, [0, 249_999_999, 999_999_999]);
        let fast = Replay::read(log.as_bytes(), options).expect("reads");
        assert_eq!(fast.times, [0, 124_999_999, 499_999_999]);
        assert_eq!(fast.picks, [0, 1, 0]);
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong_with_it() {
        assert_eq!(
            error("0 GET /\nhello\n"),
            "line 2: `hello` is no time (--replay-lenient leaves such lines out)"
        );
        assert!(error("0 GET /\n1 GET\n").starts_with("line 2: the path is missing in `1 GET`"));
        assert!(error("1 GET /\n0 GET /\n").starts_with("line 2: its time is before"));
        assert!(error("0 G(T /\n").contains("is no method"));
        assert!(error("0 GET a\n").contains("is no path"));
        assert!(error(&line(36, "\\x16\\x03")).starts_with("line 1: "));
        assert!(error(&line(36, "")).contains("the method is missing"));
        assert!(
            error("1.2.3.4 - - [yesterday] \"GET / HTTP/1.1\" 200 2\n")
                .contains("`yesterday` is no time")
        );
        assert_eq!(error(""), "it has no requests");
        assert!(error("0 GET /\n99999999999 GET /\n").contains("a year apart"));
        assert!(error(&"x".repeat(70_000)).contains("longer than"));
        let speed = ReplayOptions {
            speed: f64::NAN,
            ..STRICT
        };
        assert!(Replay::read(&b"0 GET /"[..], speed).is_err());
    }

    #[test]
    fn lenient_reading_counts_what_it_leaves_out_and_sorts() {
        let mut log = b"0 GET /a\ngarbage\n3 GET /c\n1 GET /b\n\xff\xfe\n".to_vec();
        log.extend("x".repeat(70_000).bytes());
        log.extend(b"\n4 GET /d\n");
        let replay = Replay::read(&log[..], LENIENT).expect("reads");
        assert_eq!(
            replay.times,
            [0, 1_000_000_000, 3_000_000_000, 4_000_000_000]
        );
        assert_eq!(replay.picks, [0, 2, 1, 3]);
        assert_eq!((replay.skipped, replay.reordered), (3, 1));
        assert_eq!(
            replay.first_skipped.as_deref(),
            Some("line 2: `garbage` is no time")
        );
    }

    proptest::proptest! {
        #[test]
        fn prop_no_log_makes_the_reader_panic(log in "([0-9]{1,3}|GET|/a|\\[|\\]|\"|,| |\n|é){0,30}") {
            let _ = Replay::read(log.as_bytes(), STRICT);
            let _ = Replay::read(log.as_bytes(), LENIENT);
        }
    }
}
