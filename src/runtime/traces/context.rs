//! Which trace a graph belongs to. Every id is a hash of what it stands for, so that an operator that is started again,
//! or another replica, goes on with the same trace; and W3C trace contexts, in which ids are handed on
//! (<https://www.w3.org/TR/trace-context/>).

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The trace of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    id: TraceId,
    /// The span of whoever made the graph.
    parent: Option<SpanId>,
    sampled: bool,
    /// Of the graph, whose UID all ids of spans are made from.
    uid: String,
}

impl Trace {
    /// The trace of the graph `uid`: that of `parent`, if that is a valid `traceparent`, which then also says whether the
    /// trace is kept; else its own, kept in the part `ratio` (0 to 1) of all cases.
    pub fn new(uid: &str, parent: Option<&str>, ratio: f64) -> Self {
        if let Some(parent) = parent.and_then(parse) {
            let (id, span, sampled) = (parent.trace_id(), parent.span_id(), parent.is_sampled());
            return Self { id, parent: Some(span), sampled, uid: uid.to_owned() };
        }
        // zero is no id
        let id = TraceId::from(xxh3_128(format!("trace/{uid}").as_bytes()).max(1));
        let answer = Sampler::TraceIdRatioBased(ratio).should_sample(None, id, "", &SpanKind::Internal, &[], &[]);
        let sampled = answer.decision == SamplingDecision::RecordAndSample;
        Self { id, parent: None, sampled, uid: uid.to_owned() }
    }

    /// Whether its spans are sent.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The span that the graph's own is part of, where somebody handed one on.
    pub fn parent(&self) -> Option<SpanId> {
        self.parent
    }

    /// The graph's own span.
    pub fn graph(&self) -> SpanContext {
        self.span(&["graph"])
    }

    /// The span of what a finished graph did once it was taken up again, and ended at `end` (milliseconds since 1970).
    pub fn reopened(&self, end: i64) -> SpanContext {
        self.span(&["reopened", &end.to_string()])
    }

    /// The span of an attempt; `role`: as in the label `taskgraph.dev/role`.
    pub fn attempt(&self, role: &str, task: &str, number: u32) -> SpanContext {
        self.span(&["attempt", role, task, &number.to_string()])
    }

    fn span(&self, parts: &[&str]) -> SpanContext {
        // no part can hold a slash: they are words, DNS labels and numbers
        let id = SpanId::from(xxh3_64(format!("{}/{}", self.uid, parts.join("/")).as_bytes()).max(1));
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.id, id, flags, false, TraceState::NONE)
    }
}

/// The trace's id, in hexadecimal digits.
impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.id)
    }
}

/// The value of `traceparent` that makes what gets it a part of `span`.
pub fn traceparent(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags())
}

/// Reads a `traceparent`. `None`: it is not valid, and counts for nothing.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // a later version may have more parts, 00 has none
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    hex(version, 2)?;
    let (trace, span) =
        (u128::from_str_radix(hex(trace, 32)?, 16).ok()?, u64::from_str_radix(hex(span, 16)?, 16).ok()?);
    let flags = u8::from_str_radix(hex(flags, 2)?, 16).ok()?;
    let (trace, span) = (TraceId::from(trace), SpanId::from(span));
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// A text of `length` hexadecimal digits, letters small.
fn hex(text: &str, length: usize) -> Option<&str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (digits && text.len() == length).then_some(text)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeSet, time::SystemTime};

    use opentelemetry::{InstrumentationScope, trace::Status};
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

    use super::*;

    /// A span of that name.
    pub(in crate::runtime::traces) fn span(name: &str) -> SpanData {
        SpanData {
            span_context: Trace::new("u", None, 1.0).graph(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.to_owned().into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("x").build(),
        }
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_parent_is_honoured() {
        for (text, valid) in [
            (PARENT, true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01", false),
            ("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false),
            ("🦀", false),
            ("", false),
        ] {
            assert_eq!(Trace::new("u", Some(text), 1.0).parent().is_some(), valid, "{text}");
        }
        let trace = Trace::new("u", Some(PARENT), 0.0);
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(trace.is_sampled(), "the parent says so, whatever the ratio");
        assert!(!Trace::new("u", Some(&PARENT.replace("-01", "-00")), 1.0).is_sampled());
        let handed_on = traceparent(&trace.graph());
        assert_eq!(Trace::new("child", Some(&handed_on), 0.0).parent(), Some(trace.graph().span_id()));
        assert!(handed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && handed_on.ends_with("-01"));
    }

    #[test]
    fn ids_are_always_the_same_and_never_shared() {
        let [a, b] = ["a", "b"].map(|uid| Trace::new(uid, None, 1.0));
        assert_eq!(a, Trace::new("a", None, 1.0));
        assert_ne!(a.to_string(), b.to_string());
        let spans = [
            a.graph(),
            b.graph(),
            a.reopened(1),
            a.attempt("task", "x", 1),
            a.attempt("task", "x", 2),
            a.attempt("compensation", "x", 1),
            a.attempt("task", "y", 1),
        ];
        let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id().to_string()).collect();
        assert_eq!(ids.len(), spans.len());
        // pinned: another version of the operator goes on with the same trace
        assert_eq!(traceparent(&a.attempt("task", "x", 1)), "00-2f631ab22d5a2a02e9a245f0d5bd3224-b1da963de8c38a06-01");
    }

    #[test]
    fn the_ratio_is_kept() {
        let kept = |ratio: f64| (0..1000).filter(|n| Trace::new(&format!("uid-{n}"), None, ratio).is_sampled()).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 1000));
        assert!((200..300).contains(&kept(0.25)), "{}", kept(0.25));
    }
}
