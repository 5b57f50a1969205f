//! At the endpoint of admission. No cluster takes part.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use kube::{Client, Config};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use taskgraph::{
    controller::templates::Caches,
    runtime::{health::Health, metrics::Metrics},
    webhook::{
        PATH,
        access::Mode,
        admission::Admission,
        certificates::{Material, Policy},
        serve,
        tls::Served,
    },
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{KINDS, Pace, TASKS, graph, print};

const CONNECTIONS: u32 = 10;

/// A review of a graph; `uid` makes each a request of its own.
fn review(spec: &Value, uid: u32) -> Vec<u8> {
    let kind = json!({"group": "taskgraph.dev", "version": "v1alpha1", "kind": "TaskGraph"});
    let object =
        json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": spec});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid.to_string(), "operation": "CREATE", "namespace": "team", "kind": kind,
        "resource": {"group": "taskgraph.dev", "version": "v1alpha1", "resource": "taskgraphs"},
        "userInfo": {"username": "ann"}, "object": object,
    }});
    review.to_string().into_bytes()
}

type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn connect(port: u16, config: Arc<ClientConfig>) -> Result<Connection> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let connection = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    Ok(BufReader::new(StreamOwned::new(connection, stream)))
}

/// Sends one review; the body of the answer.
fn ask(connection: &mut Connection, body: &[u8]) -> Result<Vec<u8>> {
    let stream = connection.get_mut();
    write!(stream, "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.flush()?;
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse()?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer)?;
    Ok(answer)
}

/// The time of each answer.
fn drive(port: u16, tls: &Arc<ClientConfig>, spec: &Value, pace: Pace) -> Result<Vec<f64>> {
    let begin = Instant::now() + Duration::from_millis(200);
    let send = &|first: u32| -> Result<Vec<f64>> {
        let mut connection = connect(port, Arc::clone(tls))?;
        let body = review(spec, first);
        let mut times = Vec::new();
        for number in (first..pace.requests()).step_by(CONNECTIONS as usize) {
            let due = begin + pace.due(number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = ask(&mut connection, &body)?;
            times.push(due.elapsed().as_secs_f64() * 1000.0);
            let answer: Value = serde_json::from_slice(&answer)?;
            ensure!(answer["response"]["allowed"] == json!(true), "refused: {answer}");
        }
        Ok(times)
    };
    thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || send(first))).collect();
        let mut times = Vec::new();
        for sender in senders {
            times.extend(sender.join().map_err(|_| anyhow!("a sender panicked"))??);
        }
        Ok(times)
    })
}

fn tls(material: &Material) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(material.authorities.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Serves admission in this process; its port, and how to trust it.
pub async fn start(client: Client, access: Mode) -> Result<(u16, Material)> {
    let policy =
        Policy { names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()], validity: Duration::from_hours(1) };
    let made = policy.renew(&Material::default(), false, jiff::Timestamp::now())?;
    let material = made.context("an empty Secret is filled")?;
    let served = Served::default();
    served.set(&material.certificate, &material.key)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let templates = Caches::default().reader();
    let admission = Admission::new(client, templates, access, Metrics::new().0, Health::default());
    tokio::spawn(serve(listener, served, admission, CancellationToken::new(), Duration::ZERO));
    Ok((port, material))
}

/// Measures it, and prints what came out.
pub async fn measure(pace: Pace) -> Result<()> {
    // nothing is asked of it
    let client = Client::try_from(Config::new("http://127.0.0.1:1".parse()?))?;
    let (port, material) = start(client, Mode::Disabled).await?;
    println!("endpoint, {TASKS} tasks, {} requests a second for {} s, milliseconds:", pace.rate, pace.seconds);
    for (name, expressions) in KINDS {
        let (spec, config) = (graph(TASKS, expressions), tls(&material)?);
        let driven = tokio::task::spawn_blocking(move || {
            // the first second is not counted
            drive(port, &config, &spec, Pace { seconds: 1, ..pace })?;
            drive(port, &config, &spec, pace)
        });
        print(name, driven.await??);
    }
    Ok(())
}
