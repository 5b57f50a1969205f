//! Names, and suggestions for those that are nearly right.

use std::collections::BTreeMap;

use super::super::graph::TaskId;
use crate::api::is_dns_label;

/// Longest DNS label.
const MAX_LABEL: usize = 63;
/// How many unknown tasks of one graph get a suggestion: each costs a look at every name.
const MAX_HINTS: usize = 50;

/// ` (did you mean "build"?)`, if one of `known` is near.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if name.len() > 2 * MAX_LABEL {
        return None;
    }
    let near = (name.chars().count() / 3).max(1);
    let lower = name.to_lowercase().replace('_', "-");
    let best = known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= near)
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase().replace('_', "-")), candidate))
        // a name that shares no letter is not near, however short
        .filter(|(distance, candidate)| *distance <= near && *distance < candidate.len().min(name.len()))
        .min()?;
    Some(format!(" (did you mean {:?}?)", best.1))
}

/// The names of all tasks.
pub struct Names<'a> {
    ids: BTreeMap<&'a str, TaskId>,
    hints_left: usize,
}

impl<'a> Names<'a> {
    /// Names with their ids.
    pub fn new(ids: BTreeMap<&'a str, TaskId>) -> Self {
        Self { ids, hints_left: MAX_HINTS }
    }

    /// The task of that name, or `no task "biuld" (did you mean "build"?)`.
    pub fn find(&mut self, name: &str) -> Result<TaskId, String> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let hint = if self.may_hint() { suggest(name, self.ids.keys().copied()) } else { None };
        Err(format!("no task {:?}{}", shorten(name), hint.unwrap_or_default()))
    }

    /// Whether one more suggestion may be made; counts it.
    pub fn may_hint(&mut self) -> bool {
        let may = self.hints_left > 0;
        self.hints_left = self.hints_left.saturating_sub(1);
        may
    }
}

/// The start of a name that may be of any length.
pub fn shorten(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    if short.len() < name.len() { format!("{short}…") } else { short }
}

/// What keeps `name` from being a DNS label.
pub fn label_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("the name is empty".to_owned())
    } else if name.len() > MAX_LABEL {
        Some(format!("the name {:?} has {} characters; the limit is {MAX_LABEL}", shorten(name), name.chars().count()))
    } else if !is_dns_label(name) {
        Some(format!(
            "{name:?} is no DNS label: write lower-case letters, digits and dashes, with a letter or digit at both ends"
        ))
    } else {
        None
    }
}

/// What keeps `name` from being the name of an output or parameter.
pub fn member_problem(name: &str) -> Option<String> {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if name.is_empty() {
        Some("the name is empty".to_owned())
    } else if name.len() > MAX_LABEL {
        Some(format!("the name {:?} has {} characters; the limit is {MAX_LABEL}", shorten(name), name.chars().count()))
    } else if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        Some(format!("{name:?} is no name: write a letter or _, then letters, digits, _ and dashes"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let known = ["build", "build-image", "test", "a"];
        for (name, hint) in [
            ("biuld", Some("build")),
            ("Build", Some("build")),
            ("build_image", Some("build-image")),
            ("tset", Some("test")),
            ("b", None),
            ("A", Some("a")),
            ("deploy", None),
            ("", None),
        ] {
            let expected = hint.map(|hint| format!(" (did you mean {hint:?}?)"));
            assert_eq!(suggest(name, known), expected, "{name}");
        }
        assert_eq!(suggest(&"b".repeat(1_000_000), known), None);
    }

    #[test]
    fn labels() {
        for good in ["a", "0", "a-b", "2nd-try"] {
            assert_eq!(label_problem(good), None);
        }
        for bad in ["", "A", "a_b", "-a", "a-", "ä", "a.b", "a b"] {
            assert!(label_problem(bad).is_some(), "{bad}");
        }
        assert_eq!(label_problem(&"a".repeat(63)), None);
        assert!(label_problem(&"a".repeat(64)).unwrap().contains("64 characters"));
        assert_eq!(member_problem("_rows-2"), None);
        assert!(
            member_problem("2rows").is_some()
                && member_problem("").is_some()
                && member_problem(&"r".repeat(64)).is_some()
        );
    }
}
