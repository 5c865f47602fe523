//! Servers and runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ballast_loadgen::ErrorClass;
use ballast_loadgen::control::Control;
use ballast_loadgen::general::{self, Driver};
use ballast_loadgen::plan::{Lane, Plan, Template};
use ballast_loadgen::recorder::Recorder;
use tokio::net::{TcpListener, TcpStream};

/// No run here takes a tenth of it, even on a machine that does a lot beside it.
const HANG: Duration = Duration::from_mins(1);

/// Both drivers, or epoll alone where io_uring is not allowed.
pub fn drivers() -> Vec<Driver> {
    match general::probe() {
        Ok(()) => vec![Driver::TokioUring, Driver::Epoll],
        Err(error) => {
            eprintln!("SKIP tokio-uring: {error}");
            vec![Driver::Epoll]
        }
    }
}

/// Runs `plan` alone on a thread; panics if it hangs.
pub fn run(driver: Driver, plan: &Plan) -> Recorder {
    run_with(driver, plan, &Arc::new(Control::default()))
}

pub fn run_with(driver: Driver, plan: &Plan, control: &Arc<Control>) -> Recorder {
    let lane = Lane {
        plan: Arc::new(plan.clone()),
        index: 0,
        of: 1,
    };
    let control = control.clone();
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        let recorder = Recorder::of(&lane);
        let zero = Instant::now() + Duration::from_millis(20);
        let result = general::run(&lane, zero, recorder, driver, &control);
        tell.send(result).ok();
    });
    match told.recv_timeout(HANG) {
        Ok(result) => result.expect("runs"),
        Err(RecvTimeoutError::Timeout) => panic!("the run hangs on {driver:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            thread.join().expect("the run does not panic");
            unreachable!("it tells before it ends");
        }
    }
}

/// A plan of `count` requests at `rate` a second over four connections.
pub fn plan(url: &str, rate: f64, count: u64) -> Plan {
    let mut plan = Plan::http(url).expect("is a plan").at_rate(rate);
    plan.duration = Duration::from_secs_f64(count as f64 / rate);
    plan.connections = 4;
    plan.records = true;
    plan
}

pub fn with_body(mut plan: Plan, body: &str) -> Plan {
    plan.targets[0].requests[0].method = http::Method::POST;
    plan.targets[0].requests[0].body = Template::parse(body).expect("parses");
    plan
}

/// Returns the classes with failed requests; panics unless every request is accounted for.
pub fn errors(recorder: &Recorder) -> BTreeMap<ErrorClass, u64> {
    let counts = recorder.counts();
    let errors: BTreeMap<_, _> = ErrorClass::ALL
        .into_iter()
        .map(|class| (class, counts.errors[class.index()]))
        .filter(|(_, count)| *count > 0)
        .collect();
    if counts.released > 0 {
        assert_eq!(counts.released, counts.done, "what was due is done");
    }
    let failed: u64 = errors.values().sum();
    let ok: u64 = recorder
        .statuses()
        .iter()
        .filter(|(status, _)| **status < 400)
        .map(|(_, count)| count)
        .sum();
    assert_eq!(ok + failed, counts.done, "what is done has an outcome");
    errors
}

pub fn none() -> BTreeMap<ErrorClass, u64> {
    BTreeMap::new()
}

pub fn only(class: ErrorClass, count: u64) -> BTreeMap<ErrorClass, u64> {
    BTreeMap::from([(class, count)])
}

/// Counts what a server sees.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// Returns the count before it.
    pub fn up(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn max(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves each connection by `handle`, on a thread of its own, until the process ends.
pub fn server<F, S>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let (tell, told) = channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
            tell.send(listener.local_addr().expect("has an address"))
                .expect("is waited for");
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                stream.set_nodelay(true).expect("sets");
                tokio::spawn(handle(stream));
            }
        });
    });
    told.recv().expect("the server starts")
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("builds")
}

/// An address on which nobody listens.
pub use ballast_test_ports::free_address as nobody;
