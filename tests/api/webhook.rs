//! Admission against a real API server: the webhook is served in this process, and asked by URL.

mod writers;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::Secret,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use serde_json::{Value, json};
use taskgraph::{
    api::{TaskGraph, TaskPhase},
    controller::templates::Caches,
    runtime::{
        health::{Fault, Health},
        metrics::Metrics,
    },
    webhook::{
        self, Options, access,
        certificates::Policy,
        keeper::{Own, Source},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{
        ControlPlane, Namespace, Play, control_plane,
        namespace::{self, PATIENCE},
        ports,
        webhook::configuration,
    },
};

/// A namespace whose objects are checked. The names of its Secret and its configuration are the namespace's.
struct Admitted {
    namespace: Namespace,
    address: SocketAddr,
    client: Client,
}

/// The webhook, served by this process.
struct Server {
    stop: CancellationToken,
    health: Health,
    running: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.running.await??)
    }

    async fn until_fault(&self, what: &str, wanted: impl Fn(Option<&Fault>) -> bool) -> Result<()> {
        let search = async {
            while !wanted(self.health.fault("admission").as_ref()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let last = || format!("not {what}: {:?}", self.health.fault("admission"));
        tokio::time::timeout(PATIENCE, search).await.with_context(last)
    }

    async fn until_well(&self) -> Result<()> {
        self.until_fault("well", |fault| fault.is_none()).await
    }
}

impl Admitted {
    fn over(namespace: &Namespace) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        Ok(Self { namespace: namespace.clone(), address, client: namespace.client.clone() })
    }

    async fn new(test: &str) -> Result<Self> {
        Self::over(&Namespace::new(&ControlPlane::shared().client().await?, test).await?)
    }

    /// With all that the chart makes for it.
    async fn installed(self) -> Result<(Self, Server)> {
        self.make_secret().await?;
        self.make_configuration().await?;
        self.make_notes().await?;
        let server = self.serve().await?;
        server.until_well().await?;
        self.until_asked().await?;
        Ok((self, server))
    }

    fn configurations(&self) -> Api<ValidatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    async fn make_secret(&self) -> Result<()> {
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": self.namespace.name}}))?;
        self.namespace.api().create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    async fn make_configuration(&self) -> Result<()> {
        let configuration = configuration(&self.namespace.name, self.address, "")?;
        self.configurations().create(&PostParams::default(), &configuration).await?;
        Ok(())
    }

    /// Has noted who writes graphs.
    async fn make_notes(&self) -> Result<()> {
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": self.namespace.name},
            "webhooks": [{
                "name": "writers.taskgraph.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore", "matchPolicy": "Equivalent", "timeoutSeconds": 30,
                "clientConfig": {"url": format!("https://{}{}", self.address, webhook::PATH_OF_WRITERS)},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace.name}},
                "rules": [{"apiGroups": ["taskgraph.dev"], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["taskgraphs"], "scope": "Namespaced"}],
            }],
        }))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &configuration).await?;
        Ok(())
    }

    fn source(&self) -> Source {
        let policy = Policy { names: vec!["127.0.0.1".into()], validity: Duration::from_hours(1) };
        let name = self.namespace.name.clone();
        Source::Own(Own {
            policy,
            namespace: name.clone(),
            secret: name.clone(),
            configuration: name,
            settled: Duration::from_secs(1),
        })
    }

    async fn serve(&self) -> Result<Server> {
        self.serve_as(self.client.clone(), self.address).await
    }

    async fn serve_as(&self, client: Client, address: SocketAddr) -> Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let (stop, health) = (CancellationToken::new(), Health::default());
        let options = Options {
            source: self.source(),
            templates: Caches::default().reader(),
            access: access::Mode::Enforce,
            metrics: Metrics::new().0,
            health: health.clone(),
        };
        let running = tokio::spawn(webhook::run(listener, client, options, stop.clone()));
        Ok(Server { stop, health, running })
    }

    /// The API server takes a moment to know of a configuration.
    async fn until_asked(&self) -> Result<()> {
        self.until_create("asked", &json!({"tasks": [task("a", &["gone"])]}), |answer| {
            answer.is_err_and(|status| status.code == 422)
        })
        .await
    }

    /// Tries to create a graph until the answer is as wanted. Nothing is stored.
    async fn until_create(&self, what: &str, spec: &Value, wanted: impl Fn(Result<(), Status>) -> bool) -> Result<()> {
        let search = async {
            loop {
                let answer = self.create(spec, true).await?;
                if wanted(answer) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.with_context(|| format!("not {what}"))?
    }

    async fn create(&self, spec: &Value, dry_run: bool) -> Result<Result<(), Status>> {
        let graph = TaskGraph::new("probe", serde_json::from_value(spec.clone())?);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        // a client that tries again by itself hides that it was told to
        let kubeconfig = Kubeconfig::read_from(ControlPlane::shared().kubeconfig())?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let graphs: Api<TaskGraph> = Api::namespaced(Client::try_from(config)?, &self.namespace.name);
        refusal(graphs.create(&parameters, &graph).await)
    }
}

fn refusal<T>(answer: kube::Result<T>) -> Result<Result<(), Status>> {
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) => Ok(Err(*status)),
        Err(error) => Err(error.into()),
    }
}

fn fields(status: &Status) -> Vec<&str> {
    status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.field.as_str()).collect()
}

fn good() -> Value {
    json!({"tasks": [task("a", &[])]})
}

/// What a stranger's kubectl says.
fn kubectl(namespace: &Namespace, args: &[&str], input: &Value) -> Result<(bool, String)> {
    let kubeconfig: PathBuf = ControlPlane::shared().dir().join("kubeconfig");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), input.to_string())?;
    let mut command = Command::new(control_plane::bin_dir()?.join("kubectl"));
    command.args(["-n", &namespace.name]).args(args).arg("-f").arg(file.path()).env("KUBECONFIG", kubeconfig);
    let output = command.output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_wrong_is_told_before_it_is_stored() -> Result<()> {
    let (admitted, _server) = Admitted::new("admission").await?.installed().await?;
    let wrong = json!({
        "tasks": [task("a", &["biuld"]), task("build", &[]), {"name": "ask", "approval": {}}],
        "finally": [{"name": "last", "container": {"imag": "i"}}],
        "approvals": [{"task": "ask", "attempt": 1, "decision": "Approved", "by": "somebody"}],
    });
    for dry_run in [true, false] {
        let status = admitted.create(&wrong, dry_run).await?.expect_err("it is refused");
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        let expected = [
            "spec.tasks[0].dependsOn[0]",
            "spec.finally[0].container.imag",
            "spec.finally[0].container.image",
            "spec.approvals[0].by",
        ];
        assert_eq!(fields(&status), expected);
    }
    let graph = |spec: &Value| json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": spec});
    let (created, text) = kubectl(&admitted.namespace, &["create"], &graph(&wrong))?;
    assert!(!created);
    for expected in [
        "did you mean \"build\"?",
        "spec.finally[0].container.imag",
        "is \"somebody\", but the request is made by \"admin\"",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let template = json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskTemplate", "metadata": {"name": "t"}, "spec": {"container": {"imag": "i"}}});
    let (applied, text) = kubectl(&admitted.namespace, &["apply"], &template)?;
    assert!(!applied && text.contains("spec.container.imag"), "{text}");

    let named = json!({"tasks": [{"name": "a", "templateRef": {"name": "t"}}]});
    let (applied, text) = kubectl(&admitted.namespace, &["apply", "--dry-run=server"], &graph(&named))?;
    assert!(applied && text.contains("there is no TaskTemplate named \"t\" yet"), "{text}");
    assert!(admitted.namespace.graphs().get_opt("g").await?.is_none(), "a dry run stores nothing");
    admitted.namespace.create_template("t", json!({"container": container()})).await?;
    let (applied, text) = kubectl(&admitted.namespace, &["apply"], &graph(&named))?;
    assert!(applied && !text.contains("Warning"), "a template that was just created is found: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_can_be_steered_mended_and_deleted() -> Result<()> {
    let admitted = Admitted::new("updates").await?;
    let graphs = admitted.namespace.graphs();
    // there was no webhook then
    admitted.namespace.create("old", json!({"tasks": [task("a", &["gone"]), task("b", &["lost"])]})).await?;
    let (admitted, _server) = admitted.installed().await?;
    let patch = async |body: Value| {
        let parameters = PatchParams::default();
        refusal(graphs.patch("old", &parameters, &Patch::Merge(body)).await)
    };
    let status = json!({"status": {"phase": "Running", "tasks": [{"name": "a", "phase": "Running", "attempts": 1}]}});
    graphs.patch_status("old", &PatchParams::default(), &Patch::Merge(status)).await?;
    for (what, body) in [
        ("labels", json!({"metadata": {"labels": {"a": "b"}}})),
        ("finalizers", json!({"metadata": {"finalizers": ["example.org/x"]}})),
        ("suspended", json!({"spec": {"desiredState": "Suspend"}})),
        ("mended in part", json!({"spec": {"tasks": [task("a", &["gone"]), task("b", &[])]}})),
        ("cancelled", json!({"spec": {"desiredState": "Cancel"}})),
    ] {
        patch(body).await?.unwrap_or_else(|status| panic!("{what}: {status:?}"));
    }
    let refused = patch(json!({"spec": {"timeout": "0s"}})).await?.expect_err("it gets worse");
    assert!(refused.code == 422 && fields(&refused).contains(&"spec.timeout"), "{refused:?}");

    graphs.delete("old", &DeleteParams::default()).await?;
    assert!(graphs.get("old").await?.metadata.deletion_timestamp.is_some());
    patch(json!({"metadata": {"finalizers": null}})).await?.expect("its finalizer is taken away");
    let gone = |graphs: &[TaskGraph]| graphs.iter().all(|graph| graph.name_any() != "old");
    admitted.namespace.until_all("deleted", gone).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_cannot_be_honoured_is_refused() -> Result<()> {
    let script = |task: &str, _| if task == "pay" { Play::runs_on() } else { Play::succeeds("") };
    let fixture = Fixture::new("honoured", script).await?;
    let (admitted, _server) = Admitted::over(&fixture.namespace)?.installed().await?;
    let namespace = &admitted.namespace;
    let book = task_with("book", &[], json!({"compensate": {"container": container()}}));
    namespace.create("trip", json!({"tasks": [book, task("pay", &["book"])]})).await?;
    let runs = |graph: &TaskGraph| {
        let phase = |name| namespace::task(graph, name).map(|task| task.phase);
        (phase("book"), phase("pay")) == (Some(TaskPhase::Succeeded), Some(TaskPhase::Running))
    };
    namespace.until("trip", "pay runs", runs).await;
    let edit = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        refusal(namespace.graphs().patch("trip", &PatchParams::default(), &patch).await)
    };
    let refused = edit(json!({"tasks": [task("pay", &[])]})).await?.expect_err("book may have to be undone");
    assert_eq!(fields(&refused), ["spec.tasks"]);
    assert!(refused.message.contains("task \"book\" Succeeded and has `compensate`"), "{}", refused.message);
    edit(json!({"tasks": [book, task("pay", &["book"]), task("mail", &["book"])]})).await?.expect("a task joins");
    let mailed =
        |graph: &TaskGraph| namespace::task(graph, "mail").is_some_and(|task| task.phase == TaskPhase::Succeeded);
    namespace.until("trip", "mailed", mailed).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_while_nobody_answers() -> Result<()> {
    let (admitted, server) = Admitted::new("down").await?.installed().await?;
    server.stop().await?;
    let unasked =
        |answer: Result<(), Status>| answer.is_err_and(|status| status.message.contains("failed calling webhook"));
    admitted.until_create("refused", &good(), unasked).await?;
    // what the alert TaskgraphAdmissionUnreached reads
    let metrics = admitted.client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let counted = |line: &str| {
        [
            "apiserver_admission_webhook_rejection_count{",
            "error_type=\"calling_webhook_error\"",
            "name=\"admission.taskgraph.dev\"",
        ]
        .iter()
        .all(|part| line.contains(part))
    };
    assert!(metrics.lines().any(counted), "the API server counts what it could not ask");
    let server = admitted.serve().await?;
    server.until_well().await?;
    admitted.until_create("allowed again", &good(), |answer| answer.is_ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_to_trust_is_told_again_when_it_was_forgotten() -> Result<()> {
    let (admitted, server) = Admitted::new("bundle").await?.installed().await?;
    let name = admitted.namespace.name.clone();
    let emptied = json!({"webhooks": [{"name": "admission.taskgraph.dev", "clientConfig": {"caBundle": ""}}]});
    admitted.configurations().patch(&name, &PatchParams::default(), &Patch::Strategic(emptied)).await?;
    admitted.until_create("allowed again", &good(), |answer| answer.is_ok()).await?;
    let bundled = |one: Option<&ValidatingWebhookConfiguration>| {
        let bundle = one?.webhooks.as_ref()?.first()?.client_config.ca_bundle.as_ref()?;
        (!bundle.0.is_empty()).then_some(())
    };
    admitted.namespace.until_object(admitted.configurations(), &name, "told whom to trust", bundled).await;

    // a Secret that was emptied is filled anew
    let secrets = admitted.namespace.api::<Secret>();
    secrets.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"data": null}))).await?;
    let filled = |secret: Option<&Secret>| secret?.data.as_ref()?.get("tls.crt").map(|_| ());
    admitted.namespace.until_object(secrets, &name, "filled", filled).await;
    server.until_well().await?;
    admitted.until_create("allowed again", &good(), |answer| answer.is_ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_their_certificates() -> Result<()> {
    let admitted = Admitted::new("replicas").await?;
    admitted.make_secret().await?;
    admitted.make_configuration().await?;
    admitted.make_notes().await?;
    let other = SocketAddr::from(([127, 0, 0, 1], 0));
    let servers = [
        admitted.serve().await?,
        admitted.serve_as(admitted.client.clone(), other).await?,
        admitted.serve_as(admitted.client.clone(), other).await?,
    ];
    for server in &servers {
        server.until_well().await?;
    }
    let name = &admitted.namespace.name;
    let secret = admitted.namespace.api::<Secret>().get(name).await?;
    let authorities = secret.data.as_ref().and_then(|data| data.get("ca.crt")).context("filled")?;
    assert_eq!(String::from_utf8_lossy(&authorities.0).matches("BEGIN CERTIFICATE").count(), 1);
    let configuration = admitted.configurations().get(name).await?;
    let bundle = configuration.webhooks.unwrap_or_default().remove(0).client_config.ca_bundle;
    assert_eq!(bundle.as_ref(), Some(authorities));
    admitted.until_asked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_told_and_mended() -> Result<()> {
    let admitted = Admitted::new("missing").await?;
    // nobody is asked yet
    admitted.namespace.create("old", good()).await?;
    let kubeconfig = Kubeconfig::read_from(ControlPlane::shared().readers_kubeconfig()?)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let server = admitted.serve_as(Client::try_from(config)?, admitted.address).await?;
    let says = |text: &'static str| {
        move |fault: Option<&Fault>| fault.is_some_and(|fault| fault.stops && fault.message.contains(text))
    };
    server.until_fault("forbidden to read", says("may not read the Secret")).await?;
    grant(&admitted, "secrets", &["get", "list", "watch", "update"]).await?;
    server.until_fault("without a Secret", says("is missing: it holds the webhook's certificates")).await?;
    admitted.make_secret().await?;
    server.until_fault("forbidden", says("may not read the ValidatingWebhookConfiguration")).await?;
    grant(&admitted, "validatingwebhookconfigurations", &["get", "list", "watch"]).await?;
    let none = |fault: Option<&Fault>| {
        fault.is_some_and(|fault| !fault.stops && fault.message.contains("there is no ValidatingWebhookConfiguration"))
    };
    server.until_fault("without a configuration, which stops nothing", none).await?;
    admitted.make_configuration().await?;
    server.until_fault("forbidden to patch", says("may not patch the ValidatingWebhookConfiguration")).await?;
    grant(&admitted, "validatingwebhookconfigurations", &["get", "list", "watch", "patch"]).await?;
    let may_not_note = |fault: Option<&Fault>| {
        fault.is_some_and(|fault| {
            !fault.stops && fault.message.contains("may not read the MutatingWebhookConfiguration")
        })
    };
    server.until_fault("forbidden to see who is to be noted, which stops nothing", may_not_note).await?;
    grant(&admitted, "mutatingwebhookconfigurations", &["get", "list", "watch", "patch"]).await?;
    let no_notes = |fault: Option<&Fault>| {
        fault.is_some_and(|fault| !fault.stops && fault.message.contains("there is no MutatingWebhookConfiguration"))
    };
    server.until_fault("without notes, which stops nothing", no_notes).await?;
    admitted.make_notes().await?;
    server.until_well().await?;
    // what the writers of graphs may do; nobody is let through meanwhile
    let unknown = |answer: Result<(), Status>| {
        answer.is_err_and(|status| status.code == 503 && status.message.contains("could not be looked up"))
    };
    admitted.until_create("refused, as nobody's rights are known", &good(), unknown).await?;
    let fault = server.health.fault("admission, rights").context("it is told")?;
    assert!(!fault.stops && fault.message.contains("subjectaccessreviews"), "{fault:?}");
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    admitted.namespace.graphs().patch("old", &PatchParams::default(), &label).await?;
    let fault = server.health.fault("admission, rights");
    assert!(fault.is_some(), "what needs no right tells nothing of it");
    grant(&admitted, "subjectaccessreviews", &["create"]).await?;
    admitted.until_asked().await?;
    assert_eq!(server.health.fault("admission, rights"), None);
    Ok(())
}

/// Gives the user `reader` rights on what bears the namespace's name.
async fn grant(admitted: &Admitted, resource: &str, verbs: &[&str]) -> Result<()> {
    let name = format!("{}-{resource}", admitted.namespace.name);
    let (group, named) = match resource {
        "secrets" => ("", true),
        "subjectaccessreviews" => ("authorization.k8s.io", false),
        _ => ("admissionregistration.k8s.io", true),
    };
    let only: &[&str] = if named { &[&admitted.namespace.name] } else { &[] };
    let rules = json!([{"apiGroups": [group], "resources": [resource], "resourceNames": only, "verbs": verbs}]);
    let objects = [
        (
            "clusterroles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        ),
        (
            "clusterrolebindings",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
            }),
        ),
    ];
    for (plural, object) in objects {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{plural}/{name}?fieldManager=test&force=true");
        let request = http::Request::patch(path)
            .header("Content-Type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(&object)?)?;
        admitted.client.request_text(request).await?;
    }
    Ok(())
}
