//! Answers of the API server, whole and broken. Whether the fields have the right numbers, only an API server can tell:
//! tests/api/protobuf.rs.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{FutureExt, stream};
use http::header::HeaderName;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::api::{ObjectList, WatchEvent};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::{messages as wire, *};
use crate::jobs::{JobView, PodView};

const EVENTS: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const OBJECT: &str = "application/vnd.kubernetes.protobuf";

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn pod(name: &'static str) -> wire::Pod {
    let metadata = wire::ObjectMeta {
        name: bytes(name),
        resource_version: bytes("7"),
        creation_timestamp: wire::Time { seconds: Some(1_700_000_000) },
        labels: vec![wire::Entry { key: bytes("taskgraph.dev/task"), value: bytes("t") }],
        ..wire::ObjectMeta::default()
    };
    let terminated = wire::Terminated { exit_code: -1, message: bytes("{}"), ..wire::Terminated::default() };
    let state = wire::ContainerState { terminated: Some(terminated), ..wire::ContainerState::default() };
    let ended = wire::ContainerStatus { name: bytes("main"), state, ..wire::ContainerStatus::default() };
    let container = wire::Container { name: bytes("main"), restart_policy: None };
    wire::Pod {
        metadata,
        spec: wire::PodSpec { containers: vec![container], init_containers: Vec::new() },
        status: wire::PodStatus {
            phase: bytes("Failed"),
            container_statuses: vec![ended],
            ..wire::PodStatus::default()
        },
    }
}

/// The JSON of [`pod`], without its type.
fn pod_json(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "resourceVersion": "7", "creationTimestamp": "2023-11-14T22:13:20Z",
            "labels": {"taskgraph.dev/task": "t"},
        },
        "spec": {"containers": [{"name": "main"}]},
        "status": {
            "phase": "Failed",
            "containerStatuses": [{
                "name": "main", "lastState": {},
                "state": {"terminated": {"exitCode": -1, "message": "{}", "finishedAt": null}},
            }],
        },
    })
}

fn with_type(mut object: Value, version: &str, kind: &str) -> Value {
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    object
}

fn in_envelope(version: &'static str, kind: &'static str, message: &impl Message) -> Vec<u8> {
    let type_meta = wire::TypeMeta { api_version: bytes(version), kind: bytes(kind) };
    let unknown = wire::Unknown { type_meta, raw: message.encode_to_vec().into() };
    [json::MAGIC, &unknown.encode_to_vec()].concat()
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn event(r#type: &'static str, object: Vec<u8>) -> Vec<u8> {
    let object = wire::RawExtension { raw: object.into() };
    frame(&wire::WatchEvent { r#type: bytes(r#type), object }.encode_to_vec())
}

fn added(name: &'static str) -> Vec<u8> {
    event("ADDED", in_envelope("v1", "Pod", &pod(name)))
}

/// A few events, the JSON that they are to become, and where each ends.
fn events() -> (Vec<u8>, Vec<Value>, Vec<usize>) {
    let bookmark = wire::Job {
        metadata: wire::ObjectMeta {
            resource_version: bytes("9"),
            annotations: vec![wire::Entry { key: bytes("k8s.io/initial-events-end"), value: bytes("true") }],
            ..wire::ObjectMeta::default()
        },
        ..wire::Job::default()
    };
    let gone = wire::Status {
        status: bytes("Failure"),
        reason: bytes("Expired"),
        message: bytes("too old resource version"),
        code: 410,
        ..wire::Status::default()
    };
    let told = [
        (added("a"), "ADDED", with_type(pod_json("a"), "v1", "Pod")),
        (
            event("BOOKMARK", in_envelope("batch/v1", "Job", &bookmark)),
            "BOOKMARK",
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "spec": {}, "status": {"active": 0},
                "metadata": {
                    "resourceVersion": "9", "creationTimestamp": null,
                    "annotations": {"k8s.io/initial-events-end": "true"},
                },
            }),
        ),
        (
            event("ERROR", in_envelope("v1", "Status", &gone)),
            "ERROR",
            json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "Expired",
                "message": "too old resource version", "code": 410,
            }),
        ),
    ];
    let mut ends = Vec::new();
    let (mut stream, mut lines) = (Vec::new(), Vec::new());
    for (frame, r#type, object) in told {
        stream.extend(frame);
        ends.push(stream.len());
        lines.push(json!({"type": r#type, "object": object}));
    }
    (stream, lines, ends)
}

/// What becomes of a body that comes in these pieces: the JSON, an error that ends it, whether there is still trust.
fn read<'a>(content_type: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, Option<String>, bool) {
    let pieces: Vec<_> = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let body = StreamBody::new(stream::iter(pieces.into_iter().map(|piece: Result<_, Infallible>| piece)));
    let response = Response::builder().header(CONTENT_TYPE, content_type).body(body).unwrap();
    let trust = Trust::default();
    let mut body = as_json(response, trust.clone()).into_body();
    let mut text = String::new();
    let error = loop {
        match body.frame().now_or_never().expect("nothing is waited for") {
            Some(Ok(frame)) => text.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap()),
            Some(Err(error)) => {
                assert!(body.frame().now_or_never().unwrap().is_none(), "an error is the last that is said");
                break Some(error.to_string());
            }
            None => break None,
        }
    };
    (text, error, trust.is_held())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_list_is_json_that_kube_reads() {
    let metadata =
        wire::ListMeta { resource_version: bytes("12"), r#continue: bytes("token"), remaining_item_count: Some(3) };
    let pods = in_envelope("v1", "PodList", &wire::PodList { metadata, items: vec![pod("a"), pod("b")] });
    let (text, error, trusted) = read(OBJECT, pods.chunks(7));
    assert_eq!((error, trusted), (None, true));
    let list: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "apiVersion": "v1", "kind": "PodList", "items": [pod_json("a"), pod_json("b")],
        "metadata": {"resourceVersion": "12", "continue": "token", "remainingItemCount": 3},
    });
    assert_eq!(list, expected);
    let list: ObjectList<PodView> = serde_json::from_str(&text).unwrap();
    assert_eq!(list.items[1], serde_json::from_value(pod_json("b")).unwrap());

    let none = in_envelope("batch/v1", "JobList", &wire::JobList::default());
    let list: ObjectList<JobView> = serde_json::from_str(&read(OBJECT, [&none[..]]).0).unwrap();
    assert!(list.items.is_empty() && list.types.kind == "JobList");
}

#[test]
fn a_refusal_is_a_status_that_kube_reads() {
    let causes = vec![wire::StatusCause {
        reason: bytes("ResourceVersionTooLarge"),
        message: bytes("Too large resource version"),
        field: bytes("f"),
    }];
    let details = wire::StatusDetails { kind: bytes("pods"), causes, retry_after_seconds: 1, ..Default::default() };
    let status = wire::Status { status: bytes("Failure"), details: Some(details), code: 504, ..Default::default() };
    let (text, ..) = read(OBJECT, [&in_envelope("v1", "Status", &status)[..]]);
    let expected = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 504,
        "details": {
            "kind": "pods", "retryAfterSeconds": 1,
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version", "field": "f"}],
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    let status: kube::core::Status = serde_json::from_str(&text).unwrap();
    assert_eq!((status.code, status.details.map(|details| details.retry_after_seconds)), (504, Some(1)));
}

#[test]
fn events_are_lines_that_kube_reads() {
    let (stream, expected, ends) = events();
    let (text, error, trusted) = read(EVENTS, [&stream[..]]);
    assert_eq!((lines(&text), error, trusted), (expected, None, true));
    let read: Vec<WatchEvent<PodView>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(matches!(&read[..], [WatchEvent::Added(_), WatchEvent::Bookmark(mark), WatchEvent::Error(gone)]
            if mark.metadata.annotations.len() == 1 && gone.code == 410));
    assert_eq!(read.len(), ends.len());
}

#[test]
fn events_may_be_cut_at_any_byte() {
    let (stream, expected, ends) = events();
    for cut in 0..=stream.len() {
        let (text, error, trusted) = read(EVENTS, [&stream[..cut], &stream[cut..]]);
        assert_eq!((lines(&text), error, trusted), (expected.clone(), None, true), "cut at {cut}");
        // the connection ends there: what is whole is told, the rest is asked for anew
        let (text, error, trusted) = read(EVENTS, [&stream[..cut]]);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!((lines(&text), error, trusted), (expected[..whole].to_vec(), None, true), "ended at {cut}");
    }
}

#[test]
fn what_is_broken_ends_the_body_with_an_error() {
    let long = u32::try_from((16 << 20) + 1).unwrap().to_be_bytes().to_vec();
    let truncated = {
        let whole = in_envelope("v1", "Pod", &pod("a"));
        whole[..whole.len() - 1].to_vec()
    };
    for (broken, expected) in [
        (long, "no event of a watch"),
        (frame(&[]), "none of the API server's magic numbers"),
        (frame(&[0xff]), "broken protobuf"),
        (event("ADDED", b"k8s".to_vec()), "none of the API server's magic numbers"),
        (event("ADDED", br#"{"kind": "Pod"}"#.to_vec()), "none of the API server's magic numbers"),
        (event("ADDED", truncated), "broken protobuf"),
        (event("ADDED", in_envelope("v1", "Node", &pod("a"))), "unexpected kind \"Node\""),
    ] {
        let stream = [added("first"), broken, added("behind")].concat();
        let (text, error, trusted) = read(EVENTS, stream.chunks(11));
        assert_eq!(lines(&text).len(), 1, "{expected}");
        assert!(error.as_ref().is_some_and(|error| error.contains(expected)), "{error:?}, not {expected}");
        assert!(!trusted, "{expected}");
    }
    let (text, error, trusted) = read(OBJECT, [&b"<html>"[..]]);
    assert!(text.is_empty() && error.is_some() && !trusted);
}

#[test]
fn fields_that_are_not_named_are_skipped() {
    let mut wire = wire::Pod { metadata: wire::ObjectMeta::default(), ..pod("a") }.encode_to_vec();
    // the fields 4 and 1000 as text, 5 as a number; a part of the metadata more than once is merged, as in Go
    wire.extend(b"\x22\x03abc\xc2\x3e\x02xy\x28\x07");
    wire.extend(wire::Pod { metadata: pod("a").metadata, ..wire::Pod::default() }.encode_to_vec());
    let pod = wire::Pod::decode(&wire[..]).unwrap();
    assert_eq!(serde_json::to_value(&pod).unwrap(), pod_json("a"));
}

#[test]
fn text_that_is_not_utf_8_is_replaced_as_in_go() {
    for (bytes, expected) in [
        (&b"plain \xc3\xa4"[..], "plain ä"),
        (b"\xff", "\u{fffd}"),
        (b"a\xe2\x82z\xc3", "a\u{fffd}\u{fffd}z\u{fffd}"),
        // an encoded surrogate
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(wire::lossy(bytes), expected);
    }
    let mut pod = pod("a");
    pod.status.message = Bytes::from_static(b"\xffx");
    assert_eq!(serde_json::to_value(&pod).unwrap()["status"]["message"], "\u{fffd}x");
}

#[test]
fn times_out_of_range_are_none() {
    for (seconds, expected) in [
        (None, json!(null)),
        (Some(0), json!("1970-01-01T00:00:00Z")),
        (Some(i64::MAX), json!(null)),
        (Some(i64::MIN), json!(null)),
    ] {
        assert_eq!(serde_json::to_value(wire::Time { seconds }).unwrap(), expected);
    }
}

proptest! {
    #[test]
    fn events_may_be_cut_anywhere(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let (stream, expected, _) = events();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let (text, error, _) = read(EVENTS, cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]));
        prop_assert_eq!((lines(&text), error), (expected, None));
    }

    #[test]
    fn nothing_panics_and_all_ends(
        noise in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), piece in 1..50_usize,
    ) {
        let (mut stream, ..) = events();
        let at = at.index(stream.len());
        let end = (at + noise.len()).min(stream.len());
        stream.splice(at..end, noise.iter().copied());
        for content_type in [EVENTS, OBJECT] {
            read(content_type, stream.chunks(piece));
            read(content_type, noise.chunks(piece));
            read(content_type, [json::MAGIC, &noise]);
        }
    }
}

#[test]
fn only_collections_of_jobs_and_pods_are_asked_for() {
    let none: Option<(HeaderName, &str)> = None;
    let accept = |value| Some((ACCEPT, value));
    for (method, uri, header, expected) in [
        ("GET", "/api/v1/pods?&labelSelector=a", none.clone(), true),
        ("GET", "/api/v1/namespaces/x/pods?watch=true", none.clone(), true),
        ("GET", "/apis/batch/v1/jobs", none.clone(), true),
        ("GET", "/apis/batch/v1/namespaces/x/jobs?limit=500", none.clone(), true),
        ("GET", "/apis/batch/v1/namespaces/x/jobs?limit=500", accept("application/json"), false),
        ("GET", "/api/v1/namespaces/x/pods/y", none.clone(), false),
        ("GET", "/api/v1/namespaces/x/pods/y/log", none.clone(), false),
        ("GET", "/api/v1/namespaces/pods", none.clone(), false),
        ("GET", "/api/v1/namespaces/x/jobs", none.clone(), false),
        ("GET", "/api/v1/namespaces/x/events", none.clone(), false),
        ("GET", "/apis/batch/v1/namespaces/x/cronjobs", none.clone(), false),
        ("GET", "/apis/taskgraph.dev/v1alpha1/taskgraphs", none.clone(), false),
        ("DELETE", "/apis/batch/v1/namespaces/x/jobs", none.clone(), false),
        ("POST", "/apis/batch/v1/namespaces/x/jobs", none, false),
    ] {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        assert_eq!(is_for_views(&request.body(()).unwrap()), expected, "{method} {uri}");
    }
}

#[test]
fn encodings_are_told_by_the_content_type() {
    for (content_type, expected) in [
        (EVENTS, Encoding::Events),
        ("Application/vnd.kubernetes.protobuf ; charset=x; Stream=watch", Encoding::Events),
        (OBJECT, Encoding::Object),
        ("application/json", Encoding::Other),
        ("application/json;stream=watch", Encoding::Other),
        ("text/plain; charset=utf-8", Encoding::Other),
        ("", Encoding::Other),
    ] {
        let header = HeaderValue::from_static(content_type);
        assert_eq!(Encoding::of(Some(&header)), expected, "{content_type}");
    }
    assert_eq!(Encoding::of(None), Encoding::Other);
}

/// Answers with this body whatever is asked; what was accepted is in a header of the answer.
fn server(
    content_type: &'static str,
    body: &'static [u8],
) -> impl Service<Request<Body>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> {
    tower::service_fn(move |request: Request<Body>| async move {
        let accepted = request.headers().get(ACCEPT).cloned().unwrap_or(HeaderValue::from_static("nothing"));
        let response = Response::builder().header(CONTENT_TYPE, content_type).header(CONTENT_LENGTH, body.len());
        Ok(response.header("accepted", accepted).body(Full::new(Bytes::from_static(body)))?)
    })
}

#[tokio::test]
async fn json_passes_unchanged() {
    let mut service = ProtobufLayer::default().layer(server("application/json", b"{\"broken"));
    let response = service.call(Request::get("/api/v1/pods").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["accepted"], ACCEPTED);
    assert_eq!(response.headers()[CONTENT_LENGTH], "8");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), &b"{\"broken"[..]);
}

#[tokio::test]
async fn after_a_broken_answer_json_is_asked_for() {
    let mut service = ProtobufLayer::default().layer(server(OBJECT, b"broken"));
    for (accepted, problem) in [(ACCEPTED.to_str().unwrap(), true), ("nothing", true)] {
        let response = service.call(Request::get("/api/v1/pods").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["accepted"], accepted);
        assert_eq!(response.headers().get(CONTENT_LENGTH), None, "the length is another");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.into_body().collect().await.is_err(), problem);
    }
}
