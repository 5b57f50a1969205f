//! What the tree says of one task or graph, in words.

use jiff::{Timestamp, Unit};
use serde_json::Value;

use crate::{
    api::{CONDITION_ACCEPTED, CONDITION_STALLED, FailedAttempt, ItemsStatus, TaskGraph, TaskPhase, TaskStatus},
    cli::text,
    engine::reason::APPROVAL_PENDING,
};

/// The most columns of one output's value.
const MAX_VALUE: usize = 24;
/// The most outputs that are looked at.
const MAX_OUTPUTS: usize = 16;

/// A length of time in two units at most: `4.2s`, `1m12s`, `3d4h`.
pub fn duration(from: Timestamp, to: Timestamp) -> String {
    let millis = to.as_millisecond().saturating_sub(from.as_millisecond()).max(0);
    let seconds = millis / 1000;
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        0 if millis < 100 => format!("{millis}ms"),
        0..10 => format!("{seconds}.{}s", millis % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// How long a task took, has run or waited, or until it goes on.
pub fn task_time(status: &TaskStatus, now: Timestamp) -> String {
    match (status.phase, status.start_time, status.completion_time, status.wake_at) {
        (TaskPhase::Retrying | TaskPhase::Waiting, _, _, Some(wake_at)) => format!("in {}", duration(now, wake_at)),
        (TaskPhase::Running | TaskPhase::Waiting, Some(start), ..) => duration(start, now),
        (phase, Some(start), Some(end), _) if phase.is_final() => duration(start, end),
        _ => String::new(),
    }
}

/// `items 7/10, failed 3`
fn items(items: &ItemsStatus) -> String {
    let failed = if items.failed > 0 { format!(", failed {}", items.failed) } else { String::new() };
    format!("items {}/{}{failed}", items.succeeded, items.total)
}

/// `took good`, `took good, large`, `rows=1000 quality=0.97`, or `items 7/10, failed 3`; of a child graph also its name and
/// how far it is.
pub fn result(status: &TaskStatus) -> Option<String> {
    let taken: Vec<String> = status.taken().map(text::one_line).collect();
    let branch = (!taken.is_empty()).then(|| format!("took {}", taken.join(", ")));
    let outputs = status.outputs.iter().take(MAX_OUTPUTS).map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // cut before cleaning: an output may be 4 KiB of text
        let value: String = value.chars().take(4 * MAX_VALUE).collect();
        format!("{}={}", text::one_line(name), text::cut(&text::one_line(&value), MAX_VALUE))
    });
    let child = status.progress.as_ref().map(|progress| {
        let name = status.job.as_deref().unwrap_or_default();
        text::one_line(format!("graph {name} {progress}").as_str())
    });
    let items = status.items.as_ref().map(items);
    let words: Vec<String> = branch.into_iter().chain(child).chain(items).chain(outputs).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Why a task is where it is, where that needs a reason, and whether that is of a spec that was changed since.
pub fn why(status: &TaskStatus) -> Option<String> {
    let stale = status.stale.then(|| "stale".to_owned());
    let words: Vec<String> = stale.into_iter().chain(cause(status)).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn cause(status: &TaskStatus) -> Option<String> {
    if status.phase == TaskPhase::Waiting {
        return Some(waits_for(status));
    }
    let attempt = status
        .failed_attempts
        .last()
        .filter(|_| matches!(status.phase, TaskPhase::Failed | TaskPhase::Retrying | TaskPhase::Cancelled))
        .map(|attempt| failed_attempt(attempt, status.attempts));
    let mut words = Vec::new();
    for word in [status.reason.as_deref(), status.message.as_deref()].into_iter().flatten() {
        let word = text::one_line(word);
        // a message that repeats the attempt's, or a reason that the attempt names too, says nothing new
        if !word.is_empty() && !attempt.as_ref().is_some_and(|attempt| attempt.contains(&word)) {
            words.push(word);
        }
    }
    words.extend(attempt);
    (!words.is_empty()).then(|| words.join(": "))
}

/// `until 2027-01-31T09:00:00Z`, or `for an approval of attempt 2, until ...`
fn waits_for(status: &TaskStatus) -> String {
    // nobody waits for a millisecond
    let until = status.wake_at.and_then(|time| time.round(Unit::Second).ok()).map(|time| format!("until {time}"));
    if status.reason.as_deref() != Some(APPROVAL_PENDING) {
        return until.unwrap_or_default();
    }
    let asked = format!("for an approval of attempt {}", status.attempts);
    let failed = status.failed_attempts.last().map(|failed| failed_attempt(failed, status.attempts));
    [Some(asked), until, failed].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// `attempt 2: exit code 1: Error: message`
fn failed_attempt(attempt: &FailedAttempt, attempts: u32) -> String {
    let number = (attempts > 1).then(|| format!("attempt {}", attempt.attempt));
    let exit_code = attempt.exit_code.map(|code| format!("exit code {code}"));
    let reason = Some(text::one_line(&attempt.reason));
    let message = attempt.message.as_deref().map(text::one_line);
    let words: Vec<String> =
        [number, exit_code, reason, message].into_iter().flatten().filter(|word| !word.is_empty()).collect();
    words.join(": ")
}

/// Why a graph is not accepted.
pub struct Refusal {
    /// Something is wrong with the graph itself; otherwise it waits for something.
    pub refused: bool,
    /// A word for programs.
    pub reason: String,
    /// Each problem.
    pub problems: Vec<String>,
}

/// Why a graph is not accepted, if it is not.
pub fn refusal(graph: &TaskGraph) -> Option<Refusal> {
    let status = graph.status.as_ref()?;
    let accepted = status.conditions.iter().find(|condition| condition.type_ == CONDITION_ACCEPTED)?;
    (accepted.status == "False").then(|| Refusal {
        refused: status.holds(CONDITION_STALLED).is_some(),
        reason: text::one_line(&accepted.reason),
        problems: problems(&accepted.message),
    })
}

/// The problems of a message, one a line.
fn problems(message: &str) -> Vec<String> {
    message.lines().map(text::one_line).filter(|problem| !problem.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_durations() {
        let from = Timestamp::from_millisecond(1_000_000).unwrap();
        for (millis, text) in [
            (-5, "0ms"),
            (20, "20ms"),
            (120, "0.1s"),
            (4_250, "4.2s"),
            (42_900, "42s"),
            (60_000, "1m"),
            (72_000, "1m12s"),
            (3_600_000 + 720_000, "1h12m"),
            (3 * 86_400_000 + 4 * 3_600_000, "3d4h"),
        ] {
            assert_eq!(duration(from, Timestamp::from_millisecond(1_000_000 + millis).unwrap()), text);
        }
    }

    #[test]
    fn takes_a_message_apart() {
        assert_eq!(problems("spec.a: x; y\nspec.b: z"), ["spec.a: x; y", "spec.b: z"]);
        assert_eq!(problems("waits for TaskTemplate \"extract\""), ["waits for TaskTemplate \"extract\""]);
        assert!(problems("").is_empty());
    }
}
