//! Where CloudEvents go: to an HTTP address, or into a stream of NATS.

mod http;
mod nats;
mod secret;

use std::path::PathBuf;

use clap::Args;

pub use self::{http::HttpSink, nats::NatsSink};
use crate::controller::cloud_events::{
    event::{Event, GraphName},
    render::Style,
};

/// Arguments about CloudEvents.
#[derive(Clone, Debug, Default, Args)]
pub struct SinkArgs {
    /// Send what happens to graphs and tasks as CloudEvents to this http(s) address, one POST each
    #[arg(long, env = "TASKGRAPH_EVENTS_HTTP_URL", value_name = "URL", value_parser = http::address, conflicts_with = "events_nats_url")]
    pub events_http_url: Option<::http::Uri>,

    /// Publish it to NATS at this address (nats://HOST:PORT, with TLS tls://HOST:PORT; several with commas). A `JetStream`
    /// must take the subjects; none is made
    #[arg(long, env = "TASKGRAPH_EVENTS_NATS_URL", value_name = "URL", value_parser = nats::addresses)]
    pub events_nats_url: Option<nats::Addresses>,

    /// What subjects begin with: an event has SUBJECT.NAMESPACE.GRAPH.TYPE, as `taskgraph.team.etl.task.started`
    #[arg(long, env = "TASKGRAPH_EVENTS_NATS_SUBJECT", value_name = "SUBJECT", default_value = "taskgraph", value_parser = nats::subject)]
    pub events_nats_subject: String,

    /// File with a token for the sink: a bearer token for HTTP (or, with a scheme before it, the whole of the header
    /// `Authorization`), the token of NATS. It is read anew for each event or connection
    #[arg(long, env = "TASKGRAPH_EVENTS_TOKEN_FILE", value_name = "FILE")]
    pub events_token_file: Option<PathBuf>,

    /// Folder with the files `username` and `password` for the sink, as a Secret of the type kubernetes.io/basic-auth is
    /// mounted. They are read anew as a token is
    #[arg(long, env = "TASKGRAPH_EVENTS_LOGIN_FOLDER", value_name = "FOLDER", conflicts_with = "events_token_file")]
    pub events_login_folder: Option<PathBuf>,

    /// File with the certificates of whom to trust for the sink, as PEM. Absent: for HTTP, the public ones that browsers
    /// trust; for NATS, those of the system
    #[arg(long, env = "TASKGRAPH_EVENTS_CA_FILE", value_name = "FILE")]
    pub events_ca_file: Option<PathBuf>,

    /// Name of this cluster, for the source of events: //NAME/apis/...
    #[arg(long, env = "TASKGRAPH_EVENTS_CLUSTER", value_name = "NAME", value_parser = cluster)]
    pub events_cluster: Option<String>,

    /// Send outputs of tasks and graphs along: they may be large, or secret
    #[arg(long, env = "TASKGRAPH_EVENTS_OUTPUTS")]
    pub events_outputs: bool,
}

/// A sink, and how events are written for it.
#[derive(Debug)]
pub struct Outlet {
    /// Where they go.
    pub sink: Sink,
    /// How they are written.
    pub style: Style,
}

/// Where events go.
#[derive(Debug)]
pub enum Sink {
    /// An HTTP address.
    Http(HttpSink),
    /// A stream of NATS.
    Nats(NatsSink),
}

/// Why an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It never will be.
    #[error("refused: {0}")]
    Refused(String),
    /// Not now: try again.
    #[error("{0}")]
    Failed(String),
}

impl Outlet {
    /// What the arguments ask for. `None`: nothing. Whether the sink answers is not asked; that files can be read is.
    pub async fn open(args: &SinkArgs) -> anyhow::Result<Option<Self>> {
        // that it is there is worth knowing at once
        secret::Files::of(args).read().await.map_err(anyhow::Error::msg)?;
        let sink = match (&args.events_http_url, &args.events_nats_url) {
            (Some(url), _) => Sink::Http(HttpSink::new(url, args)?),
            (None, Some(url)) => Sink::Nats(NatsSink::new(url, args).await?),
            (None, None) => return Ok(None),
        };
        let style = Style { cluster: args.events_cluster.clone(), outputs: args.events_outputs };
        Ok(Some(Self { sink, style }))
    }
}

impl Sink {
    /// Sends one event, and waits until it is taken.
    pub async fn send(&self, graph: &GraphName, event: &Event) -> Result<(), SinkError> {
        let body = serde_json::to_vec(event).map_err(|error| SinkError::Refused(error.to_string()))?;
        match self {
            Self::Http(sink) => sink.send(body).await,
            Self::Nats(sink) => sink.send(graph, event, body).await,
        }
    }
}

/// The name of a cluster, as the authority of an address.
fn cluster(text: &str) -> Result<String, String> {
    let good = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if (1..=253).contains(&text.len()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 253 letters, digits, dashes, dots and underscores".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SinkArgs,
    }

    fn parse(arguments: &[&str]) -> Result<SinkArgs, clap::Error> {
        Line::try_parse_from([&["test"], arguments].concat()).map(|line| line.args)
    }

    #[test]
    fn refuses_what_cannot_work() {
        for arguments in [
            ["--events-http-url", "sink:8080"].as_slice(),
            &["--events-http-url", "ftp://sink"],
            &["--events-http-url", "/path"],
            &["--events-nats-url", "http://nats"],
            &["--events-nats-url", ""],
            &["--events-nats-subject", "a b"],
            &["--events-nats-subject", "a.>"],
            &["--events-nats-subject", "a..b"],
            &["--events-cluster", "a/b"],
            &["--events-http-url", "http://a", "--events-nats-url", "nats://b"],
            &["--events-token-file", "a", "--events-login-folder", "b"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn takes_what_can() {
        let args =
            parse(&["--events-http-url", "https://sink.example/in?key=1", "--events-cluster", "prod-1"]).unwrap();
        assert_eq!(args.events_http_url.unwrap().path(), "/in");
        let args = parse(&["--events-nats-url", "nats://a:4222,tls://b", "--events-nats-subject", "a.b"]).unwrap();
        assert!(args.events_nats_url.is_some() && !args.events_outputs);
        assert!(parse(&[]).unwrap().events_http_url.is_none());
    }
}
