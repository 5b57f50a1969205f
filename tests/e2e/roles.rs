//! What the chart's roles let people do: users with certificates, kubectl, and the webhook as it is installed.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::PostParams;
use serde_json::json;
use taskgraph::api::GROUP;
use tempfile::TempDir;

use crate::{
    support::{
        acts::{Act, Deed, ROLES, acts},
        embedded,
        guarded::{Authority, until_may},
        namespace::{PATIENCE, status},
    },
    world::{Kubectl, World, graph, shell},
};

/// Acts that are tried at once.
const AT_ONCE: usize = 4;

/// A namespace with somebody for each role, and somebody without any.
struct Stage {
    world: World,
    people: BTreeMap<String, Person>,
    /// Keys and certificates.
    _files: TempDir,
}

struct Person {
    name: String,
    kubectl: Kubectl,
}

impl Stage {
    async fn new(test: &str) -> Result<Self> {
        let world = World::new(test).await?;
        let kubeconfig = embedded::kubeconfig()?;
        let keys = kubeconfig.parent().context("a folder")?.join("data/pki");
        ensure!(
            keys.exists(),
            "{}: only the embedded cluster's authority can be asked for certificates",
            keys.display()
        );
        let (files, place) = (tempfile::tempdir()?, world.namespace.name.clone());
        let (certificate, key) = (keys.join("ca.crt"), keys.join("ca.key"));
        let authority = Authority { certificate: &certificate, key: &key, kubeconfig: &kubeconfig };
        let mut people = BTreeMap::new();
        for role in ROLES.into_iter().chain(["nobody"]) {
            let name = format!("{place}-{role}");
            let user = authority.user(files.path(), &name).await?;
            let kubectl = Kubectl::new(&user.kubeconfig.context("a kubeconfig")?, &place)?;
            people.insert(role.to_owned(), Person { name, kubectl });
        }
        let stage = Self { world, people, _files: files };
        for role in ROLES {
            stage.bind(role).await?;
        }
        Ok(stage)
    }

    async fn bind(&self, role: &str) -> Result<()> {
        let (group, name, namespace) = ("rbac.authorization.k8s.io", &self.people[role].name, &self.world.namespace);
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": format!("taskgraph-{role}")},
            "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
        }))?;
        namespace.api().create(&PostParams::default(), &binding).await?;
        until_may(&namespace.client, name, ("list", GROUP, "taskgraphs"), Some(&namespace.name)).await;
        Ok(())
    }

    /// How an act goes that is not as it should be.
    async fn wrong(&self, role: &str, act: &Act) -> Option<String> {
        let answer = attempt(&self.people[role].kubectl, act).await;
        let error = answer.as_ref().err().map(|error| format!("{error:#}"));
        // by RBAC, or by admission, which says what to ask for
        let refused =
            error.as_ref().is_some_and(|error| error.contains("(Forbidden)") || error.contains("ask for a role"));
        let well = if act.who.contains(&role) { answer.is_ok() } else { refused };
        (!well).then(|| format!("{role}, {}: {}", act.what, error.unwrap_or_else(|| "allowed".into())))
    }
}

/// Tries it; nothing is changed.
async fn attempt(kubectl: &Kubectl, act: &Act) -> Result<String> {
    let plural = act.resource().plural;
    let patch = |change: &serde_json::Value| change.to_string();
    let dry = "--dry-run=server";
    match &act.deed {
        Deed::List => kubectl.run(&["get", &plural], "").await,
        Deed::Delete => kubectl.run(&["delete", &plural, "g", dry], "").await,
        Deed::Create(object) => kubectl.run(&["create", dry, "-f", "-"], &object.to_string()).await,
        Deed::Patch(change) => {
            kubectl.run(&["patch", &plural, "g", dry, "--type=merge", "-p", &patch(change)], "").await
        }
        Deed::PatchStatus(change) => {
            let change = patch(change);
            kubectl.run(&["patch", &plural, "g", dry, "--subresource=status", "--type=merge", "-p", &change], "").await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_what_it_is_for_and_nothing_else() -> Result<()> {
    let stage = Stage::new("roles").await?;
    stage.world.apply_graph("g", json!({"tasks": [{"name": "a", "approval": {}}]})).await?;
    let tried = stage.people.iter().flat_map(|(role, person)| {
        let stage = &stage;
        acts(&person.name).into_iter().map(move |act| async move { stage.wrong(role, &act).await })
    });
    let wrong: Vec<String> = stream::iter(tried.collect::<Vec<_>>())
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Waits until a graph that somebody would create bears the creator's name: a note is left out where it takes too long.
async fn until_noted(person: &Person, graph: &str) -> Result<()> {
    let shown = "jsonpath={.metadata.annotations.taskgraph\\.dev/created-by}";
    let noted = async {
        loop {
            match person.kubectl.run(&["create", "--dry-run=server", "-o", shown, "-f", "-"], graph).await {
                Ok(name) if name == person.name => return,
                Ok(_) => {}
                Err(error) => eprintln!("{}: {error:#}", person.name),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noted).await.context("who creates a graph is not noted")
}

/// A release, from its template to its end, by the people whose work it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_by_several_hands() -> Result<()> {
    let stage = Stage::new("hands").await?;
    let (designer, operator) = (&stage.people["designer"], &stage.people["operator"]);
    let tasks = json!([shell("build", &[], "true"), {"name": "review", "dependsOn": ["build"], "approval": {}}, shell("publish", &["review"], "true")]);
    let template = json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskTemplate", "metadata": {"name": "release"}, "spec": {"graph": {"tasks": tasks}}});
    designer.kubectl.run(&["create", "-f", "-"], &template.to_string()).await?;
    let graph = graph("r1", json!({"templateRef": {"name": "release"}})).to_string();
    until_noted(operator, &graph).await?;
    operator.kubectl.run(&["create", "-f", "-"], &graph).await?;

    let approval = |by: &str| {
        let one = json!({"spec": {"approvals": [{"task": "review", "attempt": 1, "decision": "Approved", "by": by}]}});
        one.to_string()
    };
    let approves = async |person: &Person, by: &str| {
        person.kubectl.run(&["patch", "tg", "r1", "--type=merge", "-p", &approval(by)], "").await
    };
    let refused = approves(designer, &designer.name).await.expect_err("it is the operator's to approve").to_string();
    assert!(refused.contains("ask for a role with the verb approve"), "{refused}");
    let refused = approves(operator, &designer.name).await.expect_err("in another's name").to_string();
    assert!(refused.contains("spec.approvals[0].by"), "{refused}");
    approves(operator, &operator.name).await?;
    let graph = stage.world.wait("r1", "complete").await?;
    let told = serde_json::to_string(&status(&graph).history)?;
    assert!(told.contains(&operator.name), "who ran and approved it stands in the history: {told}");
    stage.people["viewer"].kubectl.run(&["get", "tg", "r1"], "").await?;
    stage.world.judge().await
}
