//! Names of Jobs, and shards.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::api::{ROLE_VOLUME, SHARDS, is_dns_label};

/// The longest name of a Job whose pods can still carry it as a label.
pub const MAX_NAME: usize = 63;
/// Characters of the hash: 5 bits each, 60 in all.
const HASH_LENGTH: usize = 12;
/// What the API server allows for the names of most objects.
const MAX_OBJECT_NAME: usize = 253;
/// What Kubernetes adds for the last of 1,000 items: `-999`.
const INDEX_LENGTH: usize = 4;

/// The name of an attempt's Job: `GRAPH-TASK-ATTEMPT-HASH`, a DNS label of at most 63 characters.
///
/// The same attempt has the same name always, also after a restart; two attempts have different
/// names even where what can be read of them was cut to the same text, since the hash is over
/// everything uncut, with the graph's UID. `graph` and `task` must be DNS labels (see [`check`]).
pub fn job_name(graph: &str, graph_uid: &str, role: &str, task: &str, attempt: u32) -> String {
    shortened_name(graph, graph_uid, role, task, (attempt, None), MAX_NAME)
}

/// As [`job_name`], of one item of an attempt that has a Job, or child graph, for each.
pub fn item_job_name(graph: &str, graph_uid: &str, role: &str, task: &str, attempt: u32, item: u32) -> String {
    shortened_name(graph, graph_uid, role, task, (attempt, Some(item)), MAX_NAME)
}

/// As [`job_name`], of an Indexed Job: shorter, since the host name of each of its pods is the Job's name with the index.
pub fn indexed_job_name(graph: &str, graph_uid: &str, role: &str, task: &str, attempt: u32) -> String {
    shortened_name(graph, graph_uid, role, task, (attempt, None), MAX_NAME - INDEX_LENGTH)
}

fn shortened_name(
    graph: &str,
    graph_uid: &str,
    role: &str,
    task: &str,
    (attempt, item): (u32, Option<u32>),
    longest: usize,
) -> String {
    let mut hasher = hasher([graph, graph_uid, role, task]);
    hasher.update(&attempt.to_le_bytes());
    if let Some(item) = item {
        hasher.update(&item.to_le_bytes());
    }
    let hash = base32(hasher.digest());

    let number = attempt.to_string();
    let room = longest - HASH_LENGTH - number.len() - 3;
    let (graph, task) = share(graph, task, room);
    format!("{graph}-{task}-{number}-{hash}")
}

/// The name of the claim that a template of a graph stands for: `GRAPH-VOLUME-HASH`, a DNS label of at most 63
/// characters. As for Jobs, the same one always has the same name, and two have different ones.
pub fn claim_name(graph: &str, graph_uid: &str, volume: &str) -> String {
    let hash = base32(hasher([graph, graph_uid, ROLE_VOLUME, volume]).digest());
    let (graph, volume) = share(graph, volume, MAX_NAME - HASH_LENGTH - 2);
    format!("{graph}-{volume}-{hash}")
}

/// The name of an event about a graph: `GRAPH.HASH`, at most 253 characters. `mark` tells it from others of its reason: the
/// same event always has the same name.
pub fn event_name(graph: &str, graph_uid: &str, reason: &str, mark: &str) -> String {
    let hash = base32(hasher([graph, graph_uid, reason, mark]).digest());
    // a graph that is refused may have a name that is none
    let graph = graph[..graph.floor_char_boundary(MAX_OBJECT_NAME - HASH_LENGTH - 1)].trim_end_matches(['-', '.']);
    format!("{graph}.{hash}")
}

fn hasher(parts: [&str; 4]) -> Xxh3 {
    let mut hasher = Xxh3::new();
    for part in parts {
        // lengths keep ("ab", "c") and ("a", "bc") apart
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher
}

/// Cuts two names so that both fit into `room`; a short one leaves its rest to the other.
fn share<'a>(graph: &'a str, task: &'a str, room: usize) -> (&'a str, &'a str) {
    let half = room / 2;
    let for_graph = half.max(room.saturating_sub(task.len()));
    let graph = cut(graph, for_graph);
    (graph, cut(task, room - graph.len()))
}

/// At most the first `length` bytes, without a dash at the end.
fn cut(text: &str, length: usize) -> &str {
    text[..text.floor_char_boundary(length)].trim_end_matches('-')
}

/// The low 60 bits in twelve lower-case characters. No vowels but `a`, so that no words come up by chance.
pub(super) fn base32(mut bits: u64) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghjklmnpqrstvwxyz";
    (0..HASH_LENGTH)
        .map(|_| {
            let digit = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
            char::from(digit)
        })
        .collect()
}

/// The shard of a graph: 0 to 63, from its UID alone.
pub fn shard(graph_uid: &str) -> u64 {
    xxh3_64(graph_uid.as_bytes()) % SHARDS
}

/// What is wrong with a graph's name, if anything.
///
/// The API server allows 253 characters and dots in names of objects, but a graph's name becomes a
/// label of its Jobs and Pods and a part of their names.
pub fn check(name: &str) -> Option<String> {
    if name.len() > MAX_NAME {
        let length = name.len();
        return Some(format!(
            "has {length} characters; it becomes a label of the graph's Jobs, so at most {MAX_NAME} are allowed"
        ));
    }
    not_a_label(name)
}

/// Why a text is no DNS label, if it is none.
pub fn not_a_label(text: &str) -> Option<String> {
    if is_dns_label(text) {
        return None;
    }
    let shown: String = text.chars().take(70).collect();
    Some(format!(
        "{shown:?} is no DNS label: use 1 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const UID: &str = "8a2f6f0e-5a52-4d63-9d0d-7f3b8a1f2c11";

    #[test]
    fn readable_and_stable() {
        // pinned: a change would orphan the Jobs of running graphs when the operator is upgraded
        assert_eq!(job_name("data-processing", UID, "task", "extract", 1), "data-processing-extract-1-hcha2c7cpkml");
        assert_eq!(shard(UID), 47);
        let item = |place| item_job_name("data-processing", UID, "task", "extract", 1, place);
        assert!(
            item(0) != item(1)
                && item(0).starts_with("data-processing-extract-1-")
                && item(0) != job_name("data-processing", UID, "task", "extract", 1)
        );
        // where nothing was cut, the form of the Job does not show
        let name = indexed_job_name("data-processing", UID, "task", "extract", 1);
        assert_eq!(name, "data-processing-extract-1-hcha2c7cpkml");
    }

    #[test]
    fn shortened_names_stay_apart() {
        let long = "a".repeat(62);
        let names = ["b", "c"].map(|end| job_name(&long, UID, "task", &format!("{long}{end}"), 1));
        assert_ne!(names[0], names[1]);
        assert_eq!(names[0].len(), MAX_NAME);
        let indexed = indexed_job_name(&long, UID, "task", &long, u32::MAX);
        assert_eq!(check(&format!("{indexed}-999")), None);
        // a short task's name is never cut because the graph's is long
        assert!(job_name(&"g".repeat(63), UID, "task", "extract", 12).contains("-extract-12-"));
        assert_eq!(check(&job_name(&"a-".repeat(31), UID, "task", "x", u32::MAX)), None);
    }

    #[test]
    fn names_of_claims() {
        // pinned: under another name a running graph would find an empty volume
        assert_eq!(claim_name("data-processing", UID, "files"), "data-processing-files-2hbnb8239cfc");
        let long = "a".repeat(63);
        let name = claim_name(&long, UID, &long);
        assert!(name.len() <= MAX_NAME && check(&name).is_none(), "{name}");
        assert_ne!(claim_name("g", UID, "a-b"), claim_name("g-a", UID, "b"));
        assert_ne!(claim_name("g", UID, "a"), claim_name("g", "other", "a"));
    }

    #[test]
    fn checks_names() {
        for good in ["a", "0", "data-processing", &"x".repeat(63)] {
            assert_eq!(check(good), None);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(check(bad).is_some(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn same_attempt_same_name_different_attempt_different_name(
            attempts in proptest::collection::vec(("[a-c]{1,63}", "[ab]{0,3}", "(task|compensation)", "[a-c]{1,63}", 1..4u32), 2..40)
        ) {
            let mut seen = BTreeMap::new();
            for (graph, uid, role, task, number) in attempts {
                let name = job_name(&graph, &uid, &role, &task, number);
                prop_assert_eq!(check(&name), None);
                prop_assert_eq!(&name, &job_name(&graph, &uid, &role, &task, number));
                let attempt = (graph, uid, role, task, number);
                if let Some(other) = seen.insert(name, attempt.clone()) {
                    prop_assert_eq!(other, attempt);
                }
            }
        }

        #[test]
        fn never_panics(graph in ".*", uid in ".*", role in ".*", task in ".*", number: u32) {
            let name = job_name(&graph, &uid, &role, &task, number);
            prop_assert!(name.len() <= MAX_NAME);
            prop_assert!(shard(&uid) < SHARDS);
        }
    }
}
