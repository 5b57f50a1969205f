//! One message of `JetStream` an event. Its id is the message's, so within the stream's window (`duplicate_window`, two
//! minutes by default) what is sent twice is stored once.

use std::time::Duration;

use async_nats::{
    Auth, AuthError, ConnectOptions, Event as Change, ServerAddr,
    jetstream::{self, context::PublishErrorKind, message::PublishMessage},
};
use tracing::{debug, info};

use super::{SinkArgs, SinkError, read_token};
use crate::controller::cloud_events::event::{self, Event, GraphName, TYPE_PREFIX};

/// How long the acknowledgement of a message may take.
const ACK: Duration = Duration::from_secs(10);

/// Servers, any of which may be asked.
pub type Addresses = std::sync::Arc<[ServerAddr]>;

/// A stream of NATS.
#[derive(Debug)]
pub struct NatsSink {
    stream: jetstream::Context,
    subject: String,
}

impl NatsSink {
    /// Connects in the background, and again whenever the connection is lost.
    pub async fn new(servers: &Addresses, args: &SinkArgs) -> anyhow::Result<Self> {
        let mut options = match &args.events_token_file {
            None => ConnectOptions::new(),
            Some(file) => {
                let file = file.clone();
                ConnectOptions::with_auth_callback(move |_| {
                    let file = file.clone();
                    async move {
                        let mut auth = Auth::new();
                        auth.token = Some(read_token(file).await.map_err(AuthError::new)?);
                        Ok(auth)
                    }
                })
            }
        };
        options = options.name("taskgraph").retry_on_initial_connect().max_reconnects(None).event_callback(tell);
        if let Some(file) = &args.events_ca_file {
            options = options.add_root_certificates(file.clone());
        }
        let client = options.connect(&servers[..]).await?;
        let mut stream = jetstream::new(client);
        stream.set_timeout(ACK);
        Ok(Self { stream, subject: args.events_nats_subject.clone() })
    }

    /// Sends one event, and waits until the stream has stored it.
    pub async fn send(&self, graph: &GraphName, event: &Event, body: Vec<u8>) -> Result<(), SinkError> {
        let kind = event.type_.strip_prefix(TYPE_PREFIX).unwrap_or(&event.type_);
        let subject = format!("{}.{}.{}.{kind}", self.subject, graph.namespace, graph.name);
        let message = PublishMessage::build()
            .payload(body.into())
            .message_id(&event.id)
            .header("Content-Type", event::CONTENT_TYPE);
        let sent = async { self.stream.send_publish(subject, message).await?.await };
        // while there is no connection, messages wait for one; not for ever
        match tokio::time::timeout(ACK, sent).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(SinkError::Refused(error.to_string()))
            }
            Ok(Err(error)) => Err(SinkError::Failed(error.to_string())),
            Err(_) => Err(SinkError::Failed(format!("not acknowledged within {} s", ACK.as_secs()))),
        }
    }
}

async fn tell(change: Change) {
    match change {
        Change::Connected => info!("connected to NATS"),
        change => debug!(%change, "NATS"),
    }
}

/// Addresses of servers, with commas between.
pub(super) fn addresses(text: &str) -> Result<Addresses, String> {
    let one = |text: &str| {
        if !(text.starts_with("nats://") || text.starts_with("tls://")) {
            return Err(format!("{text:?}: write an address that begins with nats:// or tls://"));
        }
        let server: ServerAddr = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        if server.has_user_pass() {
            return Err("no user or password belongs there: give a token file".into());
        }
        Ok(server)
    };
    text.split(',').map(|text| one(text.trim())).collect()
}

/// The beginning of subjects.
pub(super) fn subject(text: &str) -> Result<String, String> {
    let good = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if text.len() <= 128 && text.split('.').all(good) {
        Ok(text.to_owned())
    } else {
        Err("write words of letters, digits, dashes and underscores, with dots between".into())
    }
}
