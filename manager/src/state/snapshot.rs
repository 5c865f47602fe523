//! The state as bytes.

use super::State;

/// The version byte of snapshots that this build writes and reads.
const VERSION: u8 = 4;

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No version byte.
    #[error("the snapshot is empty")]
    Empty,
    /// Written by another version of Ballast.
    #[error("the snapshot has version {0}; this build reads version {VERSION}")]
    Version(u8),
    /// Damaged, or a state that cannot be encoded.
    #[error("the snapshot does not hold a state")]
    Malformed(#[from] postcard::Error),
    /// More bytes than the state.
    #[error("{0} bytes after the end of the snapshot")]
    Trailing(usize),
}

impl State {
    /// Returns a version byte and the whole state. Equal states give equal bytes.
    ///
    /// A snapshot is a file, not a frame: the limit of frames does not hold for it.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        Ok(postcard::to_extend(self, vec![VERSION])?)
    }

    /// Reads what [`State::to_snapshot`] wrote.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (&version, body) = bytes.split_first().ok_or(SnapshotError::Empty)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (state, rest) = postcard::take_from_bytes(body)?;
        if rest.is_empty() {
            Ok(state)
        } else {
            Err(SnapshotError::Trailing(rest.len()))
        }
    }
}
