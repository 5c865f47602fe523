//! The process that will be taken over from.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, DESCRIPTORS, Message, listen};
use crate::hub::Hub;
use crate::manager;

/// How long a successor may take from getting the sockets to serving: it may have to wait for its
/// first table.
const PATIENCE: Duration = Duration::from_mins(2);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits for a successor until `stop`; cancels `retire` when one serves. The successor finds the
/// newest table in `data_dir`, if there is one.
pub async fn hand_over(
    hub: Arc<Hub>,
    path: PathBuf,
    data_dir: Option<PathBuf>,
    retire: CancellationToken,
    stop: CancellationToken,
) {
    let listener = match listen(&path).and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            let path = path.display();
            tracing::error!(%path, %error, "no process can take over from this one");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (hub, data_dir) = (Arc::clone(&hub), data_dir.clone());
        let handed = match accepted {
            Ok((socket, _)) => {
                tokio::task::spawn_blocking(move || hand(&hub, data_dir.as_deref(), socket)).await
            }
            Err(error) => Ok(Err(error)),
        };
        match handed {
            Ok(Ok(channel)) => {
                // Before the successor is told: the path is its own from then on.
                drop(listener);
                done(&channel);
                tracing::info!("another process has taken over, retiring");
                retire.cancel();
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not taken over, serving on");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => tracing::error!(%error, "not taken over, serving on"),
        }
    }
    remove(&path);
}

fn done(channel: &Channel) {
    if let Err(error) = channel.send(&Message::Done, &[]) {
        // It serves, so this process retires all the same.
        tracing::debug!(%error, "the successor left early");
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(%error, "socket not removed");
    }
}

/// Passes everything on, and waits until the successor serves.
fn hand(hub: &Hub, data_dir: Option<&Path>, socket: UnixStream) -> io::Result<Channel> {
    let channel = Channel::new(socket.into_std()?, PATIENCE)?;
    expect(&channel, &Message::Take)?;
    if let Some(dir) = data_dir
        && let Err(error) = manager::keep_live(hub, dir)
    {
        tracing::warn!(%error, "route table not kept, the successor has an older one");
    }
    let copies = hub.sockets.copies()?;
    let mut batches = copies.chunks(DESCRIPTORS).peekable();
    if batches.peek().is_none() {
        let none = Message::Sockets {
            names: Vec::new(),
            more: false,
        };
        channel.send(&none, &[])?;
    }
    while let Some(batch) = batches.next() {
        let message = Message::Sockets {
            names: batch.iter().map(|(name, _)| *name).collect(),
            more: batches.peek().is_some(),
        };
        let fds: Vec<_> = batch.iter().map(|(_, fd)| fd.as_fd()).collect();
        channel.send(&message, &fds)?;
        if batches.peek().is_some() {
            expect(&channel, &Message::Take)?;
        }
    }
    expect(&channel, &Message::Ready)?;
    Ok(channel)
}

fn expect(channel: &Channel, expected: &Message) -> io::Result<()> {
    let (message, _) = channel.receive()?;
    if message == *expected {
        return Ok(());
    }
    let text = format!("out of turn: {message:?}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upgrade::{Kind, take_over};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn successor_gets_the_sockets_with_what_waits_in_them_and_failure_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("upgrade.sock");
        let hub = Hub::new();
        // More than fit into one packet.
        let listeners: Vec<TcpListener> = (0..DESCRIPTORS + 3)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("binds"))
            .collect();
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("is bound"))
            .collect();
        for (listener, &address) in listeners.iter().zip(&addresses) {
            let kept = hub.sockets.keep(Kind::Tcp, address, listener);
            kept.expect("has descriptors");
        }
        let (retire, stop) = (CancellationToken::new(), CancellationToken::new());
        let waiting = hand_over(
            Arc::clone(&hub),
            path.clone(),
            None,
            retire.clone(),
            stop.clone(),
        );
        let waiting = tokio::spawn(waiting);
        let successor = Hub::new();
        let take = || {
            let (path, successor) = (path.clone(), Arc::clone(&successor));
            tokio::task::spawn_blocking(move || take_over(&path, &successor.sockets))
        };
        let taken = loop {
            let taken = take().await.expect("no panic").expect("is let");
            if let Some(taken) = taken {
                break taken;
            }
            tokio::task::yield_now().await;
        };
        // The first one dies before it is ready.
        drop(taken);
        successor.sockets.close_rest();
        let mut client = TcpStream::connect(addresses[70 % addresses.len()]).expect("connects");
        assert!(!retire.is_cancelled());
        let taken = take().await.expect("no panic").expect("is let");
        drop(listeners);
        let ready = taken.expect("is there");
        let ready = tokio::task::spawn_blocking(|| ready.ready());
        ready.await.expect("no panic").expect("is told");
        retire.cancelled().await;
        waiting.await.expect("no panic");
        let address = addresses[70 % addresses.len()];
        let mut given = successor.sockets.take(Kind::Tcp, address);
        let listener = TcpListener::from(given.pop().expect("was given"));
        listener.set_nonblocking(false).expect("is open");
        let (mut accepted, _) = listener.accept().expect("waited in the queue");
        accepted.write_all(b"x").expect("is open");
        let mut read = [0];
        client.read_exact(&mut read).expect("is open");
        assert!(successor.sockets.take(Kind::Tcp, address).is_empty());
    }

    #[test]
    fn nobody_there_is_no_error() {
        let hub = Hub::new();
        let taken = take_over(Path::new("/no/such/socket"), &hub.sockets);
        assert!(taken.expect("is no error").is_none());
    }
}
