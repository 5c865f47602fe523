//! Many tasks at once. `BALLAST_SCALE_TASKS` says how many, for measurements; 50 otherwise.

mod common;

use std::time::{Duration, Instant};

use ballast_model::TaskState;
use common::{Harness, Service, eventually, read};

fn rss_kib() -> u64 {
    let status = read("/proc/self/status".as_ref());
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn cpu_ticks() -> u64 {
    let stat = read("/proc/self/stat".as_ref());
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .expect("has a name")
        .1
        .split(' ')
        .collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[test]
fn tasks_of_one_set_start_together() {
    let count = std::env::var("BALLAST_SCALE_TASKS")
        .ok()
        .and_then(|text| text.parse().ok());
    let count: u32 = count.unwrap_or(50);
    let mut service = Service::shell("");
    service.template.command = vec!["/bin/sleep".to_owned(), "1000".to_owned()];
    let mut node = Harness::new();
    let begun = Instant::now();
    node.assign(&[(service, count)]);
    let running = |node: &Harness| {
        node.agent()
            .count_by_state()
            .get(&TaskState::Running)
            .copied()
    };
    eventually("all tasks", || running(&node) == Some(count as usize));
    let took = begun.elapsed();
    println!(
        "{count} tasks run after {took:?}; resident {} KiB",
        rss_kib()
    );
    if count >= 1000 {
        let (ticks, begun) = (cpu_ticks(), Instant::now());
        std::thread::sleep(Duration::from_secs(10));
        let percent = (cpu_ticks() - ticks) as f64 / begun.elapsed().as_secs_f64();
        println!("idle: {percent:.2} % of a core; resident {} KiB", rss_kib());
    }
}

#[test]
fn idle_probes_are_cheap() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("has an address").port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let node = Harness::new();
    let question = ballast_probe::Question::Http {
        address: ([127, 0, 0, 1], port).into(),
        path: "/".to_owned(),
        status: (200, 299),
    };
    let ticks = cpu_ticks();
    let probes = 1000;
    node.block_on(async {
        for _ in 0..probes {
            ballast_probe::ask(&question, Duration::from_secs(5))
                .await
                .expect("answers");
        }
    });
    // Ticks are hundredths of a second; 500 tasks make 100 probes a second.
    let micros = (cpu_ticks() - ticks) as f64 * 10_000.0 / f64::from(probes);
    println!(
        "a probe costs {micros:.0} µs of CPU, both sides: 500 tasks {:.2} % of a core",
        micros / 100.0
    );
}
