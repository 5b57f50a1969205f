//! docs/reasons.md has every reason of the code, with its cure, and no other.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::objects::{files_below, read, relative, root};

/// Words of the code that look like reasons and are none: kinds, types, values of fields, words that Kubernetes says.
const OTHERS: &str = "
    Accept AlreadyExists Always AppArmorProfile Background BackoffLimitExceeded CloudEvents Cluster
    ClusterTrustBundleProjection ConfigMap ConfigMapKeySelector ContainerCreating ContainerPort ContainerResizePolicy
    ControllerRevision DeleteOptions DisruptionTarget DownwardAPIVolumeFile Edit Ei EnvVar Event FailJob FailedIndexes
    FallbackToLogsOnError False File Finish Foreground Gi HostAlias HostPathVolumeSource IfNotPresent Ignore Indexed Job
    KeyToPath Ki LabelSelectorRequirement Launch MaxFailedIndexesExceeded Mi Never NodeSelector NodeSelectorRequirement
    Normal ObjectFieldSelector PersistentVolumeClaim PersistentVolumeClaimTemplate PersistentVolumeClaimVolumeSource Pi
    Pod PodAffinityTerm PodFailurePolicy PodInitializing PodOS PodReadinessGate PodResourceClaim PodScheduled
    PodSchedulingGate PodSpec PreferredSchedulingTerm Quantity ReadOnlyMany ReadWriteMany ReadWriteOnce ReadWriteOncePod
    ResourceClaim ResourceFieldSelector Run SeccompProfile SecretKeySelector ServiceAccountTokenProjection SleepAction
    Succeeded Sysctl Task TaskGraph Ti TopologySpreadConstraint True TypedLocalObjectReference TypedObjectReference
    Volume VolumeDevice VolumeMount Warning WeightedPodAffinityTerm";

/// Every literal of the code that is one word in camel case, and where it stands.
fn words() -> BTreeMap<String, String> {
    let word = Regex::new(r#""([A-Z][a-z]+(?:[A-Z][A-Za-z]*)*)""#).unwrap();
    let tests = Regex::new(r"#\[cfg\(test\)\]\n(?:pub\S* )?mod tests \{").unwrap();
    let mut found = BTreeMap::new();
    for folder in ["src/engine", "src/jobs", "src/controller"] {
        for path in files_below(folder, &["rs"]) {
            if path
                .components()
                .any(|part| ["tests", "tests.rs", "fuzz.rs"].iter().any(|name| part.as_os_str() == *name))
            {
                continue;
            }
            let text = read(&path);
            let code = tests.split(&text).next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let of_line = word.captures_iter(line).map(|found| found[1].to_owned());
                found.extend(of_line.map(|word| (word, relative(&path))));
            }
        }
    }
    found
}

/// The rows of the page: reason, meaning, cure.
fn rows() -> Vec<[String; 3]> {
    let page = read(&root().join("docs/reasons.md"));
    let row = Regex::new(r"(?m)^\| `(\w+)` \| (.+?) \| (.+?) \|$").unwrap();
    row.captures_iter(&page).map(|row| [1, 2, 3].map(|cell| row[cell].to_owned())).collect()
}

#[test]
fn the_page_has_every_reason_of_the_code_and_no_other() {
    let others: BTreeSet<_> = OTHERS.split_whitespace().collect();
    let words = words();
    let stray: Vec<_> = others.iter().filter(|word| !words.contains_key(**word)).collect();
    assert!(stray.is_empty(), "the code does not say {stray:?} any more: take them out of OTHERS");
    let rows = rows();
    let told: BTreeSet<_> = rows.iter().map(|[reason, ..]| reason.as_str()).collect();
    assert_eq!(told.len(), rows.len(), "a reason stands there twice");
    let missing: BTreeMap<_, _> =
        words.iter().filter(|(word, _)| !others.contains(word.as_str()) && !told.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "docs/reasons.md lacks {missing:#?}; what is no reason goes into OTHERS");
    let invented: Vec<_> = told.iter().filter(|reason| !words.contains_key(**reason)).collect();
    assert!(invented.is_empty(), "the code never says {invented:?}");
}

#[test]
fn every_reason_has_a_meaning_and_a_cure() {
    for [reason, meaning, cure] in rows() {
        assert!(meaning.ends_with(['.', ')']) && cure.ends_with('.'), "{reason}: {meaning} {cure}");
    }
}
