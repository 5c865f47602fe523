//! A recorder on its way from one generator to another.
//!
//! Histograms travel in the V2 format of HdrHistogram, deflated and in base64, so that whoever
//! merges them loses nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Deserializer as From_, Serialize, Serializer as To};

use super::{Counts, OfTarget, Reasons, Recorder, STATUSES, Series, histogram};
use crate::record::Record;

/// Most characters of a histogram as text; the widest possible has 150,000.
const MAX_TEXT: usize = 1 << 20;

/// A text that is no histogram of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no histogram in base64 V2 deflate form: {0}")]
pub struct InvalidHistogram(String);

/// Returns `histogram` in the V2 format, deflated, as base64.
pub fn histogram_to_text(histogram: &Histogram<u32>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a histogram of 28,000 counts fits the format, and memory takes all bytes");
    STANDARD.encode(bytes)
}

/// Returns the histogram in `text`.
///
/// # Errors
/// [`InvalidHistogram`] for a text that [`histogram_to_text`] does not make.
pub fn histogram_from_text(text: &str) -> Result<Histogram<u32>, InvalidHistogram> {
    let invalid = |why: &dyn std::fmt::Display| InvalidHistogram(why.to_string());
    if text.len() > MAX_TEXT {
        return Err(InvalidHistogram("too long".to_owned()));
    }
    let bytes = STANDARD.decode(text).map_err(|error| invalid(&error))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| invalid(&error))
}

/// Returns the histogram in `text` if it can be added to a recorder's.
fn own_histogram(text: &str, digits: u8) -> Result<Histogram<u32>, InvalidHistogram> {
    let read = histogram_from_text(text)?;
    let own = histogram();
    if (read.low(), read.high(), read.sigfig()) != (own.low(), own.high(), digits) {
        return Err(InvalidHistogram("other bounds".to_owned()));
    }
    Ok(read)
}

#[derive(Serialize, Deserialize)]
struct State {
    counts: Counts,
    /// In the order of [`Recorder::histograms`].
    histograms: [String; 7],
    last_done_ns: u64,
    statuses: Vec<(u16, u64)>,
    targets: Vec<TargetState>,
    series: Series,
    records: Vec<Record>,
    reasons: Reasons,
}

#[derive(Serialize, Deserialize)]
struct TargetState {
    done: u64,
    failed: u64,
    received_bytes: u64,
    latency_sum_ns: u64,
    latency: Option<String>,
}

impl From<&OfTarget> for TargetState {
    fn from(target: &OfTarget) -> Self {
        Self {
            done: target.done,
            failed: target.failed,
            received_bytes: target.received_bytes,
            latency_sum_ns: target.latency_sum_ns,
            latency: target.latency.as_ref().map(histogram_to_text),
        }
    }
}

impl TryFrom<TargetState> for OfTarget {
    type Error = InvalidHistogram;

    fn try_from(state: TargetState) -> Result<Self, InvalidHistogram> {
        let latency = state.latency.map(|text| own_histogram(&text, 2));
        Ok(Self {
            done: state.done,
            failed: state.failed,
            received_bytes: state.received_bytes,
            latency_sum_ns: state.latency_sum_ns,
            latency: latency.transpose()?,
        })
    }
}

impl Recorder {
    fn state(&self) -> State {
        let mut latency = self.latency.clone();
        self.open.window.add_to(&mut latency);
        let mut histograms = self
            .histograms()
            .map(|(_, histogram)| histogram_to_text(histogram));
        histograms[0] = histogram_to_text(&latency);
        State {
            counts: self.counts.clone(),
            histograms,
            last_done_ns: self.last_done_ns,
            statuses: self.statuses().into_iter().collect(),
            targets: self.targets.iter().map(Into::into).collect(),
            series: self.whole_series(),
            records: self.records.clone(),
            reasons: self.reasons.clone(),
        }
    }

    fn from_state(state: State) -> Result<Self, InvalidHistogram> {
        let mut recorder = Self::new();
        let [latency, service, lag, connect, tls, first_byte, last_byte] = state.histograms;
        for (place, text) in [
            (&mut recorder.latency, latency),
            (&mut recorder.service, service),
            (&mut recorder.lag, lag),
            (&mut recorder.connect, connect),
            (&mut recorder.tls, tls),
            (&mut recorder.first_byte, first_byte),
            (&mut recorder.last_byte, last_byte),
        ] {
            *place = own_histogram(&text, 3)?;
        }
        for (status, count) in state.statuses {
            if usize::from(status) < STATUSES {
                recorder.statuses[usize::from(status)] = count;
            }
        }
        let targets = state.targets.into_iter().map(OfTarget::try_from);
        recorder.targets = targets.collect::<Result<_, _>>()?;
        recorder.open.before.clone_from(&state.counts);
        recorder.counts = state.counts;
        recorder.last_done_ns = state.last_done_ns;
        recorder.series = state.series;
        recorder.records = state.records;
        recorder.reasons = state.reasons;
        Ok(recorder)
    }
}

impl Serialize for Recorder {
    fn serialize<S: To>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.state().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recorder {
    fn deserialize<D: From_<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_state(State::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
