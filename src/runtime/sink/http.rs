//! One POST an event, in structured mode. The client is kube's, pointed elsewhere: the same TLS.

use std::{sync::LazyLock, time::Duration};

use http::{
    Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use kube::{Client, Config, client::Body};

use super::{SinkArgs, SinkError, secret::Files};
use crate::{
    controller::cloud_events::event,
    runtime::{client::AGENT, connections::stack, telemetry::chain},
};

/// How long a sink may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection to it may take to stand.
const CONNECT: Duration = Duration::from_secs(5);

/// As it stands in each request.
static EVENT: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static(event::CONTENT_TYPE));

/// An HTTP address that takes events.
pub struct HttpSink {
    client: Client,
    target: Uri,
    secret: Files,
}

impl std::fmt::Debug for HttpSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the query may hold a key
        formatter.debug_struct("HttpSink").field("path", &self.target.path()).finish_non_exhaustive()
    }
}

impl HttpSink {
    /// Nothing is sent yet; the files that the arguments name are read.
    pub fn new(url: &Uri, args: &SinkArgs) -> anyhow::Result<Self> {
        let mut base = url.clone().into_parts();
        let target = base.path_and_query.take();
        base.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let mut config = Config::new(Uri::from_parts(base)?);
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.headers.push((USER_AGENT, AGENT.clone()));
        config.root_cert_file.clone_from(&args.events_ca_file);
        let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        config.root_cert = Some(public.iter().map(|certificate| certificate.to_vec()).collect());
        let target = target.map_or_else(|| Uri::from_static("/"), Uri::from);
        Ok(Self { client: stack(&config)?.build(), target, secret: Files::of(args) })
    }

    /// Sends one event. Answers other than 2xx are no success; where a redirect leads is not followed.
    pub async fn send(&self, body: Vec<u8>) -> Result<(), SinkError> {
        let request =
            Request::builder().method(Method::POST).uri(self.target.clone()).header(CONTENT_TYPE, EVENT.clone());
        let secret = self.secret.read().await.map_err(SinkError::Failed)?;
        let request = match secret.map(|secret| secret.header()).transpose().map_err(SinkError::Failed)? {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        };
        let request = request.body(Body::from(body)).map_err(|error| SinkError::Refused(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, self.client.send(request)).await;
        let answer = answer
            .map_err(|_| SinkError::Failed(format!("no answer within {} s", ANSWER.as_secs())))?
            .map_err(|error| SinkError::Failed(chain(&error)))?;
        let (status, later) = (answer.status(), answer.headers().contains_key(RETRY_AFTER));
        // a connection whose answer was read serves the next request
        let _ = tokio::time::timeout(CONNECT, axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 16))
            .await;
        judge(status, later)
    }
}

/// What an answer means for the event. Refused is what is wrong with the event itself. What is wrong with the token, the
/// address or the sink can be mended, and the event sent then.
fn judge(status: StatusCode, later: bool) -> Result<(), SinkError> {
    let told = format!("the sink answered {status}");
    match status.as_u16() {
        200..300 => Ok(()),
        401 | 402 | 403 | 404 | 407 | 408 | 421 | 423 | 425 | 429 => Err(SinkError::Failed(told)),
        400..500 if !later => Err(SinkError::Refused(told)),
        _ => Err(SinkError::Failed(told)),
    }
}

/// An address that can be posted to.
pub(super) fn address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("no user or password belongs there: give a file or folder of them".into())
        }
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err("write an address that begins with http:// or https://".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mended_is_sent_again() {
        let verdict = |code: u16, later| match judge(StatusCode::from_u16(code).unwrap(), later) {
            Ok(()) => "taken",
            Err(SinkError::Refused(_)) => "refused",
            Err(SinkError::Failed(_)) => "again",
        };
        for (code, expected) in [
            (200, "taken"),
            (202, "taken"),
            (204, "taken"),
            (302, "again"),
            (400, "refused"),
            (401, "again"),
            (403, "again"),
            (404, "again"),
            (408, "again"),
            (410, "refused"),
            (413, "refused"),
            (415, "refused"),
            (422, "refused"),
            (429, "again"),
            (500, "again"),
            (503, "again"),
        ] {
            assert_eq!(verdict(code, false), expected, "{code}");
        }
        assert_eq!(verdict(409, true), "again", "with Retry-After");
    }

    #[test]
    fn a_password_in_the_address_is_refused() {
        assert!(address("https://user:secret@sink").is_err());
    }
}
