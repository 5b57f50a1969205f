//! Durations as users write them: `1h30m`, `500ms`, `7d`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The pattern of a duration, also in the CRDs.
pub const PATTERN: &str = "^([1-9][0-9]*(ms|s|m|h|d))+$";
/// The longest text of a duration.
const MAX_LENGTH: usize = 32;
/// The longest duration: about 100 years. No sum of a time and a few of these overflows.
const MAX_MILLIS: u64 = 100 * 365 * 86_400_000;

/// A length of time, above zero, of whole milliseconds.
///
/// Written as numbers with units (`ms`, `s`, `m`, `h`, `d`), largest first by custom: `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(u64);

impl Duration {
    /// A duration of `millis` milliseconds, at most about 100 years.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > MAX_MILLIS { MAX_MILLIS } else { millis })
    }

    /// A duration of `seconds` seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Whole milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded up: what Kubernetes' fields in seconds take.
    pub const fn secs_ceil(self) -> u64 {
        self.0.div_ceil(1000)
    }
}

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not follow the pattern.
    #[error(
        "{0:?} is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)"
    )]
    Malformed(String),
    /// It is over 100 years.
    #[error("{0:?} is too long a duration; the limit is 36500d")]
    TooLong(String),
}

impl FromStr for Duration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let malformed = || ParseError::Malformed(text.chars().take(64).collect());
        let too_long = || ParseError::TooLong(text.to_owned());
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(malformed());
        }
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || rest.starts_with('0') {
                return Err(malformed());
            }
            let (number, tail) = rest.split_at(digits);
            let unit_length = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit_length);
            let millis: u64 = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(malformed()),
            };
            let number: u64 = number.parse().map_err(|_| too_long())?;
            total = number.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(too_long)?;
            rest = tail;
        }
        if total > MAX_MILLIS { Err(too_long()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            let count = rest / millis;
            rest %= millis;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Duration> for jiff::SignedDuration {
    fn from(duration: Duration) -> Self {
        // at most MAX_MILLIS, so it always fits
        Self::from_millis(i64::try_from(duration.0).unwrap_or(i64::MAX))
    }
}

/// A duration as it stands in a spec, not parsed yet.
///
/// The pattern of the CRD lets texts through that are too long to count, and one of those must
/// not make the whole object unreadable: validation reports it with its field path instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

impl DurationText {
    /// The duration that the text means.
    pub fn parse(&self) -> Result<Duration, ParseError> {
        self.0.parse()
    }
}

impl From<Duration> for DurationText {
    fn from(duration: Duration) -> Self {
        Self(duration.to_string())
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": MAX_LENGTH})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, millis, printed) in [
            ("1s", 1000, "1s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "1m30s"),
            ("2h2h", 14_400_000, "4h"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!((duration.millis(), duration.to_string().as_str()), (millis, printed));
        }
        assert_eq!(Duration::from_millis(1).secs_ceil(), 1);
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "0s", "-1s", "1", "s", "1.5h", "01s", "1s ", "1w", "1S", "1h0m", "٣s"] {
            assert!(matches!(text.parse::<Duration>(), Err(ParseError::Malformed(_))), "{text}");
        }
        for text in ["99999999999999999999s", "9223372036854775807d", "36501d"] {
            assert!(matches!(text.parse::<Duration>(), Err(ParseError::TooLong(_))), "{text}");
        }
    }
}
