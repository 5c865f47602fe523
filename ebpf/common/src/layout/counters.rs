//! What is counted.

/// An entry of [`BACKEND_COUNTERS`](super::maps::BACKEND_COUNTERS), one for each CPU: add them up.
///
/// What a service forwarded is the sum over its backends; the hot path counts nowhere else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Packets forwarded to it.
    pub packets: u64,
    /// Their bytes, from the IP header on, as the client sent them.
    pub bytes: u64,
    /// Flows that began.
    pub flows: u64,
    /// RSTs sent to clients in its name.
    pub resets: u64,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// What became of a packet: the column in
        /// [`VIP_VERDICTS`](super::maps::VIP_VERDICTS).
        ///
        /// A packet counts once among those that say where it went (forwarded ones in their
        /// backend's counters instead); those called "also" count beside that.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Verdict {
            /// Every verdict, in order of its number.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name it has in metrics and in fixtures.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

verdicts! {
    /// Not for a service: passed to the host's stack.
    Passed = 0, "passed";
    /// Forwarded (counted in the backend's counters, not here).
    Forwarded = 1, "forwarded";
    /// An ICMP echo request to a service's address, answered.
    Echo = 2, "echo";
    /// An ICMP error, forwarded to the real of the packet that it quotes.
    IcmpRouted = 3, "icmp_routed";
    /// Too large for the way to the real: the client was told.
    TooBig = 4, "too_big";
    /// A flow of a dead real: answered with RST.
    Reset = 5, "reset";
    /// An answer of a real, translated back to its client.
    NatReturned = 6, "nat_returned";
    /// Decapsulated, passed to the host's stack.
    Decapsulated = 7, "decapsulated";
    /// Decapsulated, but of a connection of the slot's previous real: sent on to that.
    DecapChained = 8, "decap_chained";
    /// To an address of a service, but a port that none has: passed or dropped as its record says.
    Unserved = 9, "unserved";
    /// Dropped: lengths, versions, flags or addresses that no packet may have.
    Malformed = 16, "malformed";
    /// Dropped: IPv4 options or IPv6 extension headers, to an address of a service.
    Options = 17, "options";
    /// Dropped: a fragment to an address of a service.
    Fragment = 18, "fragment";
    /// Dropped: its source is on the block list.
    Blocked = 19, "blocked";
    /// Dropped: its source begins too many flows.
    Limited = 20, "limited";
    /// Dropped: no real can take it.
    NoReal = 21, "no_real";
    /// Dropped: no translation was free.
    NatFull = 22, "nat_full";
    /// Dropped: an encapsulated packet that may not come in, or whose inside is no packet.
    DecapRefused = 23, "decap_refused";
    /// Dropped: too large for the way to the real, and it may not be told (DF clear).
    TooBigDropped = 24, "too_big_dropped";
    /// Dropped: the kernel had no room for headers.
    NoRoom = 25, "no_room";
    /// Dropped: its time to live is over (translated packets are routed).
    Expired = 26, "expired";
    /// Also: a new flow.
    NewFlow = 27, "new_flow";
    /// Also: no way of the flow table was free, the ring decides for each packet.
    TableFull = 28, "table_full";
    /// Also: sent by a QUIC connection id.
    QuicId = 29, "quic_id";
    /// Also: sent with the slot's previous real as second choice.
    Chained = 30, "chained";
    /// Also: not the first choice of the ring, which is dead or draining.
    SecondTry = 31, "second_try";
}

const _: () = assert!(size_of::<BackendCounters>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_fit_their_row_and_have_labels_of_their_own() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert!((*verdict as u32) < crate::layout::limits::VERDICTS);
            for other in &Verdict::ALL[index + 1..] {
                assert_ne!(verdict.label(), other.label());
                assert_ne!(*verdict as u8, *other as u8);
            }
        }
    }
}
