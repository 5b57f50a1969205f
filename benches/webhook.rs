//! What admission costs at its own endpoint, over TLS: graphs of 500 tasks, 100 requests a second from ten connections,
//! as an API server keeps them. Target: 99 of 100 answers within 20 ms. No cluster takes part.
//!
//!     cargo bench --bench webhook            # 10 s of each kind
//!     SECONDS=60 RATE=200 cargo bench --bench webhook

use std::{
    env,
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
    webhook::{
        PATH, access,
        admission::Admission,
        certificates::{Material, Policy},
        serve,
        tls::Served,
    },
};
use tokio::net::TcpListener;

const TASKS: usize = 500;
const CONNECTIONS: u32 = 10;

/// A graph in layers of 50; every second task has an expression if `expressions`: its own, or one of ten.
fn graph(expressions: Option<usize>) -> Value {
    let task = |number: usize| {
        let before: Vec<String> = (number >= 50).then(|| format!("t{}", number - 50)).into_iter().collect();
        let value = match expressions {
            Some(kinds) if number.is_multiple_of(2) => format!("${{{{ args.source + '{}' }}}}", number % kinds),
            _ => format!("value {number}"),
        };
        json!({
            "name": format!("t{number}"), "dependsOn": before, "timeout": "10m",
            "retry": {"limit": 3, "backoff": {"initial": "1s", "factor": 2, "max": "5m"}},
            "container": {
                "image": "localhost/busybox:1", "command": ["sh", "-c", "echo done"],
                "env": [{"name": "VALUE", "value": value}], "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            },
        })
    };
    json!({"arguments": {"source": "orders.csv"}, "tasks": (0..TASKS).map(task).collect::<Vec<_>>()})
}

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

/// Milliseconds from when a request was due to its answer: one that had to wait for its turn counts as late.
fn drive(port: u16, tls: &Arc<ClientConfig>, spec: &Value, rate: u32, seconds: u32) -> Result<Vec<f64>> {
    let begin = Instant::now() + Duration::from_millis(200);
    let send = &|first: u32| -> Result<Vec<f64>> {
        let mut connection = connect(port, Arc::clone(tls))?;
        let body = review(spec, first);
        let mut times = Vec::new();
        for number in (first..rate * seconds).step_by(CONNECTIONS as usize) {
            let due = begin + Duration::from_secs(1) * number / rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = ask(&mut connection, &body)?;
            times.push(due.elapsed().as_secs_f64() * 1000.0);
            let answer: Value = serde_json::from_slice(&answer)?;
            ensure!(answer["response"]["allowed"] == json!(true), "refused: {answer}");
        }
        Ok(times)
    };
    let mut times = thread::scope(|scope| -> Result<Vec<f64>> {
        let senders: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || send(first))).collect();
        let mut times = Vec::new();
        for sender in senders {
            times.extend(sender.join().map_err(|_| anyhow!("a sender panicked"))??);
        }
        Ok(times)
    })?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn tls(material: &Material) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(material.authorities.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn setting(name: &str, default: u32) -> u32 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` asks for nothing but that it starts
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let (rate, seconds) = (setting("RATE", 100), setting("SECONDS", 10));
    let policy = Policy { names: vec!["localhost".to_owned()], validity: Duration::from_hours(1) };
    let made = policy.renew(&Material::default(), false, jiff::Timestamp::now())?;
    let material = made.context("an empty Secret is filled")?;
    let served = Served::default();
    served.set(&material.certificate, &material.key)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    // nothing is asked of it
    let client = Client::try_from(Config::new("http://127.0.0.1:1".parse()?))?;
    let admission = Admission::new(client, Caches::default().reader(), access::Mode::Disabled);
    tokio::spawn(serve(listener, served, admission, std::future::pending()));

    println!("{TASKS} tasks, {rate} requests a second for {seconds} s, milliseconds:");
    for (name, expressions) in
        [("no expressions", None), ("250 tasks with one of 10 expressions", Some(20)), ("250 expressions", Some(TASKS))]
    {
        let spec = graph(expressions);
        let config = tls(&material)?;
        let driven = tokio::task::spawn_blocking(move || {
            // the first second is not counted
            drive(port, &config, &spec, rate, 1)?;
            drive(port, &config, &spec, rate, seconds)
        });
        let times = driven.await??;
        let at =
            |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
        println!("  {name:<38} p50 {:6.2}  p99 {:6.2}  most {:6.2}", at(50), at(99), at(100));
    }
    Ok(())
}
