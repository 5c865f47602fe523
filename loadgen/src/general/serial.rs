//! Connections with one request at a time: WebSocket and TCP echo, and TCP connections themselves.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::record::ErrorClass;

use super::stream::{Dialer, Stream};
use super::timer::Deadline;
use super::work::{Course, Job, Slot, Work};

/// A connection that has one request in flight at a time.
pub trait Session: Sized {
    /// Makes `stream` ready for requests.
    async fn open(stream: Stream, work: &Work, target: u16) -> Result<Self, ErrorClass>;

    /// Ready when the connection is of no use any more, while nothing is asked.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Sends a request and waits for its whole answer. May be dropped; the session is, then.
    async fn exchange(
        &mut self,
        work: &Work,
        job: &Job,
        course: &mut Course,
    ) -> Result<u16, ErrorClass>;
}

/// Serves one connection's place until nothing more is to be done.
pub async fn serve<S: Session>(work: Rc<Work>, dialer: Rc<Dialer>, slot: Rc<Slot>) {
    let timeouts = work.plan().timeouts;
    let mut connecting = Deadline::new(timeouts.connect);
    let mut answering = Deadline::new(timeouts.request);
    let mut turn = work.turn(&slot);
    // Before anything is due; who fails now tries again with a request to tell it of.
    let mut session = open::<S>(&work, &dialer, &slot, &mut connecting).await.ok();
    loop {
        let job = match &mut session {
            None => work.next_job(&mut turn).await,
            Some(open) => tokio::select! {
                biased;
                () = poll_fn(|context| open.poll_idle(context)) => {
                    session = None;
                    continue;
                }
                job = work.next_job(&mut turn) => job,
            },
        };
        let Some(job) = job else { return };
        let mut course = Course {
            sent_ns: work.now_ns(),
            ..Course::default()
        };
        let kept = session.take().filter(|_| !slot.is_retired());
        let opened = match kept {
            Some(open) => Ok(open),
            None => open::<S>(&work, &dialer, &slot, &mut connecting).await,
        };
        let mut open = match opened {
            Ok(open) => open,
            Err(class) => {
                work.done(&job, &course, Err(class));
                work.answered(&mut turn, false);
                continue;
            }
        };
        course.sent_ns = work.now_ns();
        let exchange = open.exchange(&work, &job, &mut course);
        let outcome = answering
            .within(exchange)
            .await
            .unwrap_or(Err(ErrorClass::Timeout));
        work.done(&job, &course, outcome);
        work.answered(&mut turn, true);
        if !work.served(&slot) && outcome.is_ok() {
            session = Some(open);
        }
    }
}

async fn open<S: Session>(
    work: &Work,
    dialer: &Dialer,
    slot: &Slot,
    connecting: &mut Deadline,
) -> Result<S, ErrorClass> {
    slot.renewed();
    let open = async {
        let stream = dialer.open(work, slot.target).await?;
        S::open(stream, work, slot.target).await
    };
    connecting
        .within(open)
        .await
        .unwrap_or(Err(ErrorClass::Timeout))
}

/// Opens and closes a connection for each request, TLS included where the target has it.
pub async fn connect(work: Rc<Work>, dialer: Rc<Dialer>, slot: Rc<Slot>) {
    let mut connecting = Deadline::new(work.plan().timeouts.connect);
    let mut turn = work.turn(&slot);
    while let Some(job) = work.next_job(&mut turn).await {
        let course = Course {
            sent_ns: work.now_ns(),
            ..Course::default()
        };
        let opened = connecting
            .within(dialer.open(&work, slot.target))
            .await
            .unwrap_or(Err(ErrorClass::Timeout));
        let connected = opened.is_ok();
        work.done(&job, &course, opened.map(|_| 200));
        work.answered(&mut turn, connected);
    }
}
