//! When a cron expression fires, by the clock on the wall of a time zone.
//!
//! The crate `cronexpr` says at which wall-clock times it does; what those are in time is decided here, so that a change
//! to or from daylight-saving time loses no firing and doubles none: a time that the clock skips fires at the moment of
//! the change, one that it shows twice fires the first time.

use std::sync::LazyLock;

use jiff::{
    Timestamp, ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

/// The time zones that this program was built with: the same on every machine, whatever is installed there.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 256;
/// How many years an expression is tried before it counts as one that never fires. The rarest, a 29 February that is a
/// certain day of the week, fire at least every 40 years.
const YEARS: i64 = 40;
/// How many years `cronexpr` looks ahead at once.
const YEARS_AT_ONCE: i64 = 4;
/// Most wall-clock times that are tried for one firing: those that a clock shows twice are no more than a day's minutes.
const TRIES: usize = 2 * 24 * 60;
/// What the short names mean.
const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const FORM: &str = "write minute, hour, day of the month, month, day of the week, as in \"30 9 * * MON-FRI\"";

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    /// Its wall-clock times, as if they were of UTC.
    times: cronexpr::Crontab,
    zone: TimeZone,
}

impl Cron {
    /// Reads an expression: five fields of numbers, names, `*`, lists, ranges and steps, or a short name as `@daily`.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("{} bytes; the limit is {MAX_LENGTH}", text.len()));
        }
        let text = text.trim();
        let fields = match text.strip_prefix('@') {
            None => text.to_ascii_uppercase(),
            Some(_) => match MACROS.iter().find(|(name, _)| *name == text.to_ascii_lowercase()) {
                Some((_, fields)) => (*fields).to_owned(),
                None => return Err(format!("{text:?} is none of @hourly, @daily, @weekly, @monthly, @yearly")),
            },
        };
        // `cronexpr` also knows a time zone as sixth field, and `L`, `W`, `#`, `H`, which a CronJob does not
        let count = fields.split_ascii_whitespace().count();
        if count != 5 {
            return Err(format!("{text:?} has {count} fields, not 5: {FORM}"));
        }
        if !fields.split_ascii_whitespace().enumerate().all(|(place, field)| is_plain(field, place >= 3)) {
            return Err(format!("{text:?} is no cron expression: {FORM}"));
        }
        let times = cronexpr::parse_crontab(&format!("{fields} UTC"))
            .map_err(|error| format!("{text:?} is no cron expression ({}): {FORM}", reason(&error.to_string())))?;
        let cron = Self { text: text.to_owned(), times, zone };
        match cron.wall_after(SOME_TIME) {
            Some(_) => Ok(cron),
            None => Err(format!("{text:?} never fires: no month that it names has such a day")),
        }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of its time zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The first firing after `time`; `None` if it is beyond all times that can be told.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let mut wall = self.zone.to_datetime(time);
        for _ in 0..TRIES {
            wall = self.wall_after(wall)?;
            // the second time that the clock shows it, it fires no more
            let fires = self.moment(wall)?;
            if fires > time {
                return Some(fires);
            }
        }
        None
    }

    /// The first wall-clock time after `wall` that the expression names.
    fn wall_after(&self, wall: DateTime) -> Option<DateTime> {
        let mut from = TimeZone::UTC.to_timestamp(wall).ok()?;
        for _ in 0..YEARS / YEARS_AT_ONCE {
            if let Ok(found) = self.times.find_next(from) {
                return Some(found.datetime());
            }
            let later = TimeZone::UTC.to_datetime(from).checked_add(YEARS_AT_ONCE.years()).ok()?;
            from = TimeZone::UTC.to_timestamp(later).ok()?;
        }
        None
    }

    /// When the clock of the zone first shows `wall`; where it never does, when it jumps over it.
    fn moment(&self, wall: DateTime) -> Option<Timestamp> {
        let shown = self.zone.to_ambiguous_timestamp(wall);
        match shown.offset() {
            AmbiguousOffset::Gap { .. } => {
                // by the offset after the jump, the time lies before it
                let before = shown.earlier().ok()?;
                Some(self.zone.following(before).next()?.timestamp())
            }
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => shown.earlier().ok(),
        }
    }
}

/// Whether a field has only what that of a `CronJob` may have; whether names may stand in it.
fn is_plain(field: &str, named: bool) -> bool {
    let mut words = field.split(|letter: char| !letter.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let known = |letter: char| letter.is_ascii_alphanumeric() || "*,-/".contains(letter);
    field.chars().all(known) && words.all(|word| named && word.len() == 3)
}

/// A time from which every expression that ever fires does so within [`YEARS`].
const SOME_TIME: DateTime = DateTime::constant(2024, 1, 1, 0, 0, 0, 0);

/// The last line of a message of `cronexpr`: the others draw a picture.
fn reason(message: &str) -> &str {
    message.lines().last().unwrap_or_default().trim_start_matches([' ', '^'])
}

/// A time zone by its IANA name.
pub fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// The names of all time zones.
pub fn zones() -> Vec<String> {
    ZONES.available().map(|name| name.as_str().to_owned()).collect()
}

#[cfg(test)]
#[path = "tests/cron.rs"]
mod tests;
