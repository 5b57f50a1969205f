//! What would be logged at every try, told once a minute: a sink or a collector may be away for days.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often it is told again.
const PERIOD: Duration = Duration::from_mins(1);

/// Whether it is time to tell something once more.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// How often it happened since then.
    silent: u64,
    /// That it is over was not told yet.
    open: bool,
}

impl Seldom {
    /// It happened. `Some`: tell it, and that it happened so many times more since it was told last.
    pub fn tell(&self) -> Option<u64> {
        self.tell_at(Instant::now())
    }

    fn tell_at(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock();
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            told.silent = told.silent.saturating_add(1);
            return None;
        }
        told.last = Some(now);
        told.open = true;
        Some(std::mem::take(&mut told.silent))
    }

    /// It is over. True: tell so, since it was told that it is so, and not that it is over.
    pub fn over(&self) -> bool {
        std::mem::take(&mut self.0.lock().open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_once_a_minute() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        assert!(!seldom.over(), "it has not happened");
        assert_eq!(seldom.tell_at(begin), Some(0));
        assert!(seldom.over() && !seldom.over());
        for second in 1..60 {
            assert_eq!(seldom.tell_at(begin + Duration::from_secs(second)), None);
            assert!(!seldom.over(), "nor that it is over");
        }
        assert_eq!(seldom.tell_at(begin + PERIOD), Some(59));
        assert!(seldom.over());
    }
}
