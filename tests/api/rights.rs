//! The operator's own rights are exactly those that it uses: it runs as a service account with the chart's role, and what
//! it asks of the API server is written down.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    authentication::v1::UserInfo,
    core::v1::{Namespace as CoreNamespace, Pod},
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, PropagationPolicy},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use taskgraph::{
    api::{GROUP, TaskGraph, TaskPhase},
    webhook::access::{Change, Content, Judge, Kind, Mode},
};

use crate::{
    fixture::task,
    support::{
        ControlPlane, Namespace, Operator, Play, Player, Proxy,
        guarded::{User, until_may},
        namespace::{PATIENCE, finished, task as task_of},
        operator::Settings,
        player::phase,
        proxy::Fate,
        rights::{Right, rules},
    },
};

/// Rights that no call of this operator uses. One is looked at when it sets an owner that cannot be deleted first, where
/// the admission plugin `OwnerReferencesPermissionEnforcement` is on, as it is here. The Lease is watched by standbys.
const UNUSED: [(&str, &str); 2] = [("update", "taskgraphs/finalizers"), ("watch", "leases")];

/// Rules of the operator in its namespace, of its Lease, and in the cluster.
fn chart() -> Result<[Vec<PolicyRule>; 3]> {
    Ok([
        rules("rbac.yaml", "{{ $name }}")?,
        rules("rbac.yaml", "{{ $name }}-lease")?,
        rules("rbac.yaml", "{{ $cluster }}-cluster")?,
    ])
}

async fn give(namespace: &Namespace, user: &User) -> Result<()> {
    let [own, lease, cluster] = chart()?;
    let cluster = [cluster, rules("webhook-rbac.yaml", "{{ $cluster }}-review")?].concat();
    let group = "rbac.authorization.k8s.io";
    let subjects = json!([{"apiGroup": group, "kind": "User", "name": user.info.username}]);
    for (name, rules) in [("taskgraph", own), ("taskgraph-lease", lease)] {
        let role: Role = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules}))?;
        namespace.api().create(&PostParams::default(), &role).await?;
        let role = json!({"apiGroup": group, "kind": "Role", "name": name});
        let binding: RoleBinding =
            serde_json::from_value(json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects}))?;
        namespace.api().create(&PostParams::default(), &binding).await?;
    }
    let name = format!("{}-cluster", namespace.name);
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": name}, "rules": cluster}))?;
    Api::all(namespace.client.clone()).create(&PostParams::default(), &role).await?;
    let role = json!({"apiGroup": group, "kind": "ClusterRole", "name": name});
    let binding: ClusterRoleBinding =
        serde_json::from_value(json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects}))?;
    Api::all(namespace.client.clone()).create(&PostParams::default(), &binding).await?;
    let user = user.info.username.as_deref().unwrap_or_default();
    for (right, place) in [
        (("list", GROUP, "taskgraphs"), Some(namespace.name.as_str())),
        (("create", "coordination.k8s.io", "leases"), Some(namespace.name.as_str())),
        (("list", GROUP, "clustertasktemplates"), None),
    ] {
        until_may(&namespace.client, user, right, place).await;
    }
    Ok(())
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == Some("Running")
}

/// Everything that makes the operator call the API server.
async fn live_through_everything(namespace: &Namespace, proxy: &Proxy, operator: &mut Operator) -> Result<()> {
    // the answers to the first creates are lost: what is there is looked at
    for resource in ["configmaps", "jobs"] {
        let plain =
            move |call: &crate::support::proxy::Call| call.resource == resource && call.verb == http::Method::POST;
        proxy.inject_times(1, Fate::AnswerLost, plain);
    }
    let slow = json!({"graph": {"tasks": [task("slow", &[])]}});
    namespace.create_template("child", slow).await?;
    let host_path = json!({"template": {"spec": {
        "volumes": [{"name": "machine", "hostPath": {"path": "/"}}],
        "containers": [{"name": "main", "image": "none", "volumeMounts": [{"name": "machine", "mountPath": "/machine"}]}],
    }}});
    let rich = json!({
        "failurePolicy": "FinishBranches",
        "volumeClaimTemplates": [{"name": "files", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}],
        "tasks": [
            {"name": "each", "container": {"image": "none"}, "forEach": {"items": ["a", "b"]}},
            {"name": "files", "container": {"image": "none"}, "volumes": [{"name": "files", "mountPath": "/files"}]},
            {"name": "cached", "container": {"image": "none"}, "cache": {"key": "k", "maxAge": "1h"}},
            {"name": "child", "templateRef": {"name": "child"}},
            {"name": "machine", "job": host_path},
            task("slow", &[]),
        ],
    });
    namespace.create("rich", rich).await?;
    let ended = |graph: &TaskGraph, name: &str| task_of(graph, name).is_some_and(|task| task.phase.is_final());
    let all = |graph: &TaskGraph| ["each", "files", "cached", "machine"].iter().all(|name| ended(graph, name));
    let graph = namespace.until("rich", "but for what is slow", all).await;
    // a namespace that keeps to the standard `baseline` lets nobody into the machine
    let machine = task_of(&graph, "machine");
    assert_eq!(machine.as_ref().map(|task| task.phase), Some(TaskPhase::Failed), "{machine:?}");
    assert_eq!(machine.and_then(|task| task.reason).as_deref(), Some("PodSecurity"));

    namespace.create("brief", json!({"ttlAfterFinished": "1s", "tasks": [task("a", &[])]})).await?;
    namespace.until_object(namespace.graphs(), "brief", "gone", |graph| graph.is_none().then_some(())).await;

    namespace.create("orphaned", json!({"tasks": [task("lost", &[])]})).await?;
    let named = |graph: &TaskGraph| task_of(graph, "lost").is_some_and(|task| task.job.is_some());
    let graph = namespace.until("orphaned", "running", named).await;
    let runs = |pod: &Pod| is_running(pod) && pod.labels().get("taskgraph.dev/task").is_some_and(|task| task == "lost");
    namespace.until_all::<Pod>("running", |pods| pods.iter().any(runs)).await;
    let job = task_of(&graph, "lost").and_then(|task| task.job).unwrap_or_default();
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    namespace.jobs().delete(&job, &orphan).await?;
    namespace.until_finished("orphaned").await;

    // taken up anew: everything is read again
    operator.kill().await?;
    operator.restart()?;
    namespace.edit("rich", json!({"desiredState": "Suspend"})).await?;
    let suspended = |graphs: &[TaskGraph]| {
        graphs.iter().any(|graph| graph.metadata.owner_references.is_some() && graph.spec.desired_state.is_some())
    };
    namespace.until_all::<TaskGraph>("a child that is suspended", suspended).await;
    namespace.edit("rich", json!({"desiredState": "Cancel"})).await?;
    namespace.until("rich", "cancelled", |graph| finished(graph).is_some()).await;
    Ok(())
}

#[tokio::test]
async fn the_operator_has_the_rights_that_it_uses_and_no_others() -> Result<()> {
    let plane = ControlPlane::guarded();
    let namespace = Namespace::new(&plane.client().await?, "rights").await?;
    let standard = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let namespaces: Api<CoreNamespace> = Api::all(namespace.client.clone());
    namespaces.patch(&namespace.name, &PatchParams::default(), &Patch::Merge(standard)).await?;
    // what was remembered long ago is forgotten
    let old: ControllerRevision = serde_json::from_value(json!({
        "metadata": {"name": "taskgraph-cache-old", "labels": {"taskgraph.dev/role": "cache"}}, "revision": 1, "data": {},
    }))?;
    namespace.api().create(&PostParams::default(), &old).await?;
    let account = namespace.service_account(plane, "taskgraph").await?;
    give(&namespace, &account).await?;
    let _player = Player::start(&namespace, |task, attempt| match (task, attempt) {
        ("slow", _) => Play::runs_on(),
        ("lost", 1) => Play::runs_on().lingering(Duration::from_millis(500)),
        _ => Play::succeeds(""),
    });
    let proxy = Proxy::start_as(plane, account.config.clone()).await?;
    let mut operator = Operator::start(Settings::new(proxy.kubeconfig(), &namespace.name))?;
    live_through_everything(&namespace, &proxy, &mut operator).await?;
    judge_through(&proxy, &namespace, &account).await?;

    let missing = |used: &std::collections::BTreeMap<Right, bool>| -> Vec<String> {
        used.iter().filter(|(_, had)| !**had).map(|(right, _)| right.to_string()).collect()
    };
    let given: BTreeSet<Right> = chart()?.iter().flat_map(|rules| Right::of_rules(rules)).collect();
    let unused = |used: &std::collections::BTreeMap<Right, bool>| -> Vec<String> {
        let is_known = |right: &&Right| UNUSED.contains(&(right.verb.as_str(), right.resource.as_str()));
        given.iter().filter(|right| !used.contains_key(*right) && !is_known(right)).map(ToString::to_string).collect()
    };
    // what is tidied up comes after the last that can be seen from outside
    let begin = Instant::now();
    while !unused(&proxy.used()).is_empty() && begin.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let used = proxy.used();
    assert_eq!(missing(&used), Vec::<String>::new(), "used, and not given by the chart's role");
    assert_eq!(unused(&used), Vec::<String>::new(), "given by the chart's role, and never used");
    Ok(())
}

/// Admission asks as the operator.
async fn judge_through(proxy: &Proxy, namespace: &Namespace, operator: &User) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(proxy.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let judge = Judge::new(Client::try_from(config)?, Mode::Enforce);
    let (metadata, spec) = (ObjectMeta::default(), json!({"tasks": [task("a", &[])]}));
    let new = Content { metadata: &metadata, spec: &spec };
    let somebody = UserInfo { username: Some("somebody".to_owned()), ..UserInfo::default() };
    let ask = |user| Change { kind: Kind::Graph, namespace: &namespace.name, name: "g", old: None, new, user };
    assert_eq!(judge.judge(&ask(&operator.info)).await?, None, "the operator itself");
    assert_eq!(judge.judge(&ask(&somebody)).await?.map(|denied| denied.len()), Some(2));
    Ok(())
}

/// The page on security says what the operator may, each right once.
#[test]
fn every_right_is_explained() -> Result<()> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md"))?;
    let told =
        page.split("## Rights of the operator").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let mut explained = BTreeSet::new();
    for line in told.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let resource = cells[1].trim_matches('`');
        explained.extend(cells[2].split(", ").map(|verb| (resource.to_owned(), verb.to_owned())));
    }
    let given: BTreeSet<Right> = chart()?.iter().flat_map(|rules| Right::of_rules(rules)).collect();
    let given: BTreeSet<(String, String)> = given.into_iter().map(|right| (right.resource, right.verb)).collect();
    assert_eq!(explained, given);
    // what admission needs is told in words
    let told = told.to_lowercase();
    for role in ["{{ $cluster }}-review", "{{ $name }}-review", "{{ $name }}", "{{ $cluster }}"] {
        for right in Right::of_rules(&rules("webhook-rbac.yaml", role)?) {
            let kind = right.resource.trim_end_matches('s');
            assert!(told.contains(kind), "{right} is not explained");
        }
    }
    Ok(())
}
