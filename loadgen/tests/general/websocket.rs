//! WebSocket echo.

use ballast_loadgen::ErrorClass;
use ballast_loadgen::plan::Template;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use crate::rig::{Count, drivers, errors, none, only, plan, run, with_body};
use crate::tls::Identity;

/// Serves each connection by `handle` on a thread of its own.
fn listen(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, handle) = (stream.expect("accepts"), handle.clone());
            std::thread::spawn(move || handle(stream));
        }
    });
    address
}

/// Answers each message by `answer`, until it says no more.
fn server(
    answer: impl Fn(&mut WebSocket<TcpStream>, Message) -> bool + Clone + Send + 'static,
) -> SocketAddr {
    listen(move |stream| {
        stream.set_nodelay(true).expect("sets");
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        while let Ok(message) = socket.read() {
            if (message.is_binary() || message.is_text()) && !answer(&mut socket, message) {
                return;
            }
        }
    })
}

#[test]
fn every_message_comes_back_past_pings_and_in_pieces() {
    let address = server(|socket, message| {
        socket.send(Message::Ping("are you there".into())).is_ok() && socket.send(message).is_ok()
    });
    for driver in drivers() {
        for body in ["", "hello {{counter}}", &"x".repeat(200_000)] {
            let plan = with_body(plan(&format!("ws://{address}/chat"), 200.0, 40), body);
            let recorder = run(driver, &plan);
            assert_eq!(errors(&recorder), none(), "{driver:?}");
            assert_eq!((recorder.counts().done, recorder.counts().opened), (40, 4));
        }
    }
}

#[test]
fn messages_are_echoed_over_tls() {
    let identity = Identity::new("ws.test", &["http/1.1"]);
    let acceptor = identity.acceptor.clone();
    let address = listen(move |stream| {
        let config = acceptor.config().clone();
        let connection = rustls::ServerConnection::new(config).expect("sets up");
        let stream = rustls::StreamOwned::new(connection, stream);
        if let Ok(mut socket) = tungstenite::accept(stream) {
            while let Ok(message) = socket.read() {
                if message.is_binary() && socket.send(message).is_err() {
                    return;
                }
            }
        }
    });
    for driver in drivers() {
        let plan = identity.trusted(plan(&format!("wss://{address}/"), 200.0, 40), "ws.test");
        let recorder = run(driver, &plan);
        assert_eq!(errors(&recorder), none(), "{driver:?}");
        assert_eq!(recorder.counts().opened, 4);
    }
}

#[test]
fn refused_upgrade_is_a_status_and_one_that_is_ignored_breaks_the_protocol() {
    for driver in drivers() {
        for (answer, class) in [
            (
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
                ErrorClass::Status,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                ErrorClass::Protocol,
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", ErrorClass::Protocol),
            ("", ErrorClass::Reset),
        ] {
            let address = listen(move |mut stream| {
                std::io::Read::read(&mut stream, &mut [0; 4096]).ok();
                stream.write_all(answer.as_bytes()).ok();
                stream.shutdown(std::net::Shutdown::Write).ok();
                std::io::copy(&mut stream, &mut std::io::sink()).ok();
            });
            let recorder = run(driver, &plan(&format!("ws://{address}/"), 200.0, 20));
            assert_eq!(errors(&recorder), only(class, 20), "{driver:?} {answer}");
        }
    }
}

#[test]
fn changed_message_garbage_and_close_are_told_apart() {
    for driver in drivers() {
        let count = Count::default();
        let address = server(move |socket, message| match count.up() % 4 {
            0 => socket.send(Message::text("something else")).is_ok(),
            1 => {
                // A reserved opcode.
                socket.get_mut().write_all(&[0x8b, 0x00]).is_ok()
            }
            2 => {
                let bye = CloseFrame {
                    code: CloseCode::Away,
                    reason: "".into(),
                };
                socket.close(Some(bye)).is_ok()
            }
            _ => socket.send(message).is_ok(),
        });
        let recorder = run(driver, &plan(&format!("ws://{address}/"), 400.0, 80));
        let expected =
            [ErrorClass::Reset, ErrorClass::Protocol, ErrorClass::Check].map(|class| (class, 20));
        assert_eq!(errors(&recorder), expected.into(), "{driver:?}");
        assert!(recorder.counts().opened >= 60, "each costs its connection");
    }
}

#[test]
fn upgrade_asks_with_the_path_and_headers_of_the_plan() {
    use tungstenite::handshake::server::{ErrorResponse, Request, Response};
    let address = listen(|stream| {
        #[allow(
            clippy::result_large_err,
            reason = "the type is given by tungstenite's callback"
        )]
        let judge = |request: &Request, response: Response| {
            let header = request
                .headers()
                .get("x-key")
                .map(http::HeaderValue::as_bytes);
            if request.uri().path() == "/room" && header == Some(b"k") {
                Ok(response)
            } else {
                Err(ErrorResponse::new(None))
            }
        };
        if let Ok(mut socket) = tungstenite::accept_hdr(stream, judge) {
            while let Ok(message) = socket.read() {
                if message.is_binary() && socket.send(message).is_err() {
                    return;
                }
            }
        }
    });
    for driver in drivers() {
        let mut plan = plan(&format!("ws://{address}/room"), 200.0, 20);
        plan.targets[0].requests[0].headers = vec![("x-key".to_owned(), Template::literal(*b"k"))];
        assert_eq!(errors(&run(driver, &plan)), none());
    }
}
