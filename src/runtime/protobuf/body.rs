//! Bodies of answers, turned into JSON as they come in.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};
use tower::BoxError;

use super::{
    Encoding, Trust,
    json::{self, Unreadable},
};

/// The largest event that is read; client-go has the same limit. The API server stores no object larger than 3 MiB.
const LARGEST_EVENT: usize = 16 << 20;

/// The body of an answer: as it came, or made JSON of protobuf.
///
/// A list is held whole, as kube does with the JSON of it: pages bound it. Of a watch no more is held than one event and
/// what the connection brought with it.
#[derive(Debug)]
pub struct Answer<B> {
    inner: B,
    form: Form,
    trust: Trust,
}

#[derive(Debug)]
enum Form {
    /// It passes unchanged.
    Other,
    /// One object, so far.
    Object(BytesMut),
    /// Events, what is not decoded yet of them.
    Events(LengthDelimitedCodec, BytesMut),
    /// All was said.
    Over,
}

impl<B> Answer<B> {
    pub(super) fn new(inner: B, encoding: Encoding, trust: Trust) -> Self {
        let form = match encoding {
            Encoding::Other => Form::Other,
            Encoding::Object => Form::Object(BytesMut::new()),
            Encoding::Events => {
                // k8s.io/apimachinery/pkg/util/framer: four bytes of length, big-endian, then the event
                let codec = LengthDelimitedCodec::builder().max_frame_length(LARGEST_EVENT).new_codec();
                Form::Events(codec, BytesMut::new())
            }
        };
        Self { inner, form, trust }
    }
}

impl Form {
    /// The next event, if it is there as a whole.
    fn event(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let Self::Events(codec, received) = self else { return Ok(None) };
        codec.decode(received)?.map(|event| json::event(event.freeze())).transpose()
    }

    fn receive(&mut self, data: &[u8]) {
        if let Self::Object(received) | Self::Events(_, received) = self {
            received.extend_from_slice(data);
        }
    }

    /// What is left to say when nothing more comes. Half an event is none: the watch begins anew before it, as it does
    /// where JSON breaks off.
    fn end(&mut self) -> Result<Option<Bytes>, Unreadable> {
        match std::mem::replace(self, Self::Over) {
            Self::Object(received) => json::object(received.freeze()).map(Some),
            _ => Ok(None),
        }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { inner, form, trust } = self.get_mut();
        loop {
            let said = match form {
                Form::Over => return Poll::Ready(None),
                Form::Other => return Pin::new(inner).poll_frame(context).map_err(Into::into),
                Form::Object(_) | Form::Events(..) => form.event(),
            };
            let said = match said {
                Ok(None) => match ready!(Pin::new(&mut *inner).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        // trailers say nothing to us
                        if let Some(data) = frame.data_ref() {
                            form.receive(data);
                        }
                        continue;
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => form.end(),
                },
                said => said,
            };
            return Poll::Ready(match said {
                Ok(json) => json.map(|json| Ok(Frame::data(json))),
                Err(error) => {
                    *form = Form::Over;
                    trust.lose(&error);
                    Some(Err(error.into()))
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.form {
            Form::Other => self.inner.is_end_stream(),
            Form::Over => true,
            Form::Object(_) | Form::Events(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.form {
            Form::Other => self.inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
