//! Claims of a graph, and where tasks mount them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Checker,
    names::{label_problem, shorten},
    problems::Problems,
};
use crate::{
    api::{Task, VolumeClaimTemplate, VolumeUse},
    engine::{
        graph::Work,
        payload::{
            PayloadKind,
            mounts::{Target, container_names, target},
            places,
            text::OPEN,
        },
    },
};

/// Most claims of a graph, and most mounts of a task.
const MAX: usize = 16;
/// Longest path, in bytes.
const MAX_PATH: usize = 1024;

/// Names of claims, and that no expression stands in them: they are made before any task runs.
pub fn check_claims(claims: &[VolumeClaimTemplate], problems: &mut Problems) {
    let path = "spec.volumeClaimTemplates";
    if claims.len() > MAX {
        problems.add(path, format!("{} claims; the limit is {MAX}", claims.len()));
    }
    let mut seen = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if let Some(problem) = label_problem(&claim.name) {
            problems.add(format!("{at}.name"), problem);
        } else if let Some(first) = seen.insert(claim.name.as_str(), index) {
            problems.add(
                format!("{at}.name"),
                format!("{:?} is the name of volumeClaimTemplates[{first}] already", claim.name),
            );
        }
        let Ok(json) = serde_json::to_value(claim) else { continue };
        for (below, _) in places::any_spots(&json) {
            problems
                .add(format!("{at}{below}"), "`${{ }}` may not stand in a claim, which is made before any task runs");
        }
    }
}

impl Checker<'_> {
    /// The mounts of a task: they name claims, and do not clash with what its pod has of its own.
    pub(super) fn volumes(&mut self, task: &Task, path: &str, work: Option<&Work>) {
        let problems = &mut self.problems;
        if task.volumes.len() > MAX {
            problems.add(format!("{path}.volumes"), format!("{} mounts; the limit is {MAX}", task.volumes.len()));
        }
        let claims = self.spec.volume_claim_templates.iter().map(|claim| claim.name.as_str());
        for (index, volume) in task.volumes.iter().enumerate() {
            let at = format!("{path}.volumes[{index}]");
            if !claims.clone().any(|claim| claim == volume.name) {
                let hint = problems.hint(&volume.name, claims.clone());
                let name = shorten(&volume.name);
                problems.add(format!("{at}.name"), format!("spec.volumeClaimTemplates has no {name:?}{hint}"));
            }
            check_paths(volume, &at, problems);
        }
        if let Some(Work::Job(payload)) = work {
            if task.template_ref.is_some() && !task.volumes.is_empty() {
                check_account(&payload.source, path, problems);
            }
            check_pod(&task.volumes, payload.kind, &payload.source, path, problems);
        }
    }
}

/// Whoever wrote a template was asked whether its pod may run as the account that it names. Whoever runs it was not, and could
/// mount programs of their own over those of its container.
fn check_account(source: &Value, path: &str, problems: &mut Problems) {
    let spec = &source["spec"];
    let account = ["serviceAccountName", "serviceAccount"].iter().find_map(|field| spec[*field].as_str());
    if let Some(account) = account.filter(|account| !matches!(*account, "" | "default")) {
        let message = format!(
            "the template's pod runs as the service account {:?}, and with it whatever is mounted into it: let the template \
             name its volumes itself, or leave the account out of it and write it in podDefaults",
            shorten(account)
        );
        problems.add(format!("{path}.volumes"), message);
    }
}

fn check_paths(volume: &VolumeUse, at: &str, problems: &mut Problems) {
    let paths = [("mountPath", Some(&volume.mount_path)), ("subPath", volume.sub_path.as_ref())];
    for (field, path) in paths.into_iter().filter_map(|(field, path)| path.map(|path| (field, path.as_str()))) {
        let climbs = path.split('/').any(|part| part == "..");
        let problem = if path.contains(OPEN) {
            "`${{ }}` may not stand in the path of a volume".to_owned()
        } else if path.len() > MAX_PATH {
            format!("{} bytes; the limit is {MAX_PATH}", path.len())
        } else if field == "mountPath" && (!path.starts_with('/') || path.contains(':') || climbs || path == "/") {
            format!("{path:?} is no place for a volume: write an absolute path below / without `..` and `:`")
        } else if field == "subPath" && (path.is_empty() || path.starts_with('/') || climbs) {
            format!("{path:?} is no folder of a volume: write a relative path without `..`")
        } else {
            continue;
        };
        problems.add(format!("{at}.{field}"), problem);
    }
}

/// What a container mounts where, as far as it is known.
type Mounts<'a> = BTreeMap<(Option<Target>, &'a str), String>;

/// The mounts of a task against the pod that it writes itself.
fn check_pod(volumes: &[VolumeUse], kind: PayloadKind, source: &Value, path: &str, problems: &mut Problems) {
    let null = Value::Null;
    let (metadata, spec) = match kind {
        PayloadKind::Container => (&null, &null),
        PayloadKind::PodTemplate => (source.get("metadata").unwrap_or(&null), source.get("spec").unwrap_or(&null)),
    };
    let own: BTreeSet<&str> = items(spec, "volumes").filter_map(|volume| volume.get("name")?.as_str()).collect();
    let mut mounts = own_mounts(spec);
    for (index, volume) in volumes.iter().enumerate() {
        let at = format!("{path}.volumes[{index}]");
        if own.contains(volume.name.as_str()) {
            let message = format!("the pod template has a volume {:?} of its own: give one another name", volume.name);
            problems.add(format!("{at}.name"), message);
        }
        let wanted = volume.container.as_deref();
        let place = target(metadata, spec, wanted);
        if let Some(name) = wanted.filter(|_| place.is_none()) {
            let hint = problems.hint(name, container_names(spec));
            let message = match kind {
                PayloadKind::Container => "a task with `container` has only the one: leave it out".to_owned(),
                PayloadKind::PodTemplate => format!("the pod template has no container {:?}{hint}", shorten(name)),
            };
            problems.add(format!("{at}.container"), message);
            continue;
        }
        let mount = normal(&volume.mount_path);
        if let Some(other) = mounts.insert((place, mount), format!("volumes[{index}]")) {
            problems.add(format!("{at}.mountPath"), format!("{other} is mounted at {mount:?} already"));
        }
    }
}

fn own_mounts(spec: &Value) -> Mounts<'_> {
    let mut mounts = Mounts::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, list).enumerate() {
            for mount in items(container, "volumeMounts") {
                let text = |key: &str| mount.get(key).and_then(Value::as_str);
                let (Some(path), Some(name)) = (text("mountPath"), text("name")) else { continue };
                let what = format!("volume {:?} of the pod template", shorten(name));
                mounts.insert((Some(Target { list, index }), normal(path)), what);
            }
        }
    }
    mounts
}

/// A path without slashes at its end: the same place.
fn normal(path: &str) -> &str {
    path.trim_end_matches('/')
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}
