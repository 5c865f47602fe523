//! How sockets are opened and prepared.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::error::IoError;
use crate::options::ConnectOptions;
use crate::sockets::Role;

/// How long a socket that was told to close may take to send what is queued. Slow readers get so
/// much; a user that wants to be stricter closes it.
pub(crate) const LONGEST_SENDING: Duration = Duration::from_secs(30);
/// How long it waits for the peer's FIN after that. As nginx does for each wait of its
/// `lingering_timeout`, only shorter: a round trip is what is needed.
pub(crate) const LONGEST_LINGERING: Duration = Duration::from_secs(2);
/// How long a listener that cannot accept waits before it tries again. Long enough not to spin,
/// short against the seconds for which a client waits.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Returns a listener whose address others may listen on, too: the kernel spreads connections over
/// them (`SO_REUSEPORT`), so that each thread has its own. All of them must belong to one user.
///
/// `backlog` is the most connections that wait to be accepted; the kernel lowers it to
/// `net.core.somaxconn`. A port of 0 is chosen by the kernel, for the first of them.
///
/// # Errors
/// The address is not ours, or somebody listens there alone.
pub fn listen_reuseport(address: SocketAddr, backlog: u32) -> Result<TcpListener, IoError> {
    let fd = tcp_socket(address)?;
    // As std's listeners: an address whose old connections are in TIME_WAIT is free.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    let bound = rustix::net::bind(&fd, &address);
    bound.map_err(|errno| IoError::Os(errno.into()))?;
    rustix::net::listen(&fd, i32::try_from(backlog).unwrap_or(i32::MAX))
        .map_err(|errno| IoError::Os(errno.into()))?;
    Ok(TcpListener::from(fd))
}

fn tcp_socket(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
}

/// Makes a listener non-blocking, and its connections send small segments at once.
pub(crate) fn prepare_listener(fd: &OwnedFd) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(fd, true)?;
    // Connections inherit it, which saves a call for each.
    sockopt::set_tcp_nodelay(fd, true)
}

/// Returns what kind of socket it is, and makes it non-blocking.
pub(crate) fn prepare_adopted(fd: &OwnedFd) -> Result<Role, Errno> {
    let role = match sockopt::socket_type(fd)? {
        SocketType::STREAM => Role::Stream,
        SocketType::DGRAM => Role::Datagram,
        _ => return Err(Errno::PROTOTYPE),
    };
    rustix::io::ioctl_fionbio(fd, true)?;
    Ok(role)
}

/// Returns a socket that is connecting.
pub(crate) fn connect(address: SocketAddr, options: &ConnectOptions) -> Result<OwnedFd, IoError> {
    let fd = tcp_socket(address)?;
    if options.nodelay {
        sockopt::set_tcp_nodelay(&fd, true)?;
    }
    if let Some(source) = options.source {
        bind_address_only(&fd)?;
        // No port is chosen yet, so that it can only be the address that is not to be had.
        rustix::net::bind(&fd, &SocketAddr::new(source, 0))
            .map_err(|errno| IoError::Os(errno.into()))?;
    }
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

/// Leaves the choice of the port to `connect`, which knows the other address.
fn bind_address_only(fd: &OwnedFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).expect("four bytes");
    // SAFETY: `on` lives through the call and is as long as is said; IPv6 sockets know the option
    // at this level, too.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::OPNOTSUPP))
}

/// Makes the close of a connection a RST. Not for other sockets; there it does nothing.
pub(crate) fn reset_on_close(fd: impl AsFd) {
    // A socket that does not know it is closed all the same.
    let _unsupported = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}
