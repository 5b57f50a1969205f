//! One message of `JetStream` an event. Its id is the message's, so within the stream's window (`duplicate_window`, two
//! minutes by default) what is sent twice is stored once.

use std::{sync::Arc, time::Duration};

use async_nats::{
    AuthError, Client, ConnectOptions, Event as Change, ServerAddr,
    connection::State,
    jetstream::{self, context::PublishErrorKind, message::PublishMessage},
};
use tokio::sync::watch;
use tracing::{debug, info};

use super::{
    SinkArgs, SinkError,
    secret::{Files, Secret},
};
use crate::controller::cloud_events::event::{self, Event, GraphName, TYPE_PREFIX};

/// How long the acknowledgement of a message may take.
const ACK: Duration = Duration::from_secs(10);
/// How long a connection is waited for at a time.
const CONNECTION: Duration = Duration::from_secs(3);
/// What the client may have at hand to write: no more than is sent at once.
const IN_HAND: usize = 64;

/// Servers, any of which may be asked.
pub type Addresses = Arc<[ServerAddr]>;

/// A stream of NATS.
#[derive(Debug)]
pub struct NatsSink {
    client: Client,
    stream: jetstream::Context,
    subject: String,
    /// Why there is no connection; changes whenever it is tried again.
    wrong: watch::Receiver<String>,
}

impl NatsSink {
    /// Connects in the background, and again whenever the connection is lost.
    pub async fn new(servers: &Addresses, args: &SinkArgs) -> anyhow::Result<Self> {
        let files = Files::of(args);
        let mut options = ConnectOptions::with_auth_callback(move |_| {
            let files = files.clone();
            async move {
                let secret = files.read().await.map_err(AuthError::new)?;
                Ok(secret.map(Secret::auth).unwrap_or_default())
            }
        });
        let (why, wrong) = watch::channel("not connected yet".to_owned());
        let why = Arc::new(why);
        let tell = move |change| {
            tell(&why, &change);
            std::future::ready(())
        };
        options = options.name("taskgraph").retry_on_initial_connect().max_reconnects(None);
        options = options.client_capacity(IN_HAND).event_callback(tell);
        if let Some(file) = &args.events_ca_file {
            options = options.add_root_certificates(file.clone());
        }
        let client = options.connect(&servers[..]).await?;
        let mut stream = jetstream::new(client.clone());
        stream.set_timeout(ACK);
        Ok(Self { client, stream, subject: args.events_nats_subject.clone(), wrong })
    }

    /// Sends one event, and waits until the stream has stored it.
    pub async fn send(&self, graph: &GraphName, event: &Event, body: Vec<u8>) -> Result<(), SinkError> {
        let kind = event.type_.strip_prefix(TYPE_PREFIX).unwrap_or(&event.type_);
        let subject = format!("{}.{}.{}.{kind}", self.subject, graph.namespace, graph.name);
        let message = PublishMessage::build()
            .payload(body.into())
            .message_id(&event.id)
            .header("Content-Type", event::CONTENT_TYPE);
        // what is given to the client without a connection would wait there, in memory, and be sent however late
        if tokio::time::timeout(CONNECTION, self.connected()).await.is_err() {
            return Err(SinkError::Failed(format!("no connection to NATS: {}", *self.wrong.borrow())));
        }
        let sent = async { self.stream.send_publish(subject, message).await?.await };
        match tokio::time::timeout(ACK, sent).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(SinkError::Refused(error.to_string()))
            }
            Ok(Err(error)) => Err(SinkError::Failed(error.to_string())),
            Err(_) => Err(SinkError::Failed(format!("not acknowledged within {} s", ACK.as_secs()))),
        }
    }

    /// Waits for a connection.
    async fn connected(&self) {
        let mut changes = self.wrong.clone();
        while self.client.connection_state() != State::Connected {
            // the client may drop what it has to tell
            if let Ok(Err(_)) = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await {
                // it has ended, and connects no more
                return std::future::pending().await;
            }
        }
    }
}

fn tell(why: &watch::Sender<String>, change: &Change) {
    match change {
        Change::Connected => info!("connected to NATS"),
        change => debug!(%change, "NATS"),
    }
    let told = match change {
        Change::ClientError(error) => error.to_string(),
        change => change.to_string(),
    };
    why.send_replace(told);
}

/// Addresses of servers, with commas between.
pub(super) fn addresses(text: &str) -> Result<Addresses, String> {
    let one = |text: &str| {
        if !(text.starts_with("nats://") || text.starts_with("tls://")) {
            return Err(format!("{text:?}: write an address that begins with nats:// or tls://"));
        }
        let server: ServerAddr = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        if server.has_user_pass() {
            return Err("no user or password belongs there: give a file or folder of them".into());
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
