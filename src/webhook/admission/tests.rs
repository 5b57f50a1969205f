use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::{
    controller::templates::Caches,
    webhook::{
        PATH, PATH_OF_WRITERS, access,
        certificates::{Material, Policy},
        router, serve,
        tls::Served,
    },
};

fn admission() -> Arc<Admission> {
    let uri = "http://127.0.0.1:1".parse().unwrap();
    let client = Client::try_from(kube::Config::new(uri)).unwrap();
    Admission::new(client, Caches::default().reader(), access::Mode::Disabled, Metrics::new().0, Health::default())
}

fn review(spec: &Value, dry_run: bool) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "77", "operation": "CREATE", "namespace": "team", "dryRun": dry_run,
        "kind": {"group": "taskgraph.dev", "version": "v1alpha1", "kind": "TaskGraph"},
        "resource": {"group": "taskgraph.dev", "version": "v1alpha1", "resource": "taskgraphs"},
        "userInfo": {"username": "ann"},
        "object": {"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": spec},
    }})
}

async fn answer(review: &Value) -> Value {
    let body = serde_json::to_vec(review).unwrap();
    serde_json::from_slice(&admission().answer(body.into(), Duration::from_secs(4)).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_refusal_has_every_problem_as_a_cause() {
    let wrong = json!({"tasks": [{"name": "A", "container": {"image": "i"}}, {"name": "b", "dependsOn": ["c"], "container": {"image": "i"}}]});
    for dry_run in [false, true] {
        let review = answer(&review(&wrong, dry_run)).await;
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        let response = &review["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("77"), &json!(false)));
        let status = &response["status"];
        assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")));
        assert_eq!((&status["details"]["name"], &status["details"]["kind"]), (&json!("g"), &json!("TaskGraph")));
        let causes = status["details"]["causes"].as_array().unwrap();
        let fields: Vec<_> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
        assert_eq!(fields, ["spec.tasks[0].name", "spec.tasks[1].dependsOn[0]"]);
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("spec.tasks[0].name: ") && message.contains("\nspec.tasks[1].dependsOn[0]: "));
        assert!(causes.iter().all(|cause| cause["reason"] == "FieldValueInvalid"));
    }
}

#[tokio::test]
async fn what_is_good_is_allowed_and_what_is_no_review_is_told() {
    let good = json!({"tasks": [{"name": "a", "container": {"image": "i"}}]});
    let response = answer(&review(&good, false)).await;
    assert_eq!(response["response"]["allowed"], json!(true));
    for body in ["", "{}", "[]", r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#] {
        let error = admission().answer(Bytes::from_static(body.as_bytes()), Duration::from_secs(4)).await.unwrap_err();
        assert!(matches!(error, AdmissionError::NoReview(_)), "{body}: {error}");
    }
}

#[tokio::test]
async fn an_edit_whose_revision_cannot_be_read_is_left_to_the_controller() {
    let mut review = review(&json!({"tasks": [{"name": "a", "container": {"image": "i"}}]}), false);
    let request = &mut review["request"];
    request["operation"] = json!("UPDATE");
    request["oldObject"] = request["object"].clone();
    request["oldObject"]["status"] = json!({"revision": "r"});
    request["object"]["spec"]["parallelism"] = json!(2);
    let response = answer(&review).await;
    assert_eq!(response["response"]["allowed"], json!(true));
    let warning = response["response"]["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("it is checked after it is stored, as the ControllerRevision r could not be read: "),
        "{warning}"
    );
}

fn policy() -> Policy {
    Policy { names: vec!["localhost".to_owned()], validity: Duration::from_hours(1) }
}

/// Asks as an API server that trusts `authorities`; the answer, or why there is no connection.
async fn ask(port: u16, authorities: &str, body: &str) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let body = body.to_owned();
    tokio::task::spawn_blocking(move || {
        let connection = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port))?);
        let length = body.len();
        write!(
            stream,
            "POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut text = Vec::new();
        match stream.read_to_end(&mut text) {
            // who closes without saying so is no fault of the answer
            Ok(_) | Err(_) if !text.is_empty() => Ok(String::from_utf8(text).unwrap()),
            result => Err(result.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        }
    })
    .await?
}

/// What an API server reads of an answer to know whether it may ask again over the same connection.
#[tokio::test]
async fn who_asks_while_it_ends_is_told_to_go_elsewhere() {
    let stop = CancellationToken::new();
    let router = router(admission(), stop.clone());
    for (ends, expected) in [(false, None), (true, Some("close"))] {
        if ends {
            stop.cancel();
        }
        for (path, body) in [(PATH, review(&json!({"tasks": []}), false).to_string()), (PATH_OF_WRITERS, "{".into())] {
            let request = axum::http::Request::post(path).body(body).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            let told = answer.headers().get(axum::http::header::CONNECTION).map(|value| value.to_str().unwrap());
            assert_eq!(told, expected, "{path}, {}", answer.status());
        }
    }
}

#[tokio::test]
async fn certificates_are_changed_while_it_serves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (served, stop) = (Served::default(), CancellationToken::new());
    let serving = tokio::spawn(serve(listener, served.clone(), admission(), stop.clone(), Duration::ZERO));
    let now = jiff::Timestamp::now();
    let first = policy().renew(&Material::default(), false, now).unwrap().unwrap();
    let body = review(&json!({"tasks": [{"name": "a", "container": {"image": "i"}}]}), false).to_string();

    assert!(ask(port, &first.authorities, &body).await.is_err(), "there is no certificate yet");
    served.set(&first.certificate, &first.key).unwrap();
    let text = ask(port, &first.authorities, &body).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\"allowed\":true"), "{text}");

    // a new authority, and what it signs: both are trusted on the way
    let due = now + Duration::from_mins(121);
    let added = policy().renew(&Material { certificate: String::new(), ..first.clone() }, true, due).unwrap().unwrap();
    served.set(&added.certificate, &added.key).unwrap();
    assert!(ask(port, &first.authorities, &body).await.is_err(), "the old authority has not signed it");
    for broken in ["", "x", &first.authorities] {
        assert!(served.set(broken, &first.key).is_err());
    }
    served.set(&first.certificate, &first.key).unwrap();
    assert!(ask(port, &added.authorities, &body).await.unwrap().contains("\"allowed\":true"));

    let text = ask(port, &first.authorities, "{").await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 Bad Request"), "{text}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}
