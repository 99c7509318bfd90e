//! The peers' clocks, compared once on each connection.
//!
//! Whoever accepts a clock stream writes its time and ends it; whoever has opened the stream reads. The peer's clock was read
//! after the stream was asked for and before the answer was here, so a time outside of these two is wrong by what it is
//! outside, however slow the line.

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use std::{
    fmt, io,
    time::{SystemTime, UNIX_EPOCH},
};

/// A peer whose clock differs by more is not talked to.
pub(super) const APART_MS: u64 = 5_000;

/// A clock: milliseconds since 1970.
pub(crate) type Clock = fn() -> u64;

/// This machine's.
pub(crate) fn system() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// How far a peer's clock is from this one's, at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    Ahead(u64),
    Behind(u64),
}

impl Apart {
    /// Of a clock that was at `theirs` at some time between `from` and `to`.
    fn of(theirs: u64, from: u64, to: u64) -> Self {
        match from.checked_sub(theirs) {
            Some(behind) => Self::Behind(behind),
            None => Self::Ahead(theirs.saturating_sub(to)),
        }
    }

    /// Whether that is too far to go on.
    pub(super) fn too_far(self) -> bool {
        matches!(self, Self::Ahead(ms) | Self::Behind(ms) if ms > APART_MS)
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(ms) => write!(f, "{ms} ms ahead"),
            Self::Behind(ms) => write!(f, "{ms} ms behind"),
        }
    }
}

/// Tells the time.
pub(super) async fn tell(mut stream: impl AsyncWrite + Unpin, clock: Clock) -> io::Result<()> {
    stream.write_all(&clock().to_be_bytes()).await?;
    stream.close().await
}

/// Reads the peer's time; it was asked for at `asked_ms`.
pub(super) async fn compare(mut stream: impl AsyncRead + Unpin, asked_ms: u64, clock: Clock) -> io::Result<Apart> {
    let mut theirs = [0; 8];
    stream.read_exact(&mut theirs).await?;
    Ok(Apart::of(u64::from_be_bytes(theirs), asked_ms, clock()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{executor::block_on, io::Cursor};

    #[test]
    fn a_clock_is_apart_by_what_no_delay_explains() {
        let apart = |theirs| Apart::of(theirs, 10_000, 13_000);
        assert_eq!(apart(10_000), Apart::Behind(0));
        assert_eq!(apart(12_999), Apart::Ahead(0));
        assert_eq!(apart(18_000), Apart::Ahead(5_000));
        assert_eq!(apart(5_000), Apart::Behind(5_000));
        assert!(!apart(18_000).too_far() && !apart(5_000).too_far());
        assert!(apart(18_001).too_far() && apart(4_999).too_far());
        assert!(apart(u64::MAX).too_far() && apart(0).too_far());
        // A clock that was set back meanwhile.
        assert_eq!(Apart::of(12_000, 13_000, 10_000), Apart::Behind(1_000));
    }

    #[test]
    fn what_is_told_is_what_is_compared() {
        let mut told = Cursor::new(Vec::new());
        block_on(tell(&mut told, || 20_000)).unwrap();
        let told = told.into_inner();
        assert_eq!(told, 20_000u64.to_be_bytes());
        let apart = |bytes: &[u8]| block_on(compare(bytes, 7_000, || 9_000));
        assert_eq!(apart(&told).unwrap(), Apart::Ahead(11_000));
        assert!(apart(&told[..7]).is_err());
    }
}
