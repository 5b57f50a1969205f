//! A control plane that knows who asks: users by certificates, service accounts by tokens, an audit log.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec, UserInfo},
    authorization::v1::SubjectAccessReview,
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use taskgraph::runtime::connections::stack;

use super::{ControlPlane, Namespace, namespace::PATIENCE};

/// Makes the authority of users' certificates in `dir`; arguments of the API server.
pub fn prepare(dir: &Path) -> Result<Vec<String>> {
    openssl(dir, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "users.key"])?;
    openssl(
        dir,
        &["req", "-x509", "-new", "-key", "users.key", "-days", "2", "-subj", "/CN=users", "-out", "users.crt"],
    )?;
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/taskgraph/files/audit-policy.yaml");
    Ok(vec![
        format!("--client-ca-file={}", dir.join("users.crt").display()),
        format!("--audit-policy-file={policy}"),
        format!("--audit-log-path={}", dir.join("audit.log").display()),
        "--audit-log-mode=blocking".into(),
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
    ])
}

impl ControlPlane {
    /// The audit log of a guarded one, each line a JSON object.
    pub fn audit_log(&self) -> PathBuf {
        self.dir().join("audit.log")
    }

    /// A person with a certificate, without any rights but those that are bound to the name.
    pub async fn user(&self, name: &str) -> Result<User> {
        let dir = self.dir();
        Authority { certificate: &dir.join("users.crt"), key: &dir.join("users.key"), kubeconfig: self.kubeconfig() }
            .user(dir, name)
            .await
    }
}

/// Whose certificates an API server takes from users.
pub struct Authority<'a> {
    /// Its certificate.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
    /// How to reach the API server; as whom does not matter.
    pub kubeconfig: &'a Path,
}

impl Authority<'_> {
    /// A person with a certificate, without any rights but those that are bound to the name. Files are left in `dir`.
    pub async fn user(&self, dir: &Path, name: &str) -> Result<User> {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let file = |end: &str| dir.join(format!("user-{name}.{end}")).to_string_lossy().into_owned();
        let (key, request, certificate) = (file("key"), file("csr"), file("crt"));
        let (authority, authority_key) = (self.certificate.to_string_lossy(), self.key.to_string_lossy());
        // with an extension it is a certificate of version 3: others are not taken
        let extension = file("ext");
        fs::write(&extension, "extendedKeyUsage=clientAuth\n")?;
        let subject = format!("/CN={name}/O=people");
        openssl(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", &key])?;
        openssl(dir, &["req", "-new", "-key", &key, "-subj", &subject, "-out", &request])?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_string();
        let signed = ["x509", "-req", "-in", &request, "-CA", &authority, "-CAkey", &authority_key, "-days", "1"];
        openssl(dir, &[&signed[..], &["-set_serial", &serial, "-extfile", &extension, "-out", &certificate]].concat())?;

        let mut text = serde_json::to_value(Kubeconfig::read_from(self.kubeconfig)?)?;
        text["users"][0]["user"] = json!({"client-certificate": certificate, "client-key": key});
        let kubeconfig = PathBuf::from(file("yaml"));
        fs::write(&kubeconfig, text.to_string())?;
        User::new(Config::from_custom_kubeconfig(serde_json::from_value(text)?, &KubeConfigOptions::default()).await?)
            .await
            .map(|user| User { kubeconfig: Some(kubeconfig), ..user })
    }
}

impl Namespace {
    /// A new service account with a token, without any rights but those that are bound to it.
    pub async fn service_account(&self, control_plane: &ControlPlane, name: &str) -> Result<User> {
        let api = self.api::<ServiceAccount>();
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        api.create(&PostParams::default(), &object).await?;
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let request = api.create_token_request(name, &PostParams::default(), &request).await?;
        let token = request.status.context("no token")?.token;
        let mut config = control_plane.config().await?;
        config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
        User::new(config).await
    }
}

/// Somebody, as the API server knows them.
pub struct User {
    /// How they reach it.
    pub config: Config,
    /// The same for programs, of users with a certificate.
    pub kubeconfig: Option<PathBuf>,
    /// A client of theirs.
    pub client: Client,
    /// What the API server knows of them.
    pub info: UserInfo,
}

impl User {
    async fn new(config: Config) -> Result<Self> {
        let client = stack(&config)?.build();
        let review: Api<SelfSubjectReview> = Api::all(client.clone());
        let answer = review.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        let info = answer.status.and_then(|status| status.user_info).context("nobody")?;
        Ok(Self { config, kubeconfig: None, client, info })
    }
}

/// Waits until the API server knows of a right that was given by a binding: it learns of those by a watch.
///
/// # Panics
/// If it does not.
pub async fn until_may(
    client: &Client,
    user: &str,
    (verb, group, resource): (&str, &str, &str),
    namespace: Option<&str>,
) {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let attributes = json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace});
    let review = json!({"metadata": {}, "spec": {"user": user, "resourceAttributes": attributes}});
    let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
    let known = async {
        loop {
            let answer = api.create(&PostParams::default(), &review).await;
            if answer.is_ok_and(|answer| answer.status.is_some_and(|status| status.allowed)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap_or_else(|_| panic!("{user} may not {verb} {resource}"));
}

fn openssl<A: AsRef<OsStr>>(dir: &Path, args: &[A]) -> Result<()> {
    let output =
        Command::new("openssl").args(args).current_dir(dir).stdin(Stdio::null()).output().context("openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
