//! What a watch says, in the two forms in which the API server says it: lines of JSON, and protobuf.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::json;

/// Where a watch stands in its stream of events.
#[derive(Clone, Debug)]
pub enum Place {
    /// JSON; whether its last line is complete.
    Lines { complete: bool },
    /// Protobuf, each event behind four bytes of its length: what is known of that, and what is still to come.
    Frames { length: Vec<u8>, left: usize },
}

impl Place {
    /// The beginning of a watch that is answered with these headers.
    pub fn new(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match content_type {
            "application/vnd.kubernetes.protobuf;stream=watch" => Self::Frames { length: Vec::new(), left: 0 },
            _ => Self::Lines { complete: true },
        }
    }

    /// What goes by.
    pub fn pass(&mut self, mut data: &[u8]) {
        match self {
            Self::Lines { complete } => *complete = data.ends_with(b"\n"),
            Self::Frames { length, left } => {
                while let [first, rest @ ..] = data {
                    if *left > 0 {
                        let passed = data.len().min(*left);
                        *left -= passed;
                        data = &data[passed..];
                        continue;
                    }
                    length.push(*first);
                    data = rest;
                    if let Ok(bytes) = <[u8; 4]>::try_from(&length[..]) {
                        *left = u32::from_be_bytes(bytes) as usize;
                        length.clear();
                    }
                }
            }
        }
    }

    /// Whether an event has ended and none begun.
    pub fn is_between_events(&self) -> bool {
        match self {
            Self::Lines { complete } => *complete,
            Self::Frames { length, left } => length.is_empty() && *left == 0,
        }
    }

    /// An event that says that the version from which is watched is too old.
    pub fn gone(&self) -> Bytes {
        const MESSAGE: &str = "too old resource version";
        match self {
            Self::Lines { .. } => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "reason": "Expired", "message": MESSAGE, "code": 410});
                format!("{}\n", json!({"type": "ERROR", "object": status})).into()
            }
            Self::Frames { .. } => {
                let texts = [field(2, b"Failure"), field(3, MESSAGE.as_bytes()), field(4, b"Expired")].concat();
                let status = [&texts[..], &[6 << 3], &varint(410)].concat();
                let object = envelope(&[field(1, b"v1"), field(2, b"Status")].concat(), &status);
                let event = [field(1, b"ERROR"), field(2, &field(1, &object))].concat();
                let length = u32::try_from(event.len()).expect("it is short").to_be_bytes();
                [&length[..], &event].concat().into()
            }
        }
    }
}

/// Protobuf: a text, or a message in a message.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(number < 16, "the key is one byte");
    [&[number << 3 | 2], &varint(bytes.len())[..], bytes].concat()
}

/// An object as the API server has it, behind its magic number.
pub fn envelope(types: &[u8], object: &[u8]) -> Vec<u8> {
    [b"k8s\0", &field(1, types)[..], &field(2, object)].concat()
}

fn varint(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(number as u64, &mut bytes);
    bytes
}
