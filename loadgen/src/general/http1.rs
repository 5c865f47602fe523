//! HTTP/1.1, with up to a pipeline's depth of requests in flight on a connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::engine::response::{Event, Response};
use crate::plan::{Checker, Protocol};
use crate::record::{CLOSED, ErrorClass};

use super::failure;
use super::stream::{Dialer, Stream};
use super::timer::Deadline;
use super::work::{Course, Job, Slot, Turn, Work};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

struct Flight {
    job: Job,
    course: Course,
    until: Instant,
    /// The answer has no body, whatever it says.
    bodiless: bool,
}

/// One connection and what is in flight on it.
struct Conversation {
    stream: Stream,
    response: Response,
    status: u16,
    checker: Checker,
    flights: VecDeque<Flight>,
    buffer: Box<[u8]>,
    /// Bytes of `buffer` that were read and not looked at yet.
    unread: (usize, usize),
    out: Vec<u8>,
    /// How much of `out` was sent.
    sent: usize,
    /// No more requests on it: it is closed after the last answer.
    retired: bool,
}

/// What became of the oldest request in flight, or of all.
enum Step {
    Answered {
        flight: Flight,
        outcome: Result<u16, ErrorClass>,
        reusable: bool,
    },
    Lost(ErrorClass),
}

enum Happening {
    Due(Option<Job>),
    Step(Step),
}

impl Conversation {
    fn new(stream: Stream, checker: Checker) -> Self {
        Self {
            stream,
            response: Response::new(),
            status: 0,
            checker,
            flights: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            unread: (0, 0),
            out: Vec::new(),
            sent: 0,
            retired: false,
        }
    }

    fn ask(&mut self, work: &Work, job: Job, until: Instant) {
        let mut renderer = work.renderer.borrow_mut();
        let bodiless = renderer.is_bodiless(job.pick());
        let bytes = renderer.render(job.pick(), job.number);
        self.out.extend_from_slice(bytes);
        let course = Course {
            sent_ns: work.now_ns(),
            sent_bytes: bytes.len() as u64,
            ..Course::default()
        };
        self.flights.push_back(Flight {
            job,
            course,
            until,
            bodiless,
        });
    }

    /// Sends and reads on; ready when there is something to tell.
    fn poll(&mut self, context: &mut Context<'_>, work: &Work) -> Poll<Step> {
        loop {
            if let Some(step) = self.read(work) {
                return Poll::Ready(step);
            }
            match ready!(self.poll_bytes(context)) {
                Ok(0) if !self.flights.is_empty() && self.response.close() => {
                    return Poll::Ready(self.answered(work, false));
                }
                Ok(0) => {
                    if !self.flights.is_empty() {
                        work.failed(ErrorClass::Reset, CLOSED);
                    }
                    return Poll::Ready(Step::Lost(ErrorClass::Reset));
                }
                Ok(count) => self.unread = (0, count),
                Err(error) => {
                    let class = work.failed(failure::of_io(&error), error);
                    return Poll::Ready(Step::Lost(class));
                }
            }
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.out.is_empty() {
            let sent = self.stream.poll_drain(context, &self.out, &mut self.sent);
            if sent?.is_ready() {
                self.out.clear();
                self.sent = 0;
            }
        }
        self.stream.poll_fill(context, &mut self.buffer)
    }

    /// Looks at what was read; none if more is needed.
    fn read(&mut self, work: &Work) -> Option<Step> {
        loop {
            let mut data = &self.buffer[self.unread.0..self.unread.1];
            let Some(front) = self.flights.front_mut() else {
                // Nobody asked for what is left.
                return (!data.is_empty()).then_some(Step::Lost(ErrorClass::Protocol));
            };
            if front.course.first_byte_ns == 0 && !data.is_empty() {
                front.course.first_byte_ns = work.now_ns();
            }
            let before = data.len();
            let event = self.response.next(&mut data, front.bodiless);
            let taken = before - data.len();
            front.course.received_bytes += taken as u64;
            self.unread.0 += taken;
            match event {
                Ok(None) => return None,
                Ok(Some(Event::Head { status, headers })) => {
                    self.status = status;
                    self.checker.begin(status, headers);
                }
                Ok(Some(Event::Body(bytes))) => self.checker.body(bytes),
                Ok(Some(Event::End { reusable })) => return Some(self.answered(work, reusable)),
                Err(fault) => {
                    return Some(Step::Lost(work.failed(ErrorClass::Protocol, fault)));
                }
            }
        }
    }

    fn answered(&mut self, work: &Work, reusable: bool) -> Step {
        // More than its length said is an answer of the wrong length.
        let surplus = self.unread.0 < self.unread.1 && self.flights.len() == 1;
        match self.flights.pop_front() {
            Some(flight) if !surplus => Step::Answered {
                flight,
                outcome: work.judged(self.status, &self.checker),
                reusable,
            },
            Some(flight) => {
                self.flights.push_front(flight);
                Step::Lost(ErrorClass::Protocol)
            }
            None => Step::Lost(ErrorClass::Protocol),
        }
    }
}

/// One connection's place.
struct Place {
    work: Rc<Work>,
    dialer: Rc<Dialer>,
    slot: Rc<Slot>,
    turn: Turn,
    connecting: Deadline,
    answering: Deadline,
    checker: Checker,
}

/// Serves one connection's place until nothing more is to be done.
pub async fn serve(work: Rc<Work>, dialer: Rc<Dialer>, slot: Rc<Slot>) {
    let timeouts = work.plan().timeouts;
    let Protocol::Http1 { pipeline } = work.plan().protocol else {
        return;
    };
    let mut place = Place {
        turn: work.turn(&slot),
        connecting: Deadline::new(timeouts.connect),
        answering: Deadline::new(timeouts.request),
        checker: Checker::new(&work.plan().checks),
        work,
        dialer,
        slot,
    };
    // Before anything is due; who fails now tries again with a request to tell it of.
    let mut open = place.open().await.ok();
    let mut more = true;
    loop {
        let in_flight = open.as_ref().map_or(0, |open| open.flights.len());
        if in_flight == 0 && !more {
            return;
        }
        let room = open
            .as_ref()
            .is_none_or(|open| !open.retired && in_flight < pipeline.max(1) as usize);
        match place.next(&mut open, more && room).await {
            Happening::Due(None) => more = false,
            Happening::Due(Some(job)) => place.ask(&mut open, job).await,
            Happening::Step(step) => place.take(&mut open, step),
        }
    }
}

impl Place {
    async fn open(&mut self) -> Result<Conversation, ErrorClass> {
        self.slot.renewed();
        let dial = self.dialer.open(&self.work, self.slot.target);
        let stream = self.connecting.within(dial).await;
        let stream = stream.unwrap_or(Err(ErrorClass::Timeout))?;
        Ok(Conversation::new(stream, self.checker.clone()))
    }

    async fn next(&mut self, open: &mut Option<Conversation>, takes: bool) -> Happening {
        let Some(open) = open else {
            return Happening::Due(self.work.next_job(&mut self.turn).await);
        };
        let oldest = open.flights.front().map(|flight| flight.until);
        let step = poll_fn(|context| {
            if let Poll::Ready(step) = open.poll(context, &self.work) {
                return Poll::Ready(step);
            }
            match oldest {
                Some(until) if self.answering.poll(until, context) => {
                    Poll::Ready(Step::Lost(ErrorClass::Timeout))
                }
                _ => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            step = step => Happening::Step(step),
            job = self.work.next_job(&mut self.turn), if takes => Happening::Due(job),
        }
    }

    async fn ask(&mut self, open: &mut Option<Conversation>, job: Job) {
        let idle = open.as_ref().is_some_and(|open| open.flights.is_empty());
        if idle && self.slot.is_retired() {
            *open = None;
        }
        let taken_ns = self.work.now_ns();
        let opened = match open {
            Some(open) => Ok(open),
            None => self.open().await.map(|new| open.insert(new)),
        };
        match opened {
            Ok(open) => open.ask(&self.work, job, self.answering.starting_now()),
            Err(class) => {
                let course = Course {
                    sent_ns: taken_ns,
                    ..Course::default()
                };
                self.work.done(&job, &course, Err(class));
                self.work.answered(&mut self.turn, false);
            }
        }
    }

    fn take(&mut self, open: &mut Option<Conversation>, step: Step) {
        let ended = match step {
            Step::Answered {
                flight,
                outcome,
                reusable,
            } => {
                self.work.done(&flight.job, &flight.course, outcome);
                self.work.answered(&mut self.turn, true);
                if let Some(open) = open {
                    open.retired |= self.work.served(&self.slot);
                    if reusable && !(open.retired && open.flights.is_empty()) {
                        return;
                    }
                }
                ErrorClass::Reset
            }
            Step::Lost(class) => class,
        };
        // What was pipelined behind the first dies with the connection.
        let mut class = ended;
        for flight in open.take().into_iter().flat_map(|open| open.flights) {
            self.work.done(&flight.job, &flight.course, Err(class));
            self.work.answered(&mut self.turn, true);
            class = ErrorClass::Reset;
        }
    }
}
