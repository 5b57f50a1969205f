//! Protobuf of the API server as JSON.

use bytes::{Buf, Bytes};
use prost::Message;
use serde::Serialize;

use super::messages::{Job, JobList, Pod, PodList, Status, TypeMeta, Unknown, WatchEvent, lossy};

/// What every object begins with; k8s.io/apimachinery/pkg/runtime/serializer/protobuf.
pub const MAGIC: &[u8] = b"k8s\0";

/// Why something is not what the API server would send.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The length of an event is out of bounds.
    #[error("no event of a watch: {0}")]
    Frame(#[from] std::io::Error),
    /// There is no magic number.
    #[error("no object: it begins with none of the API server's magic numbers")]
    Magic,
    /// It breaks the rules of protobuf.
    #[error("broken protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Nobody asked for such an object.
    #[error("an object of the unexpected kind {0:?}")]
    Kind(String),
    /// It cannot be written down.
    #[error("failed to write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// An object, or a list of them, in its envelope.
pub fn object(wire: Bytes) -> Result<Bytes, Unreadable> {
    let mut out = Vec::new();
    write_object(wire, &mut out)?;
    Ok(out.into())
}

/// An event of a watch, without its length: a line. Unlike objects it has no envelope; the object in it has.
pub fn event(wire: Bytes) -> Result<Bytes, Unreadable> {
    let event = WatchEvent::decode(wire)?;
    let mut out = Vec::from(br#"{"type":"#);
    serde_json::to_writer(&mut out, &lossy(&event.r#type))?;
    out.extend_from_slice(br#","object":"#);
    write_object(event.object.raw, &mut out)?;
    out.extend_from_slice(b"}\n");
    Ok(out.into())
}

fn write_object(mut wire: Bytes, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    if !wire.starts_with(MAGIC) {
        return Err(Unreadable::Magic);
    }
    wire.advance(MAGIC.len());
    let Unknown { type_meta, raw } = Unknown::decode(wire)?;
    match &*lossy(&type_meta.kind) {
        "Job" => write::<Job>(&type_meta, raw, out),
        "JobList" => write::<JobList>(&type_meta, raw, out),
        "Pod" => write::<Pod>(&type_meta, raw, out),
        "PodList" => write::<PodList>(&type_meta, raw, out),
        "Status" => write::<Status>(&type_meta, raw, out),
        kind => Err(Unreadable::Kind(kind.to_owned())),
    }
}

/// The object with its type, as JSON has it.
#[derive(Serialize)]
struct Typed<'a, T> {
    #[serde(flatten)]
    types: &'a TypeMeta,
    #[serde(flatten)]
    object: T,
}

fn write<T: Message + Serialize + Default>(types: &TypeMeta, raw: Bytes, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let object = T::decode(raw)?;
    Ok(serde_json::to_writer(out, &Typed { types, object })?)
}
