//! What docs/gitops.md says of drift, of two managers, and of pruning.

use std::time::Duration;

use anyhow::Result;
use http::Method;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use taskgraph::api::{MANAGER, TaskGraph};

use crate::{
    fixture::{Fixture, container, task},
    support::{
        Play,
        namespace::{finished, line},
    },
};

/// A graph as a manager applies it.
fn applied(spec: &Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": spec,
    }))
}

#[tokio::test]
async fn two_managers_apply_and_the_operator_does_not_drift() -> Result<()> {
    let fixture = Fixture::new("managers", |_, _| Play::succeeds("")).await?;
    let graphs = fixture.namespace.graphs();
    let (ann, bob) = (PatchParams::apply("ann"), PatchParams::apply("bob"));
    let hers = json!({"tasks": [task("first", &[])]});
    let his = json!({"parallelism": 2, "tasks": [task("second", &["first"])]});
    graphs.patch("g", &ann, &applied(&hers)).await?;
    graphs.patch("g", &bob, &applied(&his)).await?;
    let both =
        |graph: &TaskGraph| graph.status.as_ref().is_some_and(|status| status.progress.as_deref() == Some("2/2"));
    let graph = fixture.namespace.until("g", "both tasks have ended", both).await;
    let names: Vec<_> = graph.spec.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!((names, graph.spec.parallelism), (vec!["first", "second"], Some(2)));

    // applied once more nothing changes
    fixture.namespace.until_finished("g").await;
    let before = graphs.get("g").await?;
    for (manager, spec) in [(&ann, &hers), (&bob, &his)] {
        let after = graphs.patch("g", manager, &applied(spec)).await?;
        assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    }
    // what the other owns is not taken unasked
    let mut taken = json!({"name": "first", "container": container()});
    taken["container"]["image"] = json!("localhost/busybox:2");
    let refused = graphs.patch("g", &bob, &applied(&json!({"tasks": [taken]}))).await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409 && status.message.contains("\"ann\"")),
        "{refused:?}"
    );
    // the operator owns the status and nothing else
    let managers: Vec<_> = before
        .managed_fields()
        .iter()
        .map(|entry| (entry.manager.as_deref().unwrap_or_default(), entry.subresource.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(managers.iter().filter(|(name, _)| *name == MANAGER).collect::<Vec<_>>(), [&(MANAGER, "status")]);
    assert_eq!(managers.len(), 3, "{managers:?}");
    assert!(before.finalizers().is_empty() && before.annotations().is_empty() && before.labels().is_empty());

    // who names a task no more gives it up
    graphs.patch("g", &bob, &applied(&json!({"parallelism": 2}))).await?;
    let names: Vec<_> = graphs.get("g").await?.spec.tasks.into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["first"]);
    Ok(())
}

/// Whatever a user's graph goes through, the operator writes its status and nothing else of it.
#[tokio::test]
async fn the_operator_never_writes_what_was_applied() -> Result<()> {
    let fixture = Fixture::new("unwritten", |task, attempt| match (task, attempt) {
        ("flaky", 1) => Play::fails(1),
        _ => Play::succeeds(""),
    })
    .await?;
    let namespace = &fixture.namespace;
    namespace.create_template("inner", json!({"graph": {"tasks": [task("a", &[])]}})).await?;
    let mut flaky = task("flaky", &[]);
    flaky["retry"] = json!({"limit": 1, "backoff": {"initial": "20ms"}});
    let child = json!({"name": "child", "dependsOn": ["flaky"], "templateRef": {"name": "inner"}});
    let graph = fixture.run("g", json!({"tasks": [flaky, child]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let more = json!({"rerun": {"id": "once", "scope": "All"}, "parallelism": 2});
    namespace.edit("g", more).await?;
    let again = |graph: &TaskGraph| graph.status.as_ref().is_some_and(|status| status.rerun.as_deref() == Some("once"));
    namespace.until("g", "rerun", |graph| again(graph) && finished(graph).is_some()).await;
    namespace.edit("g", json!({"desiredState": "Suspend", "tasks": [task("new", &[])]})).await?;
    namespace.until("g", "suspended", |graph| crate::support::namespace::holds(graph, "Suspended")).await;
    namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    namespace.until("g", "cancelled", |graph| finished(graph) == Some("Failed")).await;

    let writes = fixture.proxy.writes();
    let of_graphs = |resource: &str| -> Vec<_> {
        writes.iter().filter(|write| write.call.resource == resource).map(|write| &write.call).collect()
    };
    assert!(of_graphs("taskgraphs/status").len() > 3);
    for call in of_graphs("taskgraphs") {
        let child = call.name != "g";
        assert!(child && [Method::POST, Method::PATCH, Method::DELETE].contains(&call.verb), "{call:?}");
    }
    Ok(())
}

/// A status that speaks of this generation speaks of nothing before it: no tool takes a run that begins once more for one
/// that has ended.
#[tokio::test]
async fn a_generation_is_observed_together_with_what_it_leads_to() -> Result<()> {
    let fixture = Fixture::new("observed", |task, attempt| match (task, attempt) {
        ("flaky", 1) => Play::fails(1),
        _ => Play::succeeds("").after(Duration::from_millis(300)),
    })
    .await?;
    let namespace = &fixture.namespace;
    let graph = fixture.run("g", json!({"tasks": [task("flaky", &[])]})).await?;
    assert_eq!(finished(&graph), Some("Failed"));
    let edits = [
        (json!({"rerun": {"id": "once", "scope": "Failed"}}), "flaky=Succeeded/2"),
        (json!({"tasks": [task("flaky", &[]), task("more", &[])]}), "flaky=Succeeded/2 more=Succeeded/1"),
        (json!({"rerun": {"id": "twice", "scope": "All"}}), "flaky=Succeeded/3 more=Succeeded/2"),
    ];
    for (generation, (edit, expected)) in (2..).zip(edits) {
        let seen = Mutex::new(Vec::new());
        let done = |graph: &TaskGraph| {
            let observed = graph.status.as_ref().and_then(|status| status.observed_generation) == Some(generation);
            if observed {
                seen.lock().push((finished(graph), line(graph)));
            }
            observed && finished(graph).is_some()
        };
        let (_, edited) = tokio::join!(namespace.until("g", "finished once more", done), namespace.edit("g", edit));
        edited?;
        let seen = seen.into_inner();
        assert!(seen.len() > 1, "{seen:?}");
        assert_eq!(seen.last(), Some(&(Some("Complete"), expected.to_owned())), "{seen:?}");
    }
    Ok(())
}

/// How tools delete what is no longer in Git, in each way that there is.
#[tokio::test]
async fn a_graph_that_is_pruned_takes_its_jobs_along_unless_it_is_told_not_to() -> Result<()> {
    let fixture = Fixture::new("pruned", |task, _| match task {
        "long" => Play::runs_on(),
        _ => Play::succeeds(""),
    })
    .await?;
    let namespace = &fixture.namespace;
    // the first waits until the garbage collector, which comes up with the control plane, knows the kind
    let ways = [
        ("foreground", DeleteParams::foreground(), 0),
        ("background", DeleteParams::background(), 0),
        ("orphan", DeleteParams::orphan(), 2),
    ];
    // spelled otherwise by serde than by Go, which reads and writes the revision anew
    let mut first = task("first", &[]);
    first["retry"] = json!({"limit": 1, "backoff": {"initial": "1s", "factor": 2.0}});
    first["container"]["env"] = json!([{"value": "a<b>&c", "name": "TEXT"}]);
    for (name, way, left) in ways {
        let spec = json!({"tasks": [first, task("long", &["first"]), task("never", &["long"])],
            "finally": [task("end", &[])]});
        namespace.create(name, spec).await?;
        let two = |jobs: &[Job]| jobs.iter().filter(|job| job.name_any().starts_with(name)).count() == 2;
        namespace.until_all::<Job>("two Jobs", two).await;
        let runs =
            |graph: &TaskGraph| crate::support::namespace::task(graph, "long").is_some_and(|long| long.job.is_some());
        namespace.until(name, "its second task runs", runs).await;
        namespace.graphs().delete(name, &way).await?;
        namespace.until_object(namespace.graphs(), name, "deleted", |graph| graph.is_none().then_some(())).await;
        let rest = |jobs: &[Job]| jobs.iter().filter(|job| job.name_any().starts_with(name)).count() == left;
        namespace.until_all::<Job>("what is left", rest).await;
        let pods = |pods: &[Pod]| pods.iter().filter(|pod| pod.name_any().starts_with(name)).count() == left;
        namespace.until_all::<Pod>("what is left", pods).await;
    }
    // and the operator serves on; what was orphaned is nobody's
    assert_eq!(finished(&fixture.run("last", json!({"tasks": [task("a", &[])]})).await?), Some("Complete"));
    let names: Vec<_> =
        namespace.jobs().list(&kube::api::ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    assert!(!names.iter().any(|name| name.contains("never") || name.contains("-end-")), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("orphan")).count(), 2, "{names:?}");
    Ok(())
}
