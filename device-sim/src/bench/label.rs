//! What every payload of a bench begins with: which run, whose, which of its messages, and when it was due.
//!
//! 28 bytes, big-endian: `MQB1`, run (4), publisher (4), sequence from 0 (8), nanoseconds since 1970 (8). The time is
//! a wall clock's reading at the start of the process plus what a steady clock has counted since.

/// The shortest payload that can be followed.
pub const LABEL_BYTES: usize = 28;
const MAGIC: [u8; 4] = *b"MQB1";
/// Where the sequence is; the time follows.
const SEQUENCE_AT: usize = 12;

/// One message's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) run: u32,
    pub(super) publisher: u32,
    pub(super) sequence: u64,
    pub(super) at_ns: u64,
}

impl Label {
    /// Reads the beginning of a payload; `None` when it is not one of ours.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk::<4>()?;
        let (publisher, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (at, _) = rest.split_first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Self {
            run: u32::from_be_bytes(*run),
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
            at_ns: u64::from_be_bytes(*at),
        })
    }

    /// A payload of `size` bytes with this label, cut off where it does not fit.
    pub(super) fn payload(&self, size: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(size.max(LABEL_BYTES));
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&self.run.to_be_bytes());
        payload.extend_from_slice(&self.publisher.to_be_bytes());
        payload.extend_from_slice(&self.sequence.to_be_bytes());
        payload.extend_from_slice(&self.at_ns.to_be_bytes());
        payload.resize(size, b'x');
        payload
    }

    /// Puts another sequence and time into a payload that has room for them.
    pub(super) fn patch(payload: &mut [u8], sequence: u64, at_ns: u64) {
        if let Some(numbers) = payload.get_mut(SEQUENCE_AT..LABEL_BYTES) {
            let (before, after) = numbers.split_at_mut(8);
            before.copy_from_slice(&sequence.to_be_bytes());
            after.copy_from_slice(&at_ns.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label = Label {
        run: 7,
        publisher: 70_000,
        sequence: u64::MAX - 1,
        at_ns: 1_764_000_000_000_000_000,
    };

    #[test]
    fn a_label_survives_its_payload_and_a_patch() {
        for size in [LABEL_BYTES, LABEL_BYTES + 1, 256] {
            let mut payload = LABEL.payload(size);
            assert_eq!(payload.len(), size);
            assert_eq!(Label::read(&payload), Some(LABEL));
            Label::patch(&mut payload, 5, 6);
            let patched = Label {
                sequence: 5,
                at_ns: 6,
                ..LABEL
            };
            assert_eq!(Label::read(&payload), Some(patched));
        }
    }

    #[test]
    fn other_payloads_are_nobodys() {
        for payload in [
            &b""[..],
            b"MQB1",
            &[0; 28],
            b"{\"d\": 1, \"n\": 2, \"t\": 333333333333}",
        ] {
            assert_eq!(Label::read(payload), None);
        }
        let mut short = LABEL.payload(8);
        Label::patch(&mut short, 1, 1);
        assert_eq!((short.len(), Label::read(&short)), (8, None));
    }
}
