//! What drives the threads that serve HTTP, by the file.

use ballast_ring::Backend;
use serde::Deserialize;

use super::RawConfig;
use crate::l7::h1::Setup;

/// Which part of the kernel drives the threads that serve HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawIo {
    /// epoll.
    #[default]
    Epoll,
    /// io_uring; epoll where it is not to be had, which is said.
    Uring,
    /// Whichever is held to be better: at present the same as `uring`.
    Auto,
}

impl RawConfig {
    pub(super) fn hot(&self, threads: Option<std::num::NonZeroUsize>) -> Setup {
        let default = Setup::default();
        Setup {
            threads: threads.unwrap_or(default.threads),
            backend: match self.io {
                RawIo::Epoll => Backend::Epoll,
                RawIo::Uring | RawIo::Auto => Backend::Auto,
            },
            pin: self.pin_threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_says_what_drives_the_threads_and_a_word_that_is_none_is_refused() {
        let parse = |io: &str| {
            let text = format!(
                "listen: {{ http: \"127.0.0.1:0\" }}\nthreads: 3\npin_threads: true\nservices: {{}}\n{io}"
            );
            RawConfig::from_text(std::path::Path::new("lb.yaml"), &text)
        };
        for (io, backend) in [
            ("", Backend::Epoll),
            ("io: epoll\n", Backend::Epoll),
            ("io: uring\n", Backend::Auto),
            ("io: auto\n", Backend::Auto),
        ] {
            let raw = parse(io).expect("is valid");
            let hot = raw.validate().expect("is valid").hot;
            assert_eq!(hot.backend, backend, "{io}");
            assert_eq!((hot.threads.get(), hot.pin), (3, true));
        }
        assert!(parse("io: kqueue\n").is_err());
    }
}
