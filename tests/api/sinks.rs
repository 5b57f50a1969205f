//! Sinks of CloudEvents that want to know who sends, over TLS with an authority of their own.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::Result;

use crate::{
    cloud_events::{expected, judge, operate, script, spec, until_told},
    fixture::Fixture,
    support::{
        ControlPlane,
        namespace::PATIENCE,
        sink::{Entry, HttpSink, Nats, Tls},
    },
};

/// A folder for files of a test.
fn folder(fixture: &Fixture, name: &str) -> PathBuf {
    ControlPlane::shared().dir().join(format!("{}-{name}", fixture.namespace.name))
}

/// A folder that a Secret could be mounted as.
fn login(fixture: &Fixture, password: &str) -> Result<PathBuf> {
    let folder = folder(fixture, "login");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("username"), "taskgraph")?;
    fs::write(folder.join("password"), password)?;
    Ok(folder)
}

/// Waits until `/readyz`, which is content, tells why nothing is taken, or nothing any more.
async fn until_noted(fixture: &Fixture, why: Option<&str>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let (code, page) = fixture.operator.get("/readyz").await?;
        let noted = page.lines().find(|line| line.starts_with("CloudEvents: the sink does not take them: "));
        if code == 200 && why.map_or(noted.is_none(), |why| noted.is_some_and(|noted| noted.contains(why))) {
            return Ok(());
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "{code} {page:?}, and not {why:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn over_https_the_right_authority_and_password_are_needed() -> Result<()> {
    let mut fixture = Fixture::new("https", script).await?;
    let (tls, other) = (Tls::new(folder(&fixture, "tls"))?, Tls::new(folder(&fixture, "other"))?);
    let (right, wrong) = (tls.file("ca.crt"), other.file("ca.crt"));
    let sink = HttpSink::secure(tls).await?;
    let login = login(&fixture, "first")?.display().to_string();
    let args = |ca: String| {
        ["--events-http-url", &sink.url(), "--events-login-folder", &login, "--events-ca-file", &ca].map(String::from)
    };
    operate(&mut fixture, &args(wrong)).await?;
    fixture.namespace.create("g1", spec()).await?;
    fixture.namespace.until_finished("g1").await;
    until_noted(&fixture, Some("certificate")).await?;
    assert!(sink.received().is_empty(), "nothing is told to whom is not trusted");

    operate(&mut fixture, &args(right)).await?;
    let first = until_told(&fixture.namespace, "g1").await;
    judge(&sink.taken(), &first);
    until_noted(&fixture, None).await?;
    // replaced while it runs
    fs::write(folder(&fixture, "login").join("password"), "second\n")?;
    fixture.namespace.create("g2", spec()).await?;
    let second = until_told(&fixture.namespace, "g2").await;
    judge(&sink.taken(), &second);
    // taskgraph:first, taskgraph:second
    for one in sink.received() {
        let is_first = one.event["data"]["graph"]["name"] == "g1";
        let wanted = if is_first { "Basic dGFza2dyYXBoOmZpcnN0" } else { "Basic dGFza2dyYXBoOnNlY29uZA==" };
        assert_eq!(one.headers[0], wanted);
    }
    Ok(())
}

#[tokio::test]
async fn nats_over_tls_lets_in_who_has_the_right_password() -> Result<()> {
    let mut fixture = Fixture::new("natstls", script).await?;
    let tls = Tls::new(folder(&fixture, "tls"))?;
    let ca = tls.file("ca.crt");
    let mut nats = Nats::away(Entry::Login("taskgraph", "letmein", tls))?;
    nats.start()?;
    nats.make_stream("EVENTS", "taskgraph.>").await?;
    let login = login(&fixture, "wrong")?.display().to_string();
    let args = ["--events-nats-url", &nats.url(), "--events-login-folder", &login, "--events-ca-file", &ca];
    operate(&mut fixture, &args.map(String::from)).await?;
    fixture.namespace.create("g", spec()).await?;
    fixture.namespace.until_finished("g").await;
    until_noted(&fixture, Some("authorization violation")).await?;
    let log = fixture.operator.log_tail(usize::MAX);
    let told = log.lines().filter(|line| line.contains("authorization violation")).count();
    assert!((1..=2).contains(&told), "told once a minute: {log}");
    // it is mended without a restart
    fs::write(folder(&fixture, "login").join("password"), "letmein")?;
    let graph = until_told(&fixture.namespace, "g").await;
    let stored = nats.stored("EVENTS").await?;
    let events: Vec<_> = stored.into_iter().map(|(_, event)| event).collect();
    judge(&events, &graph);
    assert_eq!(events.len(), expected(&graph).len(), "each once");
    until_noted(&fixture, None).await?;
    Ok(())
}
