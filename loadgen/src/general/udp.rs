//! UDP echo: a datagram is sent and must come back.
//!
//! Each starts with its request's number, eight bytes, most significant first; then comes the body.
//! Many are in flight on one socket: a lost one must not keep others waiting for its timeout.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::record::ErrorClass;
use crate::sample::Opened;

use super::failure;
use super::stream::{Dialer, Socket, Stream};
use super::timer::Deadline;
use super::work::{Course, Job, Slot, Turn, Work};

/// Datagrams of an open loop in flight on one socket. Past it requests wait, as for a free
/// connection.
pub const DATAGRAMS_IN_FLIGHT: u32 = 1024;
/// Numbers remembered of datagrams that timed out, to tell late answers from strays; the oldest
/// are forgotten.
const REMEMBERED: usize = 4096;
/// Bytes of the largest datagram that comes back whole.
const DATAGRAM_BYTES: usize = 64 * 1024;
/// How soon an error is seen that only epoll knows of: tokio wakes no reader for it.
const ERROR_CHECK: Duration = Duration::from_millis(20);
/// Bytes of the number.
const NUMBER_BYTES: usize = 8;

struct Flight {
    job: Job,
    course: Course,
    until: Instant,
    body: Bytes,
}

/// One socket and what is in flight on it.
struct Echo {
    work: Rc<Work>,
    slot: Rc<Slot>,
    turn: Turn,
    stream: Stream,
    /// In the order in which they were sent, so that numbers and timeouts go up.
    flights: VecDeque<Flight>,
    expired: BTreeSet<u64>,
    datagram: Vec<u8>,
    /// No more requests before the socket is made anew.
    retired: bool,
}

enum Event {
    Due(Option<Job>),
    Came(io::Result<usize>),
    Expired,
    Looked,
}

/// Serves one socket's place until nothing more is to be done.
pub async fn serve(work: Rc<Work>, dialer: Rc<Dialer>, slot: Rc<Slot>) {
    let mut more = true;
    let mut turn = work.turn(&slot);
    while more {
        slot.renewed();
        let begun = Instant::now();
        match dialer.datagrams(work.address(slot.target)) {
            Ok(socket) => {
                work.opened(&Opened {
                    connect_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
                    tls_ns: None,
                });
                (more, turn) = Echo::new(work.clone(), slot.clone(), turn, socket)
                    .run()
                    .await;
            }
            Err(error) => {
                let Some(job) = work.next_job(&mut turn).await else {
                    return;
                };
                let course = Course {
                    sent_ns: work.now_ns(),
                    ..Course::default()
                };
                work.done(&job, &course, Err(failure::of_io(&error)));
                work.answered(&mut turn, false);
            }
        }
    }
}

impl Echo {
    fn new(work: Rc<Work>, slot: Rc<Slot>, turn: Turn, socket: Socket) -> Self {
        Self {
            work,
            slot,
            turn,
            stream: Stream::Plain(socket),
            flights: VecDeque::new(),
            expired: BTreeSet::new(),
            datagram: Vec::new(),
            retired: false,
        }
    }

    /// Returns whether there may be more to do, on another socket.
    async fn run(mut self) -> (bool, Turn) {
        let most = if self.work.is_closed_loop() {
            1
        } else {
            DATAGRAMS_IN_FLIGHT as usize
        };
        let mut deadline = Deadline::new(self.work.plan().timeouts.request);
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut errors = tokio::time::interval(ERROR_CHECK);
        let mut more = true;
        loop {
            let takes = more && !self.retired && self.flights.len() < most;
            let oldest = self.flights.front().map(|flight| flight.until);
            if !takes && oldest.is_none() {
                return (more, self.turn);
            }
            let event = tokio::select! {
                biased;
                came = poll_fn(|context| self.stream.poll_fill(context, &mut buffer)) => {
                    Event::Came(came)
                }
                () = expiry(&mut deadline, oldest), if oldest.is_some() => Event::Expired,
                _ = errors.tick(), if oldest.is_some() => Event::Looked,
                job = self.work.next_job(&mut self.turn), if takes => Event::Due(job),
            };
            match event {
                Event::Due(Some(job)) => self.send(job, &deadline).await,
                Event::Due(None) => more = false,
                Event::Came(Ok(count)) => self.came(&buffer[..count]),
                Event::Came(Err(error)) => self.fail_all(failure::of_io(&error)),
                Event::Expired => self.expire(),
                Event::Looked => {
                    if let Some(error) = self.stream.take_error() {
                        self.fail_all(failure::of_io(&error));
                    }
                }
            }
        }
    }

    async fn send(&mut self, job: Job, deadline: &Deadline) {
        let body = self.work.body(&job);
        self.datagram.clear();
        self.datagram.extend_from_slice(&job.number.to_be_bytes());
        self.datagram.extend_from_slice(&body);
        let course = Course {
            sent_ns: self.work.now_ns(),
            sent_bytes: self.datagram.len() as u64,
            ..Course::default()
        };
        let mut sent = self.write().await;
        if let Err(error) = &sent
            && !self.flights.is_empty()
        {
            // It is about those sent before; this one was not sent.
            let class = failure::of_io(error);
            self.fail_all(class);
            sent = self.write().await;
        }
        if let Err(error) = sent {
            self.end(&job, &course, Err(failure::of_io(&error)));
            return;
        }
        self.flights.push_back(Flight {
            job,
            course,
            until: deadline.starting_now(),
            body,
        });
    }

    async fn write(&mut self) -> io::Result<usize> {
        let Self {
            stream, datagram, ..
        } = self;
        poll_fn(|context| Pin::new(&mut *stream).poll_write(context, datagram)).await
    }

    fn came(&mut self, datagram: &[u8]) {
        let now = self.work.now_ns();
        let Some((number, rest)) = datagram.split_first_chunk::<NUMBER_BYTES>() else {
            return;
        };
        let number = u64::from_be_bytes(*number);
        let Ok(at) = self
            .flights
            .binary_search_by_key(&number, |flight| flight.job.number)
        else {
            if self.expired.remove(&number) {
                self.work.late();
            }
            return;
        };
        let Some(mut flight) = self.flights.remove(at) else {
            return;
        };
        flight.course.first_byte_ns = now;
        flight.course.received_bytes = datagram.len() as u64;
        let outcome = if flight.body == rest {
            Ok(200)
        } else {
            Err(ErrorClass::Check)
        };
        self.end(&flight.job, &flight.course, outcome);
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.until <= now) {
            self.expired.insert(flight.job.number);
            if self.expired.len() > REMEMBERED {
                self.expired.pop_first();
            }
            self.end(&flight.job, &flight.course, Err(ErrorClass::Timeout));
        }
    }

    /// An error of the socket is an answer of the host's that nobody listens: to which of the
    /// datagrams, it does not say, and several answers are one error.
    fn fail_all(&mut self, class: ErrorClass) {
        for flight in std::mem::take(&mut self.flights) {
            self.end(&flight.job, &flight.course, Err(class));
        }
    }

    fn end(&mut self, job: &Job, course: &Course, outcome: Result<u16, ErrorClass>) {
        self.work.done(job, course, outcome);
        let answers = outcome != Err(ErrorClass::Refused);
        self.work.answered(&mut self.turn, answers);
        self.retired |= self.work.served(&self.slot);
    }
}

async fn expiry(deadline: &mut Deadline, until: Option<Instant>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    poll_fn(|context| {
        if deadline.poll(until, context) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
