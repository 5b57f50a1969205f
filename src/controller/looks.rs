//! When to look into the attempts whose Job has no pod: it may be a lagging watch, or a pod that cannot be made.
//!
//! For one Job's events or pods the API server reads all of the namespace, and where a burst of Jobs waits for its
//! pods, it is busy already. So nothing is looked into while the burst is seen to move, up to a limit, and only few at
//! a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::engine::Attempt;

/// A Job that has no pod for so long is looked into, if no other pod of the graph came up meanwhile.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// A Job that has no pod for so long is looked into whatever the others do.
const PATIENCE: Duration = Duration::from_secs(8);
/// And again, until it has one.
const NEXT_LOOK: Duration = Duration::from_secs(10);
/// So many at a time of one graph.
const AT_ONCE: usize = 4;
/// Those beyond that come so much later.
const LATER: Duration = Duration::from_secs(1);

/// The attempts of one graph whose Job may have no pod.
#[derive(Debug, Default)]
pub struct Looks {
    pending: BTreeMap<Attempt, Pending>,
    by_time: BTreeSet<(Instant, Attempt)>,
    /// Attempts that are being looked into.
    under_way: BTreeSet<Attempt>,
    /// When a pod of the graph was last seen to come up or end.
    moved: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    since: Instant,
    at: Instant,
}

impl Looks {
    /// Waits for the pod of an attempt. One that is waited for already is not put off.
    pub fn expect(&mut self, attempt: Attempt, now: Instant) {
        if !self.pending.contains_key(&attempt) {
            self.set(attempt, Pending { since: now, at: now + FIRST_LOOK });
        }
    }

    /// Looks soon, whatever was planned: the Job ended, and a pod should be there.
    pub fn hasten(&mut self, attempt: Attempt, now: Instant) {
        let at = now + FIRST_LOOK;
        match self.pending.get(&attempt) {
            Some(pending) if pending.at <= at => {}
            Some(pending) => self.set(attempt, Pending { at, ..*pending }),
            None => self.set(attempt, Pending { since: now, at }),
        }
    }

    /// The pod of an attempt came up, or the attempt ended.
    pub fn settle(&mut self, attempt: Attempt, now: Instant) {
        self.moved = Some(now);
        self.forget(attempt);
    }

    /// Nothing is expected of an attempt any more.
    pub fn forget(&mut self, attempt: Attempt) {
        if let Some(pending) = self.pending.remove(&attempt) {
            self.by_time.remove(&(pending.at, attempt));
        }
    }

    /// A look came to its end.
    pub fn done(&mut self, attempt: Attempt) {
        self.under_way.remove(&attempt);
    }

    /// When the next look is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The attempts to look into now, those that wait the longest first. `waits`: whether an attempt is live and still
    /// without a pod. Each is under way until [`Looks::done`], and due again after a while.
    pub fn take_due(&mut self, now: Instant, waits: impl Fn(Attempt) -> bool) -> Vec<Attempt> {
        let mut due = Vec::new();
        while let Some(&(at, attempt)) = self.by_time.first()
            && at <= now
        {
            self.by_time.pop_first();
            let Some(pending) = self.pending.remove(&attempt) else { continue };
            if !waits(attempt) {
                continue;
            }
            let again = self.put_off(pending, now).unwrap_or_else(|| {
                if self.under_way.contains(&attempt) {
                    now + NEXT_LOOK
                } else if self.under_way.len() >= AT_ONCE {
                    now + LATER
                } else {
                    self.under_way.insert(attempt);
                    due.push(attempt);
                    now + NEXT_LOOK
                }
            });
            self.set(attempt, Pending { at: again, ..pending });
        }
        due
    }

    /// Until when a look waits since the burst is seen to move.
    fn put_off(&self, pending: Pending, now: Instant) -> Option<Instant> {
        let quiet = self.moved? + FIRST_LOOK;
        let limit = pending.since + PATIENCE;
        let until = quiet.min(limit);
        (until > now).then_some(until)
    }

    fn set(&mut self, attempt: Attempt, pending: Pending) {
        self.forget(attempt);
        self.pending.insert(attempt, pending);
        self.by_time.insert((pending.at, attempt));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TaskId;

    fn attempt(task: u32) -> Attempt {
        Attempt::new(TaskId(task), 1)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_job_without_a_pod_is_looked_into_again_and_again() {
        let (mut looks, begin) = (Looks::default(), Instant::now());
        looks.expect(attempt(0), begin);
        assert!(looks.take_due(begin + seconds(1.9), |_| true).is_empty());
        assert_eq!(looks.take_due(begin + seconds(2.0), |_| true), [attempt(0)]);
        looks.done(attempt(0));
        assert_eq!(looks.next(), Some(begin + seconds(12.0)));
        assert_eq!(looks.take_due(begin + seconds(12.0), |_| true), [attempt(0)]);
        // the look is still under way: no second one beside it
        assert!(looks.take_due(begin + seconds(22.0), |_| true).is_empty());
        assert!(looks.take_due(begin + seconds(32.0), |_| false).is_empty());
        assert_eq!(looks.next(), None, "it has a pod, or is over");
    }

    #[test]
    fn nothing_is_looked_into_while_a_burst_moves_but_for_so_long_only() {
        let (mut looks, begin) = (Looks::default(), Instant::now());
        looks.expect(attempt(0), begin);
        looks.expect(attempt(1), begin);
        looks.settle(attempt(1), begin + seconds(1.5));
        assert!(looks.take_due(begin + seconds(2.0), |_| true).is_empty());
        assert_eq!(looks.next(), Some(begin + seconds(3.5)));
        for second in 2..8 {
            let now = begin + seconds(f64::from(second));
            looks.settle(attempt(1), now);
            assert!(looks.take_due(now, |_| true).is_empty(), "{second} s");
        }
        assert_eq!(looks.take_due(begin + PATIENCE, |_| true), [attempt(0)]);
    }

    #[test]
    fn a_few_at_a_time() {
        let (mut looks, begin) = (Looks::default(), Instant::now());
        for task in 0..6 {
            looks.expect(attempt(task), begin);
        }
        let first = looks.take_due(begin + FIRST_LOOK, |_| true);
        assert_eq!(first.len(), AT_ONCE);
        for attempt in first {
            looks.done(attempt);
        }
        assert_eq!(looks.take_due(begin + FIRST_LOOK + LATER, |_| true), [attempt(4), attempt(5)]);
    }

    #[test]
    fn an_ended_job_is_not_waited_for_longer() {
        let (mut looks, begin) = (Looks::default(), Instant::now());
        looks.expect(attempt(0), begin);
        looks.take_due(begin + FIRST_LOOK, |_| true);
        looks.done(attempt(0));
        looks.hasten(attempt(0), begin + seconds(3.0));
        assert_eq!(looks.next(), Some(begin + seconds(5.0)));
        looks.hasten(attempt(0), begin + seconds(4.0));
        assert_eq!(looks.next(), Some(begin + seconds(5.0)), "not put off");
    }
}
