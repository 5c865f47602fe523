//! The fields of a head.

use std::fmt;

use crate::known::KnownField;

/// The places of a head's fields; reusable, one for each thread. It grows to the largest head that
/// it has seen, within the limits, and allocates no more from then on.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) slots: Vec<Slot>,
}

/// Where a field lies in the bytes of its head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub name: usize,
    pub colon: usize,
    pub value: usize,
    pub value_end: usize,
    /// Behind its line end.
    pub end: usize,
    pub known: Option<KnownField>,
    pub hop_by_hop: bool,
}

impl Slot {
    pub fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.name..self.colon]
    }

    pub fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.value..self.value_end]
    }
}

/// A field of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it came: a token.
    pub name: &'a [u8],
    /// The value without the blanks around it: no control character but the tab, any byte from 0x80.
    pub value: &'a [u8],
    /// Which one it is, if it is known.
    pub known: Option<KnownField>,
    /// Whether it is meant for this connection alone, so that a proxy takes it out: by its name,
    /// because Connection names it, or because it has no meaning here (a Content-Length in a 204).
    pub hop_by_hop: bool,
    /// The whole line as it came, its end included.
    pub line: &'a [u8],
}

impl Field<'_> {
    /// Whether it has this name, whatever the case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a head, in their order.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) slots: &'a [Slot],
}

impl<'a> Fields<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Each of them, in the order in which they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'a>> + use<'a> {
        let bytes = self.bytes;
        self.slots.iter().map(move |slot| field(bytes, slot))
    }

    /// The value of the first field of this name, whatever the case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The values of every field of this name, whatever the case.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let bytes = self.bytes;
        self.slots
            .iter()
            .filter(move |slot| slot.name(bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |slot| slot.value(bytes))
    }

    /// The value of the first field that is this one; compares no names.
    pub fn known(&self, field: KnownField) -> Option<&'a [u8]> {
        let slot = self.slots.iter().find(|slot| slot.known == Some(field))?;
        Some(slot.value(self.bytes))
    }

    /// Appends the lines of those fields that are kept, as they came. Neighbours are copied at once,
    /// so that it costs little more than one copy of the head.
    pub fn copy_kept(&self, out: &mut Vec<u8>, mut keep: impl FnMut(&Field<'a>) -> bool) {
        let Some(first) = self.slots.first() else {
            return;
        };
        let (mut start, mut end) = (first.name, first.name);
        for slot in self.slots {
            if !keep(&field(self.bytes, slot)) {
                out.extend_from_slice(&self.bytes[start..end]);
                start = slot.end;
            }
            end = slot.end;
        }
        out.extend_from_slice(&self.bytes[start..end]);
    }
}

fn field<'a>(bytes: &'a [u8], slot: &Slot) -> Field<'a> {
    Field {
        name: slot.name(bytes),
        value: slot.value(bytes),
        known: slot.known,
        hop_by_hop: slot.hop_by_hop,
        line: &bytes[slot.name..slot.end],
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.iter().map(|field| {
            (
                String::from_utf8_lossy(field.name),
                String::from_utf8_lossy(field.value),
            )
        });
        f.debug_map().entries(texts).finish()
    }
}
