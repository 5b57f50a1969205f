//! One request to the collector: OTLP over HTTP, as <https://opentelemetry.io/docs/specs/otlp/#otlphttp> has it.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::Error;
use crate::runtime::{client::AGENT, connections::pool, telemetry::chain};

/// How long the collector may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// What of an answer is read.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where spans are sent to.
#[derive(Clone, Debug)]
pub struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken, but for so many spans.
    Taken {
        /// Spans that the collector refused.
        refused: u64,
    },
    /// It may be taken later, at the earliest after this time.
    Later(Option<Duration>, String),
    /// It is never taken.
    Never(String),
}

impl Collector {
    /// The collector at `endpoint`, as in `OTEL_EXPORTER_OTLP_ENDPOINT`; `headers` as in `OTEL_EXPORTER_OTLP_HEADERS`,
    /// `authorities`, a file, as in `OTEL_EXPORTER_OTLP_CERTIFICATE`. Nothing is sent yet.
    pub fn new(endpoint: &str, headers: &str, authorities: Option<&Path>) -> Result<Self, Error> {
        let wrong = || Error::Endpoint(endpoint.to_owned());
        let uri: Uri = format!("{}/v1/traces", endpoint.trim_end_matches('/')).parse().map_err(|_| wrong())?;
        if uri.host().is_none() {
            return Err(wrong());
        }
        let builder = HttpsConnectorBuilder::new();
        let connector = match uri.scheme_str() {
            Some("https") => builder.with_tls_config(trusting(authorities)?).https_only().enable_http1().build(),
            // no certificate is looked at
            Some("http") => {
                builder.with_tls_config(config(RootCertStore::empty())).https_or_http().enable_http1().build()
            }
            _ => return Err(wrong()),
        };
        Ok(Self { client: pool().build(connector), uri, headers: parse_headers(headers)? })
    }

    /// Sends an encoded `ExportTraceServiceRequest`.
    pub(super) async fn post(&self, body: Bytes) -> Answer {
        match tokio::time::timeout(PATIENCE, self.try_post(body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Later(None, error),
            Err(_) => Answer::Later(None, format!("no answer within {PATIENCE:?}")),
        }
    }

    async fn try_post(&self, body: Bytes) -> Result<Answer, String> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, AGENT.clone());
        headers.extend(self.headers.clone());
        let (head, body) = self.client.request(request).await.map_err(|error| chain(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
        let body = body.map_err(|error| error.to_string())?;
        Ok(judge(&Response::from_parts(head, body)))
    }
}

/// Trusts the authorities in a file; without one, those of the machine or, in an image that has none, those that browsers
/// trust.
fn trusting(authorities: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let Some(file) = authorities else {
        if let Ok(builder) = ClientConfig::builder().with_native_roots() {
            return Ok(builder.with_no_client_auth());
        }
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        return Ok(config(roots));
    };
    let untrusted = |why: String| Error::Trust { file: file.to_owned(), why };
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| untrusted(error.to_string()))? {
        let certificate = certificate.map_err(|error| untrusted(error.to_string()))?;
        roots.add(certificate).map_err(|error| untrusted(error.to_string()))?;
    }
    if roots.is_empty() { Err(untrusted("there is no certificate in it".to_owned())) } else { Ok(config(roots)) }
}

fn config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// What an answer means. Again are tried those that the specification names, and nothing else.
fn judge(answer: &Response<Bytes>) -> Answer {
    let status = answer.status();
    let told = || format!("the collector answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Answer::Later(pause.map(Duration::from_secs), told())
        }
        _ if status.is_success() => {
            // an answer that cannot be read refuses nothing
            let answer = ExportTraceServiceResponse::decode(answer.body().clone()).unwrap_or_default();
            let refused = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
            Answer::Taken { refused: refused.try_into().unwrap_or(0) }
        }
        _ => Answer::Never(told()),
    }
}

/// Reads `NAME=VALUE,...`; values may hold `%20` and the like.
fn parse_headers(text: &str) -> Result<HeaderMap, Error> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::from_bytes(&decoded(value.trim())?).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.trim()).ok()?, value))
    };
    pairs.map(|pair| header(pair).ok_or(Error::Headers)).collect()
}

/// Replaces `%XX`.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = after.get(2..)?;
    }
    bytes.extend(rest.bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;
    use crate::webhook::{
        certificates::{Material, Policy},
        tls::{Connections, Served},
    };

    #[tokio::test]
    async fn endpoints_and_headers_are_checked() {
        for (endpoint, path) in [
            ("http://collector:4318", Some("/v1/traces")),
            ("http://collector:4318/", Some("/v1/traces")),
            ("http://gateway/otlp", Some("/otlp/v1/traces")),
            ("collector:4318", None),
            ("grpc://collector", None),
            ("", None),
        ] {
            let collector = Collector::new(endpoint, "", None);
            assert_eq!(collector.ok().map(|collector| collector.uri.path().to_owned()).as_deref(), path, "{endpoint}");
        }
        let headers = parse_headers("authorization=Bearer%20a=b, x-scope = team ,").unwrap();
        assert_eq!(headers["authorization"], "Bearer a=b");
        assert_eq!(headers["x-scope"], "team");
        for wrong in ["a", "a=%zz", "a=%0a", "a b=c", "a=%é"] {
            assert!(matches!(parse_headers(wrong), Err(Error::Headers)), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_authority_of_ones_own_is_trusted_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let policy = Policy { names: vec!["localhost".into()], validity: Duration::from_hours(1) };
        let [ours, other] =
            [(); 2].map(|()| policy.renew(&Material::default(), true, jiff::Timestamp::now()).unwrap().unwrap());
        let served = Served::default();
        served.set(&ours.certificate, &ours.key).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(|| async {}));
        let serving = tokio::spawn(axum::serve(Connections::on(listener, served).unwrap(), router).into_future());

        let file = folder.path().join("ca.crt");
        let told = Collector::new(&endpoint, "", Some(&file)).unwrap_err().to_string();
        assert!(told.starts_with("--otlp-certificate ") && told.contains("ca.crt"), "{told}");
        for (text, wanted) in
            [(&ours.authorities, Ok(())), (&other.authorities, Err("certificate")), (&String::new(), Err("none"))]
        {
            std::fs::write(&file, text).unwrap();
            let Ok(collector) = Collector::new(&endpoint, "", Some(&file)) else {
                assert_eq!(wanted, Err("none"));
                continue;
            };
            match (collector.post(Bytes::new()).await, wanted) {
                (Answer::Taken { refused: 0 }, Ok(())) => {}
                (Answer::Later(None, why), Err(part)) => assert!(why.contains(part), "{why}"),
                (answer, wanted) => panic!("{answer:?}, not {wanted:?}"),
            }
        }
        // without a file, some are trusted on any machine
        let public = Collector::new(&endpoint, "", None).unwrap();
        assert!(matches!(public.post(Bytes::new()).await, Answer::Later(..)));
        serving.abort();
    }

    #[test]
    fn answers_are_judged_as_the_specification_has_it() {
        let answer = |status: u16, body: Vec<u8>| {
            let answer = Response::builder().status(status).header(RETRY_AFTER, "7").body(body.into()).unwrap();
            judge(&answer)
        };
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "why".into() };
        let partial = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(answer(200, partial), Answer::Taken { refused: 3 });
        for body in ["", "OK, but no protobuf"] {
            assert_eq!(answer(202, body.into()), Answer::Taken { refused: 0 });
        }
        for status in [429, 502, 503, 504] {
            let Answer::Later(pause, _) = answer(status, Vec::new()) else { panic!("{status} is tried again") };
            assert_eq!(pause, Some(Duration::from_secs(7)));
        }
        for status in [301, 400, 401, 404, 413, 500] {
            assert!(matches!(answer(status, Vec::new()), Answer::Never(_)), "{status}");
        }
    }
}
