//! Arguments of the operator. Each has an environment variable; the chart sets those.

use std::{fs, hash::BuildHasher, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sink::SinkArgs;
use crate::{api, webhook::access};

/// Runs graphs of tasks on Kubernetes, each task as a plain Job, the moment it may start.
///
/// The cluster is the one that KUBECONFIG (or ~/.kube/config) names; without either, the one that
/// the operator runs in.
#[derive(Clone, Debug, Parser)]
#[command(name = "taskgraph-operator", version)]
pub struct Args {
    /// Serve the graphs of this namespace only; no rights beyond it are needed. Absent: of all namespaces
    #[arg(long, env = "TASKGRAPH_NAMESPACE", value_name = "NAME", value_parser = dns_label)]
    pub namespace: Option<String>,

    /// Address on which /healthz, /readyz, /status and /metrics are served
    #[arg(long, env = "TASKGRAPH_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// How logs are written (to standard error)
    #[arg(long, env = "TASKGRAPH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// What is logged: a level (error, warn, info, debug, trace) or filters by module, as in
    /// `info,taskgraph::controller=debug`
    #[arg(long, env = "TASKGRAPH_LOG_LEVEL", value_name = "FILTER", default_value = "info,kube_runtime=warn")]
    pub log_level: String,

    /// File with `logLevel` and `traceRatio`, which count more than the arguments; it is read again
    /// every few seconds
    #[arg(long, env = "TASKGRAPH_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,

    /// Sends a trace of each graph to this OpenTelemetry collector (OTLP over HTTP), as
    /// `http://collector:4318`. Absent: nothing is traced
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// What the collector wants to be sent along: NAME=VALUE, separated by commas
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        value_name = "HEADERS",
        default_value = "",
        hide_env_values = true
    )]
    pub otlp_headers: String,

    /// File with the certificates of whom to trust as the collector, as PEM. Absent: those of the machine or, if it has
    /// none, those that browsers trust
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_certificate: Option<PathBuf>,

    /// Part of graphs that are traced, 0 to 1. A graph with a valid annotation `traceparent` does
    /// as that says
    #[arg(long, env = "TASKGRAPH_TRACE_RATIO", value_name = "NUMBER", default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,

    /// Namespace of the Lease that tells replicas who works. Absent: the operator's own namespace
    /// or, outside a cluster, that of the kubeconfig's context
    #[arg(long, env = "TASKGRAPH_LEASE_NAMESPACE", value_name = "NAME", value_parser = dns_label)]
    pub lease_namespace: Option<String>,

    /// How long the Lease of a dead replica stands before another takes over (2s to 10m)
    #[arg(long, env = "TASKGRAPH_LEASE_DURATION", value_name = "DURATION", default_value = "12s", value_parser = lease_duration)]
    pub lease_duration: Duration,

    /// Name of this process in the Lease. A process that is started again under the same name goes
    /// on with its Lease at once; no two may share one. Absent: host name and a random number
    #[arg(long, env = "TASKGRAPH_IDENTITY", value_name = "NAME", value_parser = identity)]
    pub identity: Option<String>,

    /// Graphs that are worked on at once
    #[arg(long, env = "TASKGRAPH_CONCURRENCY", value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Address on which the API server is served that asks whether an object may be stored. Absent: none
    #[arg(long, env = "TASKGRAPH_WEBHOOK_LISTEN", value_name = "ADDRESS:PORT")]
    pub webhook_listen: Option<SocketAddr>,

    /// Name of the webhook's Service and, alike, of the Secret with its certificates, both in the
    /// namespace of the Lease. The Secret must exist; the operator fills it
    #[arg(long, env = "TASKGRAPH_WEBHOOK_SERVICE", value_name = "NAME", default_value = "taskgraph-webhook", value_parser = dns_label)]
    pub webhook_service: String,

    /// Name of the `ValidatingWebhookConfiguration` and the `MutatingWebhookConfiguration` that are told whom to trust
    #[arg(long, env = "TASKGRAPH_WEBHOOK_CONFIGURATION", value_name = "NAME", default_value = "taskgraph")]
    pub webhook_configuration: String,

    /// Folder with the webhook's certificate (tls.crt, tls.key), which somebody else renews. Absent:
    /// the operator makes its own
    #[arg(long, env = "TASKGRAPH_WEBHOOK_CERTIFICATES", value_name = "FOLDER")]
    pub webhook_certificates: Option<PathBuf>,

    /// Whether whoever writes a graph or a template must have the rights that it asks for
    #[arg(long, env = "TASKGRAPH_WEBHOOK_ACCESS", value_name = "MODE", default_value = "Enforce")]
    pub webhook_access: access::Mode,

    /// How long a certificate of the operator's own is good (1m to 1000d); it is renewed when a
    /// third of that is left
    #[arg(long, env = "TASKGRAPH_WEBHOOK_VALIDITY", value_name = "DURATION", default_value = "90d", value_parser = validity)]
    pub webhook_validity: Duration,

    /// Where `CloudEvents` go.
    #[command(flatten)]
    pub sink: SinkArgs,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// The name of this process in the Lease: `identity`, or one that no other process has.
    pub fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            // the standard library seeds each hasher from the system's random numbers
            let random = std::hash::RandomState::new().hash_one(std::process::id());
            format!("{}-{random:016x}", host.trim())
        })
    }
}

fn dns_label(text: &str) -> Result<String, String> {
    if api::is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err("a namespace's name has 1 to 63 characters: a to z, 0 to 9 and, between them, dashes".into())
    }
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<api::Duration>().map_err(|error| error.to_string())?;
    if (2_000..=600_000).contains(&duration.millis()) {
        Ok(Duration::from_millis(duration.millis()))
    } else {
        Err("write a duration from 2s to 10m".into())
    }
}

fn validity(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<api::Duration>().map_err(|error| error.to_string())?;
    if (60_000..=86_400_000_000).contains(&duration.millis()) {
        Ok(Duration::from_millis(duration.millis()))
    } else {
        Err("write a duration from 1m to 1000d".into())
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a number from 0 to 1".into())
}

fn identity(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.chars().all(|character| character.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 128 printable ASCII characters without spaces".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["taskgraph-operator"], arguments].concat())
    }

    #[test]
    fn definition_is_sound_and_every_argument_has_a_variable_and_help() {
        let command = Args::command();
        command.clone().debug_assert();
        for argument in
            command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        {
            let name = argument.get_id().as_str().to_uppercase();
            // those that every OpenTelemetry program has are named as everywhere
            let expected = match name.strip_prefix("OTLP_") {
                Some(name) => format!("OTEL_EXPORTER_OTLP_{name}"),
                None => format!("TASKGRAPH_{name}"),
            };
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
        }
    }

    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen.port(), 8080);
        assert_eq!(args.lease_duration, Duration::from_secs(12));
        assert_eq!(args.concurrency, 64);
        assert_ne!(args.identity(), args.identity(), "two processes never share a name");
    }

    #[test]
    fn refuses_what_cannot_work() {
        for arguments in [
            ["--namespace", ""],
            ["--namespace", "Upper"],
            ["--namespace", "-a"],
            ["--lease-duration", "1s"],
            ["--lease-duration", "11m"],
            ["--lease-duration", "15"],
            ["--concurrency", "0"],
            ["--identity", "two words"],
            ["--log-format", "xml"],
            ["--listen", "8080"],
            ["--webhook-validity", "59s"],
            ["--webhook-validity", "1001d"],
            ["--webhook-service", "A"],
            ["--trace-ratio", "1.1"],
            ["--trace-ratio", "nan"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }
}
