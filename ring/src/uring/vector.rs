//! How the kernel is told of what is to be sent.

use std::io::IoSlice;

use crate::outbox::PARTS;

/// Where pieces lie, which says nothing of how long they do.
pub(crate) struct Addresses {
    parts: [libc::iovec; PARTS],
    count: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl Addresses {
    pub fn of(parts: &[IoSlice<'_>]) -> Addresses {
        let mut addresses = [NOTHING; PARTS];
        for (address, part) in addresses.iter_mut().zip(parts) {
            *address = libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            };
        }
        Addresses {
            parts: addresses,
            count: parts.len().min(PARTS),
            bytes: parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Returns the address of the piece, if it is only one.
    pub fn single(&self) -> Option<*const u8> {
        (self.count == 1).then(|| self.parts[0].iov_base.cast_const().cast())
    }
}

/// A message of several pieces, in the form that the kernel reads.
///
/// It is read when the operation begins: until that has completed it stays where it is, and so do
/// the pieces.
pub(crate) struct Vector {
    header: libc::msghdr,
    parts: [libc::iovec; PARTS],
}

impl Vector {
    /// Writes down a message, and returns it.
    pub fn message(&mut self, addresses: &Addresses) -> *const libc::msghdr {
        self.parts = addresses.parts;
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = addresses.count as _;
        &raw const self.header
    }
}

const NOTHING: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

impl Default for Vector {
    fn default() -> Self {
        Vector {
            // SAFETY: each field may be zero or null: a message without name, pieces and control
            // data.
            header: unsafe { std::mem::zeroed() },
            parts: [NOTHING; PARTS],
        }
    }
}

impl std::fmt::Debug for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vector").finish_non_exhaustive()
    }
}
