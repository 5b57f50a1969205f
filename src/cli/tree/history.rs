//! What somebody did to a graph, from its history.

use jiff::Timestamp;

use super::words;
use crate::{
    api::{HistoryEntry, TaskGraph},
    cli::text,
    engine::reason,
};

/// The most entries that are shown.
const MOST: usize = 5;
/// What the head of the picture tells anyway.
const ROUTINE: [&str; 3] = [reason::ACCEPTED, reason::COMPENSATING, reason::FINISHED];

/// The entries that tell more than the picture, the newest last.
pub fn deeds(graph: &TaskGraph) -> Vec<&HistoryEntry> {
    let history = graph.status.iter().flat_map(|status| &status.history);
    history.filter(|entry| !ROUTINE.contains(&entry.event.as_str())).collect()
}

/// `2m ago  Edited  added check; changed load`, for each of the last.
pub fn lines(graph: &TaskGraph, now: Timestamp) -> Vec<String> {
    let told = deeds(graph);
    let last = &told[told.len().saturating_sub(MOST)..];
    let ago = |entry: &HistoryEntry| format!("{} ago", words::duration(entry.time, now));
    let width = last.iter().map(|entry| text::width(&ago(entry))).max().unwrap_or(0);
    let line = |entry: &HistoryEntry| {
        let ago = ago(entry);
        format!("{}{ago}  {}", text::padding(&ago, width), deed(entry))
    };
    last.iter().map(|entry| line(entry)).collect()
}

/// `Edited by ann: added check; changed load`
pub fn deed(entry: &HistoryEntry) -> String {
    let by = entry.by.as_ref().map(|by| format!(" by {}", text::one_line(by))).unwrap_or_default();
    let message = entry.message.as_ref().map(|message| format!(": {}", text::one_line(message))).unwrap_or_default();
    format!("{}{by}{message}", text::one_line(&entry.event))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn graph(history: &[(&str, &str, &str)]) -> TaskGraph {
        let entry = |(time, event, message): &(&str, &str, &str)| -> Value {
            json!({"time": format!("2026-03-01T{time}Z"), "event": event, "message": message})
        };
        let history: Vec<Value> = history.iter().map(entry).collect();
        serde_json::from_value(json!({
            "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": {"tasks": []},
            "status": {"history": history},
        }))
        .unwrap()
    }

    #[test]
    fn tells_what_somebody_did() {
        let now = "2026-03-01T12:02:00Z".parse().unwrap();
        let history = [
            ("11:00:00", "Accepted", ""),
            ("11:01:00", "Edited", "added check;\nchanged load"),
            ("12:00:00", "Finished", "Complete"),
            ("12:01:48", "Rerun", "1: all, and what depends on it: 3 tasks"),
        ];
        assert_eq!(
            lines(&graph(&history), now),
            ["1h1m ago  Edited: added check; changed load", " 12s ago  Rerun: 1: all, and what depends on it: 3 tasks"]
        );
        assert!(lines(&graph(&history[..1]), now).is_empty());
        let mut named = graph(&history);
        named.status.as_mut().unwrap().history[1].by = Some("ann".into());
        assert_eq!(lines(&named, now)[0], "1h1m ago  Edited by ann: added check; changed load");
        let many: Vec<_> = (0..9).map(|_| ("12:00:00", "Edited", "x")).collect();
        assert_eq!(lines(&graph(&many), now).len(), MOST);
    }
}
