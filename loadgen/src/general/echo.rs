//! TCP echo: bytes are sent and must come back.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use crate::record::ErrorClass;

use super::failure;
use super::serial::Session;
use super::stream::Stream;
use super::work::{Course, Job, Work};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// A connection to an echo server.
pub struct Echo {
    stream: Stream,
    buffer: Box<[u8]>,
}

impl Session for Echo {
    async fn open(stream: Stream, _: &Work, _: u16) -> Result<Self, ErrorClass> {
        Ok(Self {
            stream,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// An echo that nobody asked for, the end and an error are all the same.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_fill(context, &mut self.buffer).map(|_| ())
    }

    async fn exchange(
        &mut self,
        work: &Work,
        job: &Job,
        course: &mut Course,
    ) -> Result<u16, ErrorClass> {
        let payload = work.payload(job);
        course.sent_bytes = payload.len() as u64;
        let (mut sent, mut back) = (0, 0);
        poll_fn(|context| {
            // Both ways at once: an echo server that cannot send stops reading.
            if let Poll::Ready(Err(error)) = self.stream.poll_drain(context, &payload, &mut sent) {
                return Poll::Ready(Err(failure::of_io(&error)));
            }
            while back < payload.len() {
                let count = ready!(self.stream.poll_fill(context, &mut self.buffer))
                    .map_err(|error| failure::of_io(&error))?;
                if count == 0 {
                    return Poll::Ready(Err(ErrorClass::Reset));
                }
                if back == 0 {
                    course.first_byte_ns = work.now_ns();
                }
                course.received_bytes += count as u64;
                if payload.get(back..back + count) != Some(&self.buffer[..count]) {
                    return Poll::Ready(Err(ErrorClass::Check));
                }
                back += count;
            }
            Poll::Ready(Ok(200))
        })
        .await
    }
}
