//! What each role of the chart may do, and may not: people with certificates, an API server with RBAC, and the judge of
//! admission, which asks that server.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::{
    core::v1::Namespace as CoreNamespace,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::{
    api::{GROUP, TaskGraph},
    webhook::access::{Change, Content, Judge, Kind, Mode},
};

use crate::{
    fixture::{Fixture, task},
    support::{
        ControlPlane, Namespace, Play,
        acts::{Act, Deed, ROLES, acts, as_account, graph, template},
        guarded::{User, until_may},
        namespace::{PATIENCE, finished, task as task_status},
        rights::rules,
    },
};

/// Makes the roles as the chart has them.
async fn install_roles(plane: &ControlPlane) -> Result<()> {
    let api: Api<ClusterRole> = Api::all(plane.client().await?);
    for (name, file, of) in ROLES
        .map(|role| (format!("taskgraph-{role}"), "roles.yaml", format!("{{{{ $name }}}}-{role}")))
        .into_iter()
        .chain([("taskgraph-cluster".to_owned(), "webhook-rbac.yaml", "{{ $cluster }}-review".to_owned())])
    {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules(file, &of)?});
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(role)).await?;
    }
    Ok(())
}

fn binding(role: &str, user: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "metadata": {"name": format!("{user}-{role}").replace(':', "-")},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": format!("taskgraph-{role}")},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    })
}

/// A right by which one sees that a role was given.
fn told_by(role: &str) -> (&'static str, &'static str, &'static str) {
    match role {
        "cluster" => ("create", "authorization.k8s.io", "subjectaccessreviews"),
        "half" => ("create", GROUP, "clustertasktemplates"),
        _ => ("list", GROUP, "taskgraphs"),
    }
}

async fn bind(namespace: &Namespace, role: &str, user: &str) -> Result<()> {
    let binding: RoleBinding = serde_json::from_value(binding(role, user))?;
    namespace.api().create(&PostParams::default(), &binding).await?;
    until_may(&namespace.client, user, told_by(role), Some(&namespace.name)).await;
    Ok(())
}

async fn bind_everywhere(namespace: &Namespace, role: &str, user: &str) -> Result<()> {
    let binding: ClusterRoleBinding = serde_json::from_value(binding(role, user))?;
    Api::all(namespace.client.clone()).create(&PostParams::default(), &binding).await?;
    until_may(&namespace.client, user, told_by(role), None).await;
    Ok(())
}

/// A namespace with somebody for each role, and the judge.
struct Stage {
    namespace: Namespace,
    people: BTreeMap<String, User>,
    judge: Judge,
    operator: User,
}

impl Stage {
    async fn new(test: &str) -> Result<Self> {
        let plane = ControlPlane::guarded();
        install_roles(plane).await?;
        let namespace = Namespace::new(&plane.client().await?, test).await?;
        let mut people = BTreeMap::new();
        for role in ROLES.into_iter().chain(["nobody"]) {
            let user = plane.user(&format!("{test}-{role}")).await?;
            if role != "nobody" {
                bind(&namespace, role, user.info.username.as_deref().unwrap_or_default()).await?;
            }
            people.insert(role.to_owned(), user);
        }
        let operator = namespace.service_account(plane, "taskgraph").await?;
        bind_everywhere(&namespace, "cluster", operator.info.username.as_deref().unwrap_or_default()).await?;
        let judge = Judge::new(operator.client.clone(), Mode::Enforce);
        Ok(Self { namespace, people, judge, operator })
    }

    /// What is refused of an act: by RBAC (`forbidden`), or by admission.
    async fn refused(&self, who: &User, act: &Act) -> Result<Vec<String>> {
        let resource = act.resource();
        let api = |user: &User| -> Api<DynamicObject> {
            let (client, namespace) = (user.client.clone(), &self.namespace.name);
            if act.kind == Kind::ClusterTemplate {
                Api::all_with(client, &resource)
            } else {
                Api::namespaced_with(client, namespace, &resource)
            }
        };
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let (old, new) = match &act.deed {
            Deed::List => (None, api(who).list(&ListParams::default()).await.map(|_| None)),
            Deed::Delete => (
                None,
                api(who).delete("g", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.map(|_| None),
            ),
            Deed::Create(object) => {
                (None, api(who).create(&dry, &serde_json::from_value(object.clone())?).await.map(Some))
            }
            Deed::Patch(change) => {
                let old = Api::namespaced_with(self.namespace.client.clone(), &self.namespace.name, &resource)
                    .get("g")
                    .await?;
                let params = PatchParams { dry_run: true, ..PatchParams::default() };
                (Some(old), api(who).patch("g", &params, &Patch::Merge(change)).await.map(Some))
            }
            Deed::PatchStatus(change) => {
                let params = PatchParams { dry_run: true, ..PatchParams::default() };
                (None, api(who).patch_status("g", &params, &Patch::Merge(change)).await.map(|_| None))
            }
        };
        let new = match new {
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(vec!["forbidden".to_owned()]),
            other => other?,
        };
        let Some(new) = new else { return Ok(Vec::new()) };
        let namespace = new.metadata.namespace.clone().unwrap_or_default();
        let name = new.metadata.name.clone().unwrap_or_default();
        let (old, new) = (old.as_ref().map(content), content(&new));
        let change = Change { kind: act.kind, namespace: &namespace, name: &name, old, new, user: &who.info };
        Ok(self.judge.judge(&change).await?.iter().flatten().map(ToString::to_string).collect())
    }
}

fn content(object: &DynamicObject) -> Content<'_> {
    Content { metadata: &object.metadata, spec: &object.data["spec"] }
}

#[tokio::test]
async fn each_role_may_what_it_is_for_and_nothing_else() -> Result<()> {
    let stage = Stage::new("roles").await?;
    stage.namespace.create("g", json!({"tasks": [{"name": "a", "approval": {}}]})).await?;
    let mut wrong = Vec::new();
    for (role, user) in &stage.people {
        for act in acts(user.info.username.as_deref().unwrap_or_default()) {
            let refused = stage.refused(user, &act).await?;
            if refused.is_empty() != act.who.contains(&role.as_str()) {
                wrong.push(format!("{role}, {}: {refused:?}", act.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// An account is given by name; a refusal says what to ask for.
#[tokio::test]
async fn one_account_is_given_by_name() -> Result<()> {
    let stage = Stage::new("accounts").await?;
    let designer = &stage.people["designer"];
    let of = |account: &str| Act {
        what: "create",
        kind: Kind::Graph,
        deed: graph(json!({"tasks": [{"name": "a", "job": as_account(account)}]})),
        who: &[],
    };
    let place = &stage.namespace.name;
    assert_eq!(
        stage.refused(designer, &of("deployer")).await?,
        [format!(
            "spec.tasks[0].job.template.spec.serviceAccountName: accounts-designer may not let pods run as the service account \
             \"deployer\" of namespace \"{place}\": ask for a role with the verb use on serviceaccounts there, as the ClusterRole \
             taskgraph-admin has it"
        )]
    );
    let rbac = "rbac.authorization.k8s.io";
    let given =
        json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["deployer"], "verbs": ["use"]}]);
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "deployer"}, "rules": given}))?;
    stage.namespace.api().create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "deployer"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "deployer"},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": "accounts-designer"}],
    }))?;
    stage.namespace.api().create(&PostParams::default(), &binding).await?;
    // a no counts for a second, and the authorizer learns of bindings by a watch
    let (begin, mut refused) = (Instant::now(), vec![String::new()]);
    while !refused.is_empty() && begin.elapsed() < PATIENCE {
        refused = stage.refused(designer, &of("deployer")).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(stage.refused(designer, &of("other")).await?.len(), 1);
    Ok(())
}

/// Templates of the cluster are used everywhere: so must be the rights of who writes them.
#[tokio::test]
async fn templates_of_the_cluster_ask_for_rights_everywhere() -> Result<()> {
    let stage = Stage::new("everywhere").await?;
    let plane = ControlPlane::guarded();
    let (admin, designer) = (plane.user("everywhere-root").await?, plane.user("everywhere-writer").await?);
    bind_everywhere(&stage.namespace, "admin", "everywhere-root").await?;
    bind_everywhere(&stage.namespace, "designer", "everywhere-writer").await?;
    let act = |spec: Value| Act {
        what: "write",
        kind: Kind::ClusterTemplate,
        deed: template(Kind::ClusterTemplate, spec),
        who: &[],
    };
    assert_eq!(stage.refused(&admin, &act(json!({"job": as_account("deployer")}))).await?, Vec::<String>::new());
    assert_eq!(stage.refused(&designer, &act(json!({"container": {"image": "none"}}))).await?, ["forbidden"]);
    // may write them by another role, and create Jobs in one namespace only
    let writer = plane.user("everywhere-half").await?;
    let given = json!([{"apiGroups": ["taskgraph.dev"], "resources": ["clustertasktemplates"], "verbs": ["create"]}]);
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": "taskgraph-half"}, "rules": given}))?;
    Api::all(stage.namespace.client.clone()).create(&PostParams::default(), &role).await?;
    bind_everywhere(&stage.namespace, "half", "everywhere-half").await?;
    bind(&stage.namespace, "admin", "everywhere-half").await?;
    let refused = stage.refused(&writer, &act(json!({"job": as_account("deployer")}))).await?;
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused[0].contains("create Jobs in every namespace") && refused[0].contains("for the whole cluster"),
        "{refused:?}"
    );
    Ok(())
}

/// What the operator writes comes from what others wrote; nobody else passes for it by what an object says.
#[tokio::test]
async fn the_operator_passes_by_its_identity_alone() -> Result<()> {
    let stage = Stage::new("identity").await?;
    let child: TaskGraph = serde_json::from_value(json!({
        "metadata": {
            "name": "child",
            "labels": {"taskgraph.dev/graph-uid": "u", "app.kubernetes.io/managed-by": "taskgraph"},
            "ownerReferences": [{"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "p", "uid": "u", "controller": true}],
        },
        "spec": {"tasks": [{"name": "a", "job": as_account("deployer")}]},
    }))?;
    let spec = serde_json::to_value(child.spec)?;
    let new = Content { metadata: &child.metadata, spec: &spec };
    let namespace = stage.namespace.name.as_str();
    let change = |user| Change { kind: Kind::Graph, namespace, name: "child", old: None, new, user };
    assert_eq!(stage.judge.judge(&change(&stage.operator.info)).await?, None);
    for (role, refused) in [("nobody", 3), ("viewer", 3), ("operator", 3), ("designer", 1), ("admin", 0)] {
        let found = stage.judge.judge(&change(&stage.people[role].info)).await?.unwrap_or_default();
        assert_eq!(found.len(), refused, "{role}: {found:?}");
    }
    // the account of that name in another namespace is another
    let mut other = stage.operator.info.clone();
    other.username = Some("system:serviceaccount:elsewhere:taskgraph".to_owned());
    assert_eq!(stage.judge.judge(&change(&other)).await?.map(|denied| denied.len()), Some(3));
    // turned off, nobody is asked
    let off = Judge::new(stage.operator.client.clone(), Mode::Disabled);
    assert_eq!(off.judge(&change(&stage.people["nobody"].info)).await?, None);
    Ok(())
}

/// The graph that the page on security shows for namespaces that keep to the standard `restricted`.
#[tokio::test]
async fn the_documented_graph_runs_where_pods_are_restricted() -> Result<()> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md"))?;
    let shown = page.split("```yaml\n").filter_map(|rest| rest.split("```").next());
    let shown = shown.into_iter().find(|block| block.contains("name: restricted")).unwrap_or_default();
    let graph: TaskGraph = serde_saphyr::from_str(shown)?;
    let fixture = Fixture::new("restricted", |_, _| Play::succeeds("")).await?;
    let standard = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<CoreNamespace> = Api::all(fixture.namespace.client.clone());
    namespaces.patch(&fixture.namespace.name, &PatchParams::default(), &Patch::Merge(standard)).await?;
    let spec = serde_json::to_value(graph.spec)?;
    assert_eq!(finished(&fixture.run("g", spec.clone()).await?), Some("Complete"));
    // without what it says of its pods it is refused
    let mut bare = spec;
    bare.as_object_mut().map(|spec| spec.remove("podDefaults"));
    let graph = fixture.run("bare", bare).await?;
    assert_eq!(task_status(&graph, "work").and_then(|task| task.reason).as_deref(), Some("PodSecurity"));
    fixture.judge().await?;
    Ok(())
}

/// What the API server writes down with the chart's policy.
#[tokio::test]
async fn the_audit_log_tells_who_did_what() -> Result<()> {
    let stage = Stage::new("audit").await?;
    let of = |role: &str| Api::<TaskGraph>::namespaced(stage.people[role].client.clone(), &stage.namespace.name);
    let graph = TaskGraph::new("g", serde_json::from_value(json!({"tasks": [task("a", &[])]}))?);
    of("designer").create(&PostParams::default(), &graph).await?;
    of("operator")
        .patch("g", &PatchParams::default(), &Patch::Merge(json!({"spec": {"desiredState": "Suspend"}})))
        .await?;
    assert!(of("viewer").delete("g", &DeleteParams::default()).await.is_err());
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    stage.namespace.graphs().patch_status("g", &PatchParams::default(), &status).await?;
    of("viewer").get("g").await?;

    let log = fs::read_to_string(ControlPlane::guarded().audit_log())?;
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ours = |line: &&Value| {
        line["objectRef"]["namespace"] == stage.namespace.name && line["objectRef"]["apiGroup"] == "taskgraph.dev"
    };
    let told = |line: &Value| -> (String, Value) {
        let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let of = [text("/objectRef/resource"), text("/objectRef/subresource")].join(" ");
        let what =
            format!("{} {} {} {}", text("/user/username"), text("/verb"), of.trim(), line["responseStatus"]["code"]);
        (what, line["requestObject"]["spec"].clone())
    };
    let told: Vec<(String, Value)> = lines.iter().filter(ours).map(told).collect();
    assert_eq!(
        told,
        [
            ("audit-designer create taskgraphs 201".to_owned(), serde_json::to_value(graph.spec)?),
            ("audit-operator patch taskgraphs 200".to_owned(), json!({"desiredState": "Suspend"})),
            ("audit-viewer delete taskgraphs 403".to_owned(), Value::Null),
            ("admin patch taskgraphs status 200".to_owned(), Value::Null),
        ]
    );
    Ok(())
}
