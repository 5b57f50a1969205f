//! The claims of a graph: made before its first Job, and looked at before each Job that mounts one.
//!
//! A claim that is gone takes its files with it. So its UID is stored before any task runs, and a claim that is missing
//! or another one later is never made anew: a task would find an empty volume where others had left their files.

use super::{
    accept::AcceptError,
    cluster::{CallError, Cluster, Stored},
    report::{VOLUME_REFUSED, VOLUME_TAKEN, Verdict},
};
use crate::{
    api::{VolumeClaimTemplate, VolumeStatus},
    engine::Identity,
    jobs::{name::claim_name, volumes},
};

/// The reason of an attempt whose claim is not the one that was made for the graph.
pub const VOLUME_LOST: &str = "VolumeLost";

/// Asks the API server whether it would take the claims, before the graph is accepted: until then its user can mend them.
///
/// # Errors
/// If the API server gives no answer.
pub async fn rehearse(
    cluster: &Cluster,
    graph: &Identity,
    templates: &[VolumeClaimTemplate],
) -> Result<Option<Verdict>, AcceptError> {
    for (index, template) in templates.iter().enumerate() {
        match cluster.create_claim(&graph.namespace, &volumes::claim(graph, template), true).await {
            Ok(_) => {}
            // whose it is shows when it is made
            Err(error) if error.is_conflict() => {}
            Err(error) => return refused(index, template, error).map(Some),
        }
    }
    Ok(None)
}

/// Makes the claims that are not `known` yet, and adds them there. `Some`: why one cannot be made for now.
///
/// What is added must be stored before a Job mounts it.
///
/// # Errors
/// If the API server gives no answer.
pub async fn provide(
    cluster: &Cluster,
    graph: &Identity,
    templates: &[VolumeClaimTemplate],
    known: &mut Vec<VolumeStatus>,
) -> Result<Option<Verdict>, AcceptError> {
    for (index, template) in templates.iter().enumerate() {
        if known.iter().any(|volume| volume.name == template.name) {
            continue;
        }
        let claim = claim_name(&graph.name, &graph.uid, &template.name);
        let made = match cluster.create_claim(&graph.namespace, &volumes::claim(graph, template), false).await {
            Ok(made) => made,
            Err(error) if error.is_conflict() => match meet_existing(cluster, graph, template, &claim).await? {
                Ok(existing) => existing,
                Err(verdict) => return Ok(Some(verdict)),
            },
            Err(error) => return refused(index, template, error).map(Some),
        };
        known.push(VolumeStatus { name: template.name.clone(), claim, uid: made.metadata.uid.unwrap_or_default() });
    }
    Ok(None)
}

/// A claim of that name is there: ours, made before a restart or by another operator, or somebody else's.
async fn meet_existing(
    cluster: &Cluster,
    graph: &Identity,
    template: &VolumeClaimTemplate,
    claim: &str,
) -> Result<Result<Stored, Verdict>, AcceptError> {
    let existing = cluster
        .get_claim(&graph.namespace, claim)
        .await
        .map_err(|error| AcceptError::Call("read a PersistentVolumeClaim", error))?;
    Ok(if !volumes::is_ours(graph, &template.name, &existing.metadata) {
        Err(Verdict::Refused(
            VOLUME_TAKEN,
            format!(
                "a PersistentVolumeClaim named {claim} that is not this graph's stands in the way of volume {:?}; delete it",
                template.name
            ),
        ))
    } else if existing.metadata.deletion_timestamp.is_some() {
        Err(Verdict::Waiting(VOLUME_REFUSED, format!("the PersistentVolumeClaim {claim} is being deleted")))
    } else {
        Ok(existing)
    })
}

/// What the API server's refusal of a claim means. Without a clear answer the whole is tried again.
fn refused(index: usize, template: &VolumeClaimTemplate, error: CallError) -> Result<Verdict, AcceptError> {
    let CallError::Api { code, message, .. } = &error else {
        return Err(AcceptError::Call("create a PersistentVolumeClaim", error));
    };
    let message = format!("spec.volumeClaimTemplates[{index}] ({}): {message}", template.name);
    match code {
        400 | 413 | 422 => Ok(Verdict::Refused(VOLUME_REFUSED, message)),
        // a quota, a policy, missing rights, a namespace that goes away: all may pass
        403 | 404 => Ok(Verdict::Waiting(VOLUME_REFUSED, message)),
        _ => Err(AcceptError::Call("create a PersistentVolumeClaim", error)),
    }
}

/// Why the claims that a task mounts are not those that were made for the graph, if they are not.
///
/// # Errors
/// If the API server gives no answer.
pub async fn lost(cluster: &Cluster, namespace: &str, mounted: &[VolumeStatus]) -> Result<Option<String>, CallError> {
    for VolumeStatus { name, claim, uid } in mounted {
        let what = match cluster.get_claim(namespace, claim).await {
            Ok(found) if found.metadata.uid.as_deref() != Some(uid) => "was deleted, and another one has its name",
            Ok(found) if found.metadata.deletion_timestamp.is_some() => "is being deleted",
            Ok(_) => continue,
            Err(error) if error.is_not_found() => "was deleted",
            Err(error) => return Err(error),
        };
        return Ok(Some(format!(
            "the PersistentVolumeClaim {claim} of volume {name} {what}, and with it what tasks left there"
        )));
    }
    Ok(None)
}
