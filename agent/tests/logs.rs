//! Logs: bounded while a program writes fast, nothing lost across cuts, tails and followers.

mod common;

use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use ballast_agent::logs::file::LogFile;
use ballast_agent::logs::read::{self, Request};
use ballast_agent::logs::{Bounds, Logs};
use ballast_model::view::LogStream;
use common::{Harness, Service, eventually};
use tokio_util::sync::CancellationToken;

const BOUNDS: Bounds = Bounds {
    bytes: 256 << 10,
    files: 3,
};

fn append(path: &std::path::Path) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).open(path).expect("opens")
}

/// Returns all parts of a log, oldest first.
fn whole(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in (1..10).rev() {
        let name = format!("{}.{part}", path.display());
        bytes.extend(std::fs::read(name).unwrap_or_default());
    }
    let current = std::fs::read(path).unwrap_or_default();
    bytes.extend(current.iter().skip_while(|&&byte| byte == 0));
    bytes
}

fn cuts_lose_nothing(folder: &std::path::Path) {
    let path = folder.join("stdout");
    let log = LogFile::new(path.clone());
    let mut writer = append(&path);
    let mut expected = Vec::new();
    let (_, mut position) = log.tail(0, 0).expect("reads");
    let mut followed = Vec::new();
    for number in 0..60_000 {
        let line = format!("line {number} of many\n");
        writer.write_all(line.as_bytes()).expect("writes");
        expected.extend(line.as_bytes());
        if number % 1000 == 999 {
            log.bound(BOUNDS);
            followed.extend(log.read_from(&mut position, 1 << 20).expect("reads"));
        }
    }
    let kept = whole(&path);
    assert!(
        kept.len() as u64 <= BOUNDS.bytes * 4,
        "{} bytes are kept",
        kept.len()
    );
    assert!(kept.len() as u64 >= BOUNDS.bytes * 2);
    assert!(expected.ends_with(&kept), "the newest bytes, without a gap");
    loop {
        let more = log.read_from(&mut position, 1 << 16).expect("reads");
        if more.is_empty() {
            break;
        }
        followed.extend(more);
    }
    assert!(followed == expected, "a follower has missed nothing");
    let (tail, _) = log.tail(20_000, 1 << 30).expect("reads");
    let lines: Vec<_> = tail.split_inclusive(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), 20_000, "over all parts");
    assert_eq!(lines[0], b"line 40000 of many\n");
    assert_eq!(lines[19_999], b"line 59999 of many\n");
    assert_eq!(
        log.tail(1, 1 << 20).expect("reads").0,
        b"line 59999 of many\n"
    );
}

#[test]
fn cuts_lose_nothing_on_this_file_system() {
    let folder = tempfile::tempdir().expect("makes a folder");
    cuts_lose_nothing(folder.path());
}

#[test]
fn cuts_lose_nothing_where_only_holes_can_be_made() {
    let shm = std::path::Path::new("/dev/shm");
    let Ok(folder) = tempfile::tempdir_in(shm) else {
        println!("SKIP: /dev/shm (tmpfs, which cannot collapse ranges) is not there");
        return;
    };
    cuts_lose_nothing(folder.path());
}

#[test]
fn program_that_writes_100_000_lines_a_second_is_bounded_and_loses_no_line() {
    let bounds = Bounds {
        bytes: 1 << 20,
        files: 3,
    };
    let bound = bounds.bytes;
    let mut node = Harness::with(true, bounds);
    // As fast as it can, in bursts of 10,000 lines; then it waits, so that the end is known.
    let service = Service::python(
        "
import sys, time
n = 0
while n < 300000:
    sys.stdout.write(''.join('line %d\\n' % i for i in range(n, n + 10000))); sys.stdout.flush()
    n += 10000
    time.sleep(0.05)
print('done'); time.sleep(1000)
",
    );
    let (_, ids) = node.assign(&[(service, 1)]);
    node.until_running(ids[0]);
    let path = node.task_files(ids[0]).stdout;
    let mut largest = 0;
    eventually("all lines", || {
        let Ok(metadata) = std::fs::metadata(&path) else {
            return false;
        };
        largest = largest.max(metadata.len());
        // Once no cut is due, none comes between the parts as they are read.
        let kept = metadata.len().min(metadata.blocks() * 512);
        kept <= bound && whole(&path).ends_with(b"done\n")
    });
    let text = String::from_utf8(whole(&path)).expect("is text");
    let numbers: Vec<u32> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.strip_prefix("line ")?.parse().ok())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "no line is missing"
    );
    assert_eq!(numbers.last(), Some(&299_999));
    println!("largest: {largest} bytes; kept lines: {}", numbers.len());
    assert!(largest < 6 << 20, "{largest} bytes at once");
}

#[test]
fn tail_and_follow_send_whole_lines_of_both_streams() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let id = ballast_model::AssignmentId::from_bits(5);
    let task = folder.path().join(id.to_string());
    std::fs::create_dir_all(&task).expect("makes a folder");
    let mut out = append(&task.join("stdout"));
    append(&task.join("stderr"))
        .write_all(b"oops \xff\n")
        .expect("writes");
    out.write_all(b"one\ntwo\nthree\nfo").expect("writes");
    let logs = Logs::new(folder.path().to_owned(), BOUNDS);
    assert!(
        logs.find(ballast_model::AssignmentId::from_bits(6))
            .is_none()
    );
    let logs = logs.find(id).expect("has logs");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("starts");
    runtime.block_on(async {
        let (sender, mut lines) = tokio::sync::mpsc::channel(8);
        let cancel = CancellationToken::new();
        let request = Request {
            id: 9,
            tail: 3,
            follow: true,
        };
        let reader = tokio::spawn(read::serve(
            Arc::clone(&logs),
            request,
            sender,
            cancel.clone(),
        ));
        let mut next = async || {
            let message = tokio::time::timeout(common::DEADLINE, lines.recv()).await;
            message.expect("in time").expect("goes on").lines
        };
        let expected = [b"two".to_vec(), b"three".to_vec()].map(|line| (LogStream::Stdout, line));
        assert_eq!(next().await, expected);
        assert_eq!(next().await, [(LogStream::Stderr, b"oops \xff".to_vec())]);
        out.write_all(b"ur\nfive\n").expect("writes");
        let expected = [b"four".to_vec(), b"five".to_vec()].map(|line| (LogStream::Stdout, line));
        assert_eq!(next().await, expected);
        cancel.cancel();
        tokio::time::timeout(Duration::from_secs(5), reader)
            .await
            .expect("ends")
            .expect("well");
    });
}
