//! Arguments of the operator. Each has an environment variable; the chart sets those.

use std::{fs, hash::BuildHasher, net::SocketAddr, time::Duration};

use clap::{Parser, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sink::SinkArgs;
use crate::api;

/// Runs graphs of tasks on Kubernetes, each task as a plain Job, the moment it may start.
///
/// The cluster is the one that KUBECONFIG (or ~/.kube/config) names; without either, the one that
/// the operator runs in.
#[derive(Clone, Debug, Parser)]
#[command(name = "taskgraph-operator", version)]
pub struct Args {
    /// Serve the graphs of this namespace only. Absent: of all namespaces
    #[arg(long, env = "TASKGRAPH_NAMESPACE", value_name = "NAME", value_parser = dns_label)]
    pub namespace: Option<String>,

    /// Address on which /healthz, /readyz and /metrics are served
    #[arg(long, env = "TASKGRAPH_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// How logs are written (to standard error)
    #[arg(long, env = "TASKGRAPH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// What is logged: a level (error, warn, info, debug, trace) or filters by module, as in
    /// `info,taskgraph::controller=debug`
    #[arg(long, env = "TASKGRAPH_LOG_LEVEL", value_name = "FILTER", default_value = "info,kube_runtime=warn")]
    pub log_level: String,

    /// Namespace of the Lease that tells replicas who works. Absent: the operator's own namespace
    /// or, outside a cluster, that of the kubeconfig's context
    #[arg(long, env = "TASKGRAPH_LEASE_NAMESPACE", value_name = "NAME", value_parser = dns_label)]
    pub lease_namespace: Option<String>,

    /// How long the Lease of a dead replica stands before another takes over (2s to 10m)
    #[arg(long, env = "TASKGRAPH_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = lease_duration)]
    pub lease_duration: Duration,

    /// Name of this process in the Lease. A process that is started again under the same name goes
    /// on with its Lease at once; no two may share one. Absent: host name and a random number
    #[arg(long, env = "TASKGRAPH_IDENTITY", value_name = "NAME", value_parser = identity)]
    pub identity: Option<String>,

    /// Graphs that are worked on at once
    #[arg(long, env = "TASKGRAPH_CONCURRENCY", value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

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
            let expected = format!("TASKGRAPH_{}", argument.get_id().as_str().to_uppercase());
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
        }
    }

    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen.port(), 8080);
        assert_eq!(args.lease_duration, Duration::from_secs(15));
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
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }
}
